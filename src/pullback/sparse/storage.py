"""Plans on disk: NumPy arrays and one JSON text in a zip archive; nothing in it is executed."""

from __future__ import annotations

import errno
import hashlib
import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .. import _checks
from .._errors import RecordFormatError
from .coloring import Coloring
from .coloring.recover import sources
from .coloring.substitution import substitution
from .leaf import Leaf
from .pattern import SparsityPattern

if TYPE_CHECKING:
    from .plan import Plan

FORMAT = 3
_DAMAGE = (
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    AttributeError,
    OverflowError,
    EOFError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    RuntimeError,
)
_CALLER = "Plan.load"


def save(plan: Plan, path: str | Path) -> None:
    pattern, coloring = plan.pattern, plan.colored
    head = {
        "format": FORMAT,
        "torch": plan.torch_version,
        "shape": pattern.shape,
        "mode": plan.mode,
        "reason": plan.reason,
        "notes": plan.notes,
        "inputs": [_written(leaf) for leaf in plan.inputs],
        "outputs": [_written(leaf) for leaf in plan.outputs],
        "argnums": plan.argnums,
        "chunk_size": plan.chunk_size,
        "bytes_per_product": plan.bytes_per_product,
        "key": plan.key,
        "facts": dict(plan.facts),
        "user_pattern": plan.user_pattern,
        "of_one_point": plan.of_one_point,
        "lifted_products": plan.lifted_products,
        "no_forward": plan.no_forward,
        "kind": plan.kind,
        "wrt": plan.wrt,
        "coloring": None if coloring is None else [
            coloring.kind, coloring.order, coloring.num_colors
        ],
        "full": pattern.is_full,
    }  # fmt: skip
    arrays = {} if coloring is None else {"colors": coloring.colors.numpy()}
    if not pattern.is_full:
        arrays |= {"indptr": pattern.indptr, "indices": pattern.indices}
    head["arrays"] = _digest(arrays)
    text = np.frombuffer(json.dumps(head).encode(), dtype=np.uint8)
    with Path(path).open("wb") as file:
        np.savez(file, head=text, **arrays)  # type: ignore[arg-type]


def load(path: str | Path) -> Plan:
    with Path(path).open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise _checks.not_a_plan_file(_CALLER, str(path), "it is no zip archive of arrays")
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as archive:
                head = json.loads(archive["head"].tobytes().decode())
                arrays = {name: archive[name] for name in archive.files if name != "head"}
        except _DAMAGE as error:
            raise _checks.not_a_plan_file(_CALLER, str(path), _told(error)) from None
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise  # the disk's, not the file's
            told = "its table points to before its own start"
            raise _checks.not_a_plan_file(_CALLER, str(path), told) from None
    if not isinstance(head, dict):
        raise _checks.not_a_plan_file(_CALLER, str(path), "its head is no table of names")
    if head.get("format") != FORMAT:
        raise _checks.plan_format(_CALLER, str(path), head.get("format"), FORMAT)
    try:
        made_with = str(head["torch"])
        if made_with.partition("+")[0] != torch.__version__.partition("+")[0]:
            raise _checks.plan_torch(_CALLER, str(path), made_with, torch.__version__)
        _require(head["arrays"] == _digest(arrays), "its arrays are not those that were saved")
        return _read(head, arrays)
    except RecordFormatError:
        raise
    except _DAMAGE as error:
        raise _checks.not_a_plan_file(_CALLER, str(path), _told(error)) from None


def _digest(arrays: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _told(error: Exception) -> str:
    """The first line; never numpy's, which recommends to load pickles."""
    text = _checks.first_line(error)
    return "it holds pickled objects, which are never loaded" if "pickle" in text else text


def _read(head: dict[str, Any], arrays: dict[str, Any]) -> Plan:
    from .plan import Plan

    shape = (int(head["shape"][0]), int(head["shape"][1]))
    pattern = _pattern(shape, head, arrays)
    products = head["lifted_products"]
    _require(products is None or products >= 0, "its number of products is no number")
    coloring = None if head["coloring"] is None else _coloring(shape, head["coloring"], arrays)
    _require((coloring is None) == (products is not None), "a lifted plan has no coloring")
    inputs = tuple(_leaf(entry) for entry in head["inputs"])
    outputs = tuple(_leaf(entry) for entry in head["outputs"])
    sizes = (sum(leaf.numel for leaf in outputs), sum(leaf.numel for leaf in inputs))
    _require(sizes == shape, "its inputs and outputs are not of the shape of its matrix")
    kinds = {"rev": ("rows", "star", "acyclic"), "fwd": ("columns",), "mixed": ("bidirectional",)}
    allowed = kinds.get(head["mode"], ("rows", "columns") if head["mode"] == "dense" else ())
    fits = bool(allowed) if coloring is None else coloring.kind in allowed
    _require(fits, f"mode {head['mode']!r} does not go with its coloring")
    _require(head["chunk_size"] >= 1, "its chunk size is no positive number")
    plan = Plan(
        pattern=pattern,
        colored=coloring,
        mode=head["mode"],
        reason=head["reason"],
        notes=tuple(head["notes"]),
        inputs=inputs,
        outputs=outputs,
        argnums=tuple(head["argnums"]),
        chunk_size=int(head["chunk_size"]),
        bytes_per_product=int(head["bytes_per_product"]),
        key=head["key"],
        facts=dict(head["facts"]),
        user_pattern=bool(head["user_pattern"]),
        of_one_point=bool(head["of_one_point"]),
        lifted_products=None if products is None else int(products),
        no_forward=str(head["no_forward"]),
        kind=_kind(head["kind"]),
        wrt=tuple(map(str, head["wrt"])),
        torch_version=str(head["torch"]),
    )
    if coloring is not None and not plan.assembly.in_order:
        # Either refuses a coloring from which not every entry can be had.
        (substitution if coloring.kind == "acyclic" else sources)(pattern, coloring)
    return plan


def _coloring(shape: tuple[int, int], head: list[Any], arrays: dict[str, Any]) -> Coloring:
    kind, order, count = str(head[0]), str(head[1]), int(head[2])
    colors = np.asarray(arrays["colors"])
    lengths = dict.fromkeys(("rows", "star", "acyclic"), shape[0])
    lengths |= {"columns": shape[1], "bidirectional": sum(shape)}
    _require(kind in lengths, f"no coloring is called {kind!r}")
    _require(colors.shape == (lengths[kind],), "the coloring has another length")
    _require(colors.dtype == np.int64, "the colors are no int64")
    _require(bool(((colors >= -1) & (colors < count)).all()), "a color is out of range")
    if kind == "bidirectional":
        by_columns, rows = colors[shape[0] :], int(colors[: shape[0]].max(initial=-1)) + 1
        _require(
            bool(((by_columns < 0) | (by_columns >= rows)).all()), "a column has a row's color"
        )
    return Coloring(kind, order, shape, torch.from_numpy(colors.copy()), count)


def _pattern(
    shape: tuple[int, int], head: dict[str, Any], arrays: dict[str, Any]
) -> SparsityPattern:
    if head["full"]:
        return SparsityPattern.full(shape)
    indptr, indices = arrays["indptr"], arrays["indices"]
    _require(indptr.shape == (shape[0] + 1,) and indices.ndim == 1, "the pattern is incomplete")
    _require(indptr.dtype.kind == "i" and indices.dtype.kind == "i", "the pattern is no integers")
    _require(bool((np.diff(indptr) >= 0).all()) and indptr[0] == 0, "the rows are out of order")
    _require(indptr[-1] == indices.size, "the pattern is incomplete")
    inside = indices.size == 0 or (indices.min() >= 0 and indices.max() < shape[1])
    _require(bool(inside), "a column is out of range")
    rising = np.diff(indices) > 0
    new_row = np.zeros(max(indices.size - 1, 0), dtype=bool)
    starts = indptr[1:-1]
    new_row[starts[(starts > 0) & (starts < indices.size)] - 1] = True
    _require(bool((rising | new_row).all()), "the columns of a row are out of order")
    return SparsityPattern(shape, indptr, indices)


def _kind(given: Any) -> str:
    _require(given in ("jacobian", "hessian"), f"it is a plan of no {given!r}")
    return str(given)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def _written(leaf: Leaf) -> list[Any]:
    return [leaf.name, list(leaf.shape), str(leaf.dtype).removeprefix("torch.")]


def _leaf(entry: list[Any]) -> Leaf:
    name, shape, dtype = entry
    found = getattr(torch, dtype)
    _require(isinstance(found, torch.dtype), f"{dtype} is no dtype")
    return Leaf(str(name), tuple(int(s) for s in shape), found)
