"""The record of one backward pass: plain data that prints, plots and saves itself."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

from torch import Tensor

from .. import _checks, draw
from .._errors import RecordFormatError
from . import views
from .codec import decode, encode
from .document import document_of
from .events import Deposits, Edge, Key, Leaf, Output, PassData, PassNode
from .responses import Responses

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT = 2


class Source(Protocol):
    """What a record was made of, where it can be asked again."""

    def responses(self, record: BackwardRecord, budget: int, anyway: bool) -> Responses: ...


@dataclasses.dataclass(frozen=True, eq=False)
class _Saved:
    """The fields of a record as they stand in a file; deposits as pairs."""

    outputs: tuple[Output, ...]
    seeds: tuple[Edge, ...]
    nodes: tuple[PassNode, ...]
    leaves: tuple[Leaf, ...]
    deposits: tuple[tuple[Key, Tensor], ...]
    accumulate: bool
    retain_graph: bool
    keep: str
    torch_version: str
    notes: tuple[str, ...]
    tolerance: float


@dataclasses.dataclass(frozen=True, eq=False)
class BackwardRecord(PassData):
    """What one backward pass did, as ``pb.record`` wrote it down. Plain data: no graph is alive.

    - ``nodes``: every node that ran, in execution order, with its upstream cotangent per slot and
      the contribution on every edge (`PassNode`, `Edge`, `Cotangent`, `Stats`).
    - ``deposits``: leaf name, or position, to the tensor that the pass added (or, in a look, would
      add) to its ``.grad``; shape of the leaf.
    - ``outputs``, ``leaves``: what was differentiated, and what was reached.
    - ``conserved``, ``conservation_error``: whether the contributions into every node sum to what
      it received, and the largest relative difference (0.0: equal to the last bit).
    - ``hooks``: the user's hooks that ran. ``notes``: what could not be seen, and why.

    ``print(record)`` draws the pass as a tree from the outputs to the leaves.
    """

    def __str__(self) -> str:
        return self.tree()

    def __repr__(self) -> str:
        outputs = ", ".join(f"{o.name} {o.shape}" for o in self.outputs)
        state = "conserved" if self.conserved else f"off by {self.conservation_error:.2g}"
        return (
            f"<BackwardRecord of {outputs}: {len(self.nodes)} nodes, "
            f"{len(self.deposits)} deposits, {state}>"
        )

    def tree(self, *, formulas: bool = False, limit: int = 200, width: int | None = None) -> str:
        """The pass as text, from the outputs down to the leaves.

        ``formulas`` quotes torch's derivative formula of each node where torch ships one;
        ``limit`` is the number of rows before the middle of a long pass is left out.
        """
        return draw.to_text(views.tree_page(self, formulas, limit), width=width)

    def plot(self) -> Figure:
        """Heatmaps of the outputs, their cotangents and the deposits: a matplotlib figure.

        Axes are named; values are written in where they fit. Outputs and cotangents that were too
        large to be kept (``keep="stats"``) are left out, deposits never are.
        """
        from ..draw.figures import heatmaps_figure

        names = ", ".join(output.name for output in self.outputs)
        return heatmaps_figure(views.heatmaps(self), title=f"backward of {names}")

    def to_html(
        self,
        path: str | Path,
        *,
        editable: bool | None = None,
        budget: int = 4 << 20,
    ) -> Path:
        """Write one self-contained page on which the cotangent can be edited; return its path.

        The page needs no network and no Python. It shows the graph, the cotangents and the
        deposits. Backward is linear in v, so the page holds the answers of the pass to a basis of
        cotangents and follows every edit of v exactly. They are asked of the graph now, so the
        outputs must still exist and the graph must not be freed; where that is not so the page
        shows the pass as it was recorded, and says why.

        Args:
            path: the file to write, ``.html``.
            editable: None asks the graph unless the user's own hooks would run again; True asks
                it even then; False never.
            budget: how many bytes of answers the page may hold. Where those to single output
                elements do not fit, it holds the deposits alone, or the answers to single rows.

        Raises:
            ArgumentError: ``budget`` is negative or no integer, ``editable`` no bool or None.
            OSError: the file cannot be written.
        """
        _checks.page_options("record.to_html", editable, budget)
        target = Path(path)
        target.write_text(self._html(editable, budget), encoding="utf-8")
        return target

    def _repr_html_(self) -> str:
        """In a notebook: the page in a frame of its own."""
        from ..draw.explorer import framed

        return framed(self._html(None, 1 << 20))

    def _html(self, editable: bool | None, budget: int) -> str:
        from ..draw.explorer import to_html

        return to_html(self.document(editable, budget), views.full_page(self))

    def document(self, editable: bool | None = None, budget: int = 4 << 20) -> dict[str, Any]:
        """What the explorer reads: this record, and answers to a basis of cotangents, as JSON
        data. The arguments are those of ``to_html``."""
        source = source_of(self)
        if editable is False:
            found = Responses("none", reason="the page was written with editable=False")
        elif source is None:
            found = Responses("none", reason="this record was read from a file: it has no graph")
        else:
            found = source.responses(self, budget, editable is True)
        return document_of(self, found)

    def to_json(self) -> str:
        """The record as JSON text. ``BackwardRecord.from_json`` gives it back, bit for bit."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(_Saved)}
        saved = _Saved(**{**fields, "deposits": tuple(self.deposits.items())})
        body = {"format": FORMAT, "record": encode(saved)}
        return json.dumps(body, allow_nan=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> BackwardRecord:
        """Read what ``to_json`` wrote.

        Tensors come back on the CPU.

        Raises:
            RecordFormatError: the text is not JSON, not a record, or of another format version.
        """
        body = _parse(text)
        if not isinstance(body, dict) or "format" not in body or "record" not in body:
            raise RecordFormatError(
                "BackwardRecord.from_json: the text is JSON, but not a record; records are "
                "written by record.to_json()."
            )
        if body["format"] != FORMAT:
            raise RecordFormatError(
                f"BackwardRecord.from_json: the record has format {body['format']!r}; this version "
                f"of pullback reads format {FORMAT}. Record the pass again."
            )
        try:
            saved = decode(_Saved, body["record"], "record")
            fields = {f.name: getattr(saved, f.name) for f in dataclasses.fields(_Saved)}
            record = cls(**{**fields, "deposits": Deposits(dict(saved.deposits))})
            sound = _is_sound(record)
        except RecordFormatError:
            raise
        except Exception as error:  # whatever an altered text leads to
            raise RecordFormatError(
                f"BackwardRecord.from_json: the record cannot be rebuilt ({error}); the text was "
                f"altered or cut."
            ) from error
        if not sound:
            raise RecordFormatError(
                "BackwardRecord.from_json: an edge, output or leaf of the record points to "
                "something that is not in it; the text was altered or cut."
            )
        return record


# Beside the records, not in them: a record stays plain data that can be copied and pickled.
_sources: WeakKeyDictionary[BackwardRecord, Source] = WeakKeyDictionary()


def remember(record: BackwardRecord, source: Source) -> None:
    _sources[record] = source


def source_of(record: BackwardRecord) -> Source | None:
    return _sources.get(record)


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecordFormatError(
            f"BackwardRecord.from_json: the text is not JSON ({error}). "
            f"Pass the string that record.to_json() returned."
        ) from None


def _is_sound(record: BackwardRecord) -> bool:
    """Every reference in a record must point into it, and every edge go forward."""
    nodes, keys = record.nodes, {leaf.key for leaf in record.leaves}
    slots = [len(node.upstream) for node in nodes]

    def a_place(node: int, slot: int) -> bool:
        return 0 <= node < len(nodes) and 0 <= slot < slots[node]

    seeds = all(
        e.source is None and 0 <= e.position < len(record.outputs) and a_place(e.target, e.slot)
        for e in record.seeds
    )
    edges = all(
        e.source == node.index and node.index < e.target and a_place(e.target, e.slot)
        for node in nodes
        for e in node.edges
    )
    cotangents = [c for node in nodes for c in node.upstream if c is not None]
    cotangents += [e.contribution for n in nodes for e in n.edges if e.contribution is not None]
    return (
        bool(record.outputs)
        and all(node.index == k for k, node in enumerate(nodes))
        and all(node.leaf is None or node.leaf in keys for node in nodes)
        and all(o.node is None or a_place(o.node, o.slot) for o in record.outputs)
        and all(leaf.node is None or 0 <= leaf.node < len(nodes) for leaf in record.leaves)
        and all(key in keys for key in record.deposits)
        and all(c.measured is not None or c.values is not None for c in cotangents)
        and seeds
        and edges
    )
