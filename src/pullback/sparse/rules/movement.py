"""Operators that hand elements on as they are: run once on the numbers of the elements.

The result of the operator on element numbers says which element stands where; 0 stands for a
place that the operator fills with nothing. Whether the operator really moves and does nothing
else is checked each time: on ones it must give zeros and ones, and two numberings must agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from ..dependence import Dependence, common_table, everything, union
from ..graph import Meta
from .base import Declined, Result, Step, rule

_ON_SELF = """
    view _unsafe_view reshape view_copy _reshape_alias _reshape_copy permute permute_copy t
    t_copy transpose transpose_copy numpy_T adjoint mT mH swapaxes swapdims movedim expand
    expand_copy slice slice_copy select select_copy squeeze squeeze_copy unsqueeze
    unsqueeze_copy unbind unbind_copy split split_copy split_with_sizes split_with_sizes_copy
    unsafe_split unsafe_split_with_sizes chunk unsafe_chunk diagonal diagonal_copy unfold
    unfold_copy alias_copy detach_copy roll flip rot90 repeat tile tril triu diag_embed
    constant_pad_nd pixel_shuffle pixel_unshuffle channel_shuffle narrow narrow_copy flatten
    unflatten ravel im2col
""".split()
_GRADIENTS_OF_VIEWS = "slice_backward select_backward diagonal_backward".split()
_INTO = {
    "slice_scatter": "self src",
    "select_scatter": "self src",
    "diagonal_scatter": "self src",
    "cat": "tensors",
    "stack": "tensors",
}
_PICKS = "index _unsafe_index index_select gather take".split()
# Where every result element is one element of the linear arguments, or nothing.
ON_ELEMENTS = frozenset((*_ON_SELF, *_GRADIENTS_OF_VIEWS, *_INTO, *_PICKS))
# Arguments whose data says where elements go.
_GUIDES = ("index", "indices", "mask")


def moved(step: Step) -> Result:
    """The dependence of a result that holds elements of the linear arguments, and zeros."""
    deps = [step.dep_of(node) for node in step.linear_inputs]
    where = placed(step)
    ids, table, widened = common_table([dep for dep in deps if dep is not None])
    every = np.concatenate([np.zeros(1, dtype=ids[0].dtype), *(i.reshape(-1) for i in ids)])
    results: list[Dependence | None] = [
        Dependence(w.shape, every[w.reshape(-1)], table, widened) for w in where
    ]
    first = results[0] if isinstance(step.graph.metas[step.node], Meta) else None
    return results if first is None else first


def placed(step: Step) -> list[npt.NDArray[np.int64]]:
    """For every place of each result, the number from 1 of the element of the linear arguments
    (one argument after the other) that stands there, or 0."""
    if step.get("dtype") is not None:
        raise Declined("it reads the bits of numbers")
    offsets: dict[fx.Node, int] = {}
    total = 0
    for node in step.linear_inputs:
        offsets[node] = total
        total += step.meta_of(node).numel
    return _checked(step, offsets, _other_tensors(step), total)


def _checked(
    step: Step, offsets: dict[fx.Node, int], fixed: dict[fx.Node, Tensor], total: int
) -> list[npt.NDArray[np.int64]]:
    """For every place of the results, the number from 1 of the element that stands there, or 0."""
    where = _numbered(step, offsets, fixed, np.arange(1, total + 1))
    shuffled = np.random.default_rng(0).permutation(total) + 1
    again = _numbered(step, offsets, fixed, shuffled)
    ones = _numbered(step, offsets, fixed, np.ones(total, dtype=np.int64))
    lookup = np.concatenate([[0], shuffled])
    for first, second, one in zip(where, again, ones, strict=True):
        binary = ((one == 0) | (one == 1)).all() and (first >= 0).all() and (first <= total).all()
        if not (binary and np.array_equal(lookup[first], second)):
            raise Declined(f"{step.name} does more than move elements")
    return where


def _other_tensors(step: Step) -> dict[fx.Node, Tensor]:
    """What stands in for the arguments that do not move: the guides themselves, zeros for data."""
    guides = {n for name in _GUIDES for n in pytree.tree_leaves(step.get(name))}
    fixed: dict[fx.Node, Tensor] = {}
    for node in step.node.all_input_nodes:
        if node in step.graph.linear:
            continue
        if node not in guides:
            fixed[node] = torch.zeros(step.meta_of(node).shape, dtype=torch.int64)
            continue
        found = step.data(node)
        if found is None:
            raise Declined("an index depends on an argument")
        fixed[node] = found.cpu()
    return fixed


def _numbered(
    step: Step,
    offsets: dict[fx.Node, int],
    fixed: dict[fx.Node, Tensor],
    numbering: npt.NDArray[Any],
) -> list[npt.NDArray[np.int64]]:
    """The operator's results on numbered elements, in the strides of the tensors themselves."""

    def stand_in(value: Any) -> Any:
        if not isinstance(value, fx.Node):
            return value
        if value in fixed:
            return fixed[value]
        meta = step.meta_of(value)
        start = offsets[value]
        ids = torch.from_numpy(numbering[start : start + meta.numel].reshape(meta.shape))
        if not is_dense(meta):
            return ids
        laid_out = torch.empty_strided(meta.shape, meta.stride, dtype=torch.int64)
        return laid_out.copy_(ids)

    args, kwargs = pytree.tree_map(stand_in, (step.node.args, dict(step.node.kwargs)))
    if "device" in kwargs:
        kwargs["device"] = torch.device("cpu")
    result = _run(step.node.target, args, kwargs)
    results: Sequence[Tensor] = [result] if isinstance(result, Tensor) else list(result)
    return [r.numpy().astype(np.int64, copy=False) for r in results]


def _run(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The operator on integers, or on float64 (exact up to 2**53) where it takes no integers."""

    def as_floats(value: Any) -> Any:
        whole = isinstance(value, Tensor) and value.dtype == torch.int64
        return value.to(torch.float64) if whole else value

    with torch.no_grad():
        try:
            return target(*args, **kwargs)
        except (NotImplementedError, RuntimeError) as error:
            if "not implemented for 'Long'" not in str(error):
                raise Declined("it does not run on numbers of elements") from None
        args, kwargs = pytree.tree_map(as_floats, (args, kwargs))
        try:
            return target(*args, **kwargs)
        except RuntimeError:
            raise Declined("it does not run on numbers of elements") from None


def is_dense(meta: Meta) -> bool:
    """Whether the elements fill their stretch of memory, each place once."""
    reach = 1
    for size, stride in sorted(zip(meta.shape, meta.stride, strict=True), key=lambda p: p[1]):
        if size == 1:
            continue
        if stride != reach:
            return False
        reach *= size
    return meta.offset == 0


rule(" ".join(_ON_SELF), "self")(moved)
rule(" ".join(_GRADIENTS_OF_VIEWS), "grad_output")(moved)
for _name, _linear in _INTO.items():
    rule(_name, _linear)(moved)


@rule("as_strided as_strided_copy", "self")
def _restrided(step: Step) -> Result:
    """By numbers where the tensor fills its memory; else it may read elements of other tensors."""
    _, dep = step.only("self")
    try:
        if is_dense(step.meta("self")):
            return moved(step)
    except Declined:
        pass
    return everything(step.out.shape, dep.table.width, dep.widened)


@rule("getitem", "arg0")
def _entry(step: Step) -> Result:
    parts = step.known[step.node.args[0]]  # type: ignore[index]
    part = parts[step.node.args[1]]
    return step.nothing() if part is None else part


@rule("view_as_real view_as_real_copy", "self")
def _as_pairs(step: Step) -> Result:
    _, dep = step.only("self")
    return dep.with_ids(np.repeat(dep.grid[..., None], 2, axis=-1))


@rule("view_as_complex view_as_complex_copy", "self")
def _as_complex(step: Step) -> Result:
    _, dep = step.only("self")
    halves = [dep.with_ids(np.asarray(dep.grid[..., k])) for k in (0, 1)]
    return union(halves, step.out.shape)
