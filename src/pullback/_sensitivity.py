"""``pb.sensitivity``: several named cotangents through one graph, compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from . import _checks, _torch, draw
from ._checks import Leaves
from ._names import CallerNames
from ._rowsums import Weighing, products_of, rounding_of, row_sums_of, total
from ._trees import Tree, flatten, to_vector
from .backward.graph import walk
from .backward.recorder import output_leaves
from .backward.targets import find_targets, named_inputs
from .backward.views import heatmap
from .draw.numbers import number, percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CALLER = "pb.sensitivity"
Key = str | int


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Gradients of several weighted sums of the same outputs, side by side.

    - ``grads[name]``: v . J for that cotangent, laid out as ``inputs`` was given (a tensor for a
      tensor, a tuple for a sequence, a dict for a mapping or a module); shapes of the inputs.
    - ``totals[name]``: the sum of all entries of ``grads[name]`` over all inputs. It equals
      v . (J 1), the row sums of J weighed with v.
    - ``row_sums``: J 1, a vector with one entry per output element;
      ``row_sum_range``: its smallest and largest entry. For v >= 0 that adds up to 1, the total
      is an average of row sums, so it lies in this range: that is all that normalizing v fixes.
    - ``cosines``: ``cosines[a][b]``, the cosine between two gradients (nan if one is zero).
    - ``shares[name]``: the part of sum |gradient| that each input has.
    - ``way``: how the row sums were computed; ``engine``: how the products were; ``notes``: why
      not faster, and what is not as it should be.
    """

    grads: dict[str, Any]
    totals: dict[str, float]
    row_sums: Tensor
    cosines: dict[str, dict[str, float]]
    shares: dict[str, dict[Key, float]]
    weights: dict[str, tuple[float, bool]]
    by_input: dict[str, dict[Key, Tensor]]
    engine: str
    way: str
    notes: tuple[str, ...]
    rounding: float

    @property
    def row_sum_range(self) -> tuple[float, float]:
        """The smallest and the largest entry of ``row_sums``; 0 and 0 where there is none."""
        if self.row_sums.numel() == 0:
            return (0.0, 0.0)
        low, high = torch.aminmax(self.row_sums)
        return (float(low), float(high))

    def top(self, name: str, k: int = 5) -> list[tuple[Key, tuple[int, ...], float]]:
        """The ``k`` entries of largest modulus: (input name or position, index, value)."""
        _checks.known_name(_CALLER, name, self.grads)
        vector = to_vector([g.double() for g in self.by_input[name].values()])
        order = vector.abs().argsort(descending=True, stable=True)[: max(k, 0)].tolist()
        found = []
        for position in order:
            key, index = self._place(name, position)
            found.append((key, index, float(vector[position])))
        return found

    def _place(self, name: str, position: int) -> tuple[Key, tuple[int, ...]]:
        for key, gradient in self.by_input[name].items():
            if position < gradient.numel():
                index = np.unravel_index(position, tuple(gradient.shape))
                return key, tuple(int(i) for i in index)
            position -= gradient.numel()
        raise AssertionError("a position outside of all inputs")

    def __str__(self) -> str:
        return draw.to_text(self.page())

    def page(self) -> draw.Page:
        low, high = self.row_sum_range
        span = f"[{number(low)}, {number(high)}]"
        sentences = [
            f"Row sums of J lie in {span} ({self.way}). A total is v . (J 1): with v >= 0 adding "
            f"up to 1 it is an average of row sums and lies in that range, whatever the weights."
        ]
        blocks: list[draw.Block] = [self._totals_table(), *map(draw.Sentence, sentences)]
        if len(self.grads) > 1:
            blocks.append(self._cosine_table())
        blocks.extend(draw.Sentence(note) for note in self.notes)
        return draw.Page("Sensitivity to each weighing of the outputs", tuple(blocks))

    def _totals_table(self) -> draw.Table:
        low, high = self.row_sum_range
        slack = 8 * self.rounding * max(abs(low), abs(high))
        rows = []
        for name, value in self.totals.items():
            weight, positive = self.weights[name]
            averages = positive and abs(weight - 1) <= 8 * self.rounding
            inside = low - slack <= value <= high + slack
            within = ("yes" if inside else "NO") if averages else "not an average"
            top = self.top(name, 1)
            where = ""
            if top:
                key, index, entry = top[0]
                label = key if isinstance(key, str) else f"input {key}"
                where = f"{label}[{', '.join(map(str, index))}] = {number(entry)}"
            shares = ", ".join(f"{k}: {percent(s)}" for k, s in self.shares[name].items())
            rows.append((name, number(weight), f"{value:.6g}", within, where, shares))
        columns = ("cotangent", "sum of v", "total", "within row sums", "largest entry", "shares")
        return draw.Table("", columns, tuple(rows))

    def _cosine_table(self) -> draw.Table:
        names = tuple(self.grads)
        rows = [(a, *(number(self.cosines[a][b]) for b in names)) for a in names]
        return draw.Table("Cosine between gradients", ("", *names), tuple(rows))

    def plot(self) -> Figure:
        """One heatmap per cotangent and input, on one color scale: a matplotlib figure."""
        from .draw.figures import heatmaps_figure

        panels = [
            heatmap(f"{name}: {key if isinstance(key, str) else f'input {key}'}", gradient)
            for name, found in self.by_input.items()
            for key, gradient in found.items()
        ]
        return heatmaps_figure(panels, title="v . J for each v", shared=True)


def sensitivity(
    outputs: Tree,
    inputs: Tree,
    cotangents: Mapping[str, Tree],
    *,
    chunk_size: int | None = None,
) -> Sensitivity:
    """Weigh the outputs in several named ways and compare what the inputs receive.

    All cotangents go through the graph in one batched backward where torch can batch it. Nothing
    is written to any ``.grad``, and the graph is kept.

    Args:
        outputs: a real tensor with a graph, or a pytree of them.
        inputs: a tensor, a sequence or a mapping of tensors behind the outputs, or a module.
        cotangents: name to cotangent, each with the structure and shapes of ``outputs``.
        chunk_size: how many products run at once; None fits them into a budget of memory.

    Returns:
        A `Sensitivity`.

    Raises:
        ArgumentError: no cotangents; complex tensors; inputs that require no gradient.
        CotangentError, GraphError, TreeError, UnsupportedError: as in ``pb.record``.

    Example:
        >>> import torch, pullback as pb
        >>> inp = torch.eye(4, 5, requires_grad=True)
        >>> out = (inp + 10).pow(3).t()
        >>> first = pb.cotangents.normalized(pb.cotangents.rows(out, {0: 1.0}))
        >>> s = pb.sensitivity(out, inp, {"first row": first})
        >>> s.totals["first row"], s.row_sum_range
        (315.75, (300.0, 363.0))

    Source: J 1 is a Jacobian-vector product, computed by two vector-Jacobian products (J. Townsend,
    "A new trick for calculating Jacobian vector products", 2017).
    """
    names = CallerNames(_CALLER)
    out = output_leaves(_CALLER, outputs, names)
    wanted = named_inputs(_CALLER, inputs, names)
    given = _named_cotangents(out, cotangents)
    _checks.real_only(_CALLER, [*out.tensors, *wanted.values()])
    _checks.chunk_size(_CALLER, chunk_size)
    graph = walk(out.tensors)
    unreached = [t.label for t in find_targets(_CALLER, graph, inputs, names).items if not t.port]
    _checks.some_reached(_CALLER, out.names, unreached, len(wanted))
    job = Weighing(out, list(wanted.values()), chunk_size)
    with _torch.untouched(graph.children_of) as watched:
        if watched.see_each_pass(job.inputs):
            job = job._replace(order=("loop",))
        probe = _random_cotangents(out)
        gradients_of, engine, reasons = products_of(job, [*given.values(), probe])
        sums, way, doubts = row_sums_of(job, [*given.values(), probe], gradients_of)
    by_input = {
        name: dict(zip(wanted, found, strict=True))
        for name, found in zip(given, gradients_of, strict=False)
    }
    left = (f"{label} is not reached from the outputs: its gradients are 0." for label in unreached)
    return Sensitivity(
        grads={name: _laid_out(inputs, found) for name, found in by_input.items()},
        totals={name: total(list(found.values())) for name, found in by_input.items()},
        row_sums=sums,
        cosines=_cosines(by_input),
        shares={name: _shares(found) for name, found in by_input.items()},
        weights={name: _weight(values) for name, values in given.items()},
        by_input=by_input,
        engine=engine,
        way=way,
        notes=(*left, *reasons, *doubts),
        rounding=rounding_of([*out.tensors, *wanted.values()]),
    )


def _random_cotangents(out: Leaves) -> tuple[Tensor, ...]:
    """A weighing of every entry, against which the row sums are checked as well."""
    generator = torch.Generator("cpu").manual_seed(0)
    return tuple(
        (torch.rand(t.shape, generator=generator, device="cpu") + 0.5).to(t.device, t.dtype)
        for t in out.tensors
    )


def _named_cotangents(out: Leaves, cotangents: Mapping[str, Tree]) -> dict[str, tuple[Tensor, ...]]:
    _checks.named_cotangents(_CALLER, cotangents)
    found = {}
    for name, tree in cotangents.items():
        argument = f"cotangents[{name!r}]"
        missing = _checks.missing_cotangents(out, tree)
        if missing:
            _checks.named_cotangent_missing(_CALLER, argument, out, missing[0])
        values = _checks.cotangents_for(_CALLER, out, tree, argument=argument)
        found[name] = tuple(v.detach() for v in values)
    return found


def _laid_out(inputs: Tree, found: dict[Key, Tensor]) -> Any:
    if isinstance(inputs, nn.Module):
        return dict(found)
    _, structure = flatten(inputs)
    rebuilt = structure.rebuild(list(found.values()))
    return tuple(rebuilt) if isinstance(rebuilt, list) else rebuilt


def _weight(values: tuple[Tensor, ...]) -> tuple[float, bool]:
    """The sum of all weights, and whether none is negative."""
    return (
        sum(float(v.double().sum()) for v in values),
        all(bool((v >= 0).all()) for v in values),
    )


def _shares(found: dict[Key, Tensor]) -> dict[Key, float]:
    sizes = {key: float(gradient.double().abs().sum()) for key, gradient in found.items()}
    whole = sum(sizes.values())
    return {key: size / whole if whole else 0.0 for key, size in sizes.items()}


def _cosines(by_input: dict[str, dict[Key, Tensor]]) -> dict[str, dict[str, float]]:
    vectors = {
        name: to_vector([g.double() for g in found.values()]) for name, found in by_input.items()
    }
    return {
        a: {b: float(left @ right / (left.norm() * right.norm())) for b, right in vectors.items()}
        for a, left in vectors.items()
    }
