"""Operators that hand elements on as they are: run once on the numbers of the elements.

The result of the operator on element numbers says which element stands where; 0 stands for a
place that the operator fills with nothing. Whether the operator really moves and does nothing
else is checked each time: its result lies in the memory of its argument, or it moves random codes
to where it moved the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx

from ..dependence import Dependence, common_table, everything, union
from ..graph import Meta, Places
from ..pattern import INT32_MAX
from .base import Declined, Result, Step, nodes_in, rule

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
    deps = _movable(step)
    if len(deps) == 1 and step.node not in step.graph.moves:
        found = _viewed(step, deps[0])
        if found is not None:
            return found
    where = places(step)
    ids, table, widened = common_table(deps)
    kind = np.result_type(*ids)
    flat = np.concatenate([np.zeros(1, dtype=kind), *(i.reshape(-1) for i in ids)], dtype=kind)
    every = torch.from_numpy(flat)
    return _each(
        step,
        [Dependence(w.shape, _picked(every, w).numpy(), table, widened) for w in where],
    )


def _picked(every: Tensor, where: Places) -> Tensor:
    return every.index_select(0, torch.from_numpy(where.reshape(-1)))


def places(step: Step) -> list[Places]:
    """For every place of each result the number, from 1, of the element that stands there, or 0.

    The elements of all linear arguments are numbered one after the other, in the order of
    ``step.linear_inputs``. Kept in ``graph.moves``, for whoever asks again.
    """
    if step.get("dtype") is not None:
        raise Declined("it reads the bits of numbers")
    fixed = _other_tensors(step)  # notes what is relied on, at every call
    kept = step.graph.moves.get(step.node)
    if kept is None:
        kept = step.graph.moves[step.node] = _checked(step, fixed)
    return kept


def _movable(step: Step) -> list[Dependence]:
    if step.get("dtype") is not None:
        raise Declined("it reads the bits of numbers")
    deps = [step.dep_of(node) for node in step.linear_inputs]
    return [dep for dep in deps if dep is not None]


def _each(step: Step, results: list[Dependence]) -> Result:
    alone = isinstance(step.graph.metas[step.node], Meta)
    return results[0] if alone else list(results)


def _viewed(step: Step, dep: Dependence) -> Result | None:
    """What a view of the one linear argument depends on; None where the result is no view of it.

    A result in the argument's own memory holds nothing but elements of the argument.
    """
    if not _returns_views(step.node.target) or step.node.all_input_nodes != step.linear_inputs:
        return None
    (given,), results = _run(step, {}, [torch.from_numpy(dep.ids)])
    memory = given.untyped_storage().data_ptr()
    if any(r.untyped_storage().data_ptr() != memory or r.dtype != given.dtype for r in results):
        return None
    return _each(step, [dep.with_ids(r.numpy()) for r in results])


def _returns_views(target: Any) -> bool:
    schema = getattr(target, "_schema", None)
    returns = schema.returns if schema is not None else ()
    return bool(returns) and all(r.alias_info is not None for r in returns)


def _checked(step: Step, fixed: dict[fx.Node, Tensor]) -> list[Places]:
    counts = [step.meta_of(node).numel for node in step.linear_inputs]
    total = sum(counts)
    kind = torch.int32 if total <= INT32_MAX else torch.int64
    codes = torch.from_numpy(_codes(total)).to(kind)
    _, found = _run(step, fixed, torch.arange(1, total + 1, dtype=kind).split(counts))
    _, coded = _run(step, fixed, codes.split(counts))
    lookup = torch.cat([codes.new_zeros(1), codes])
    where = [f.to(kind).numpy() for f in found]
    for numbers, expected in zip(where, coded, strict=True):
        within = not numbers.size or (numbers.min() >= 0 and numbers.max() <= total)
        if not within or not torch.equal(
            _picked(lookup, numbers).reshape(numbers.shape).to(expected.dtype), expected
        ):
            raise Declined(f"{step.name} does more than move elements")
    return where


def _codes(total: int) -> npt.NDArray[np.int32]:
    """Random numbers, such that sums and multiples of some are hardly ever another one."""
    limit = np.iinfo(np.int32)
    return np.random.default_rng(0).integers(limit.min, limit.max, size=total, dtype=np.int32)


def _other_tensors(step: Step) -> dict[fx.Node, Tensor]:
    """What stands in for the arguments that do not move: the guides themselves, zeros for data."""
    guides = {n for name in _GUIDES for n in nodes_in(step.get(name))}
    fixed: dict[fx.Node, Tensor] = {}
    for node in step.node.all_input_nodes:
        if node in step.graph.linear:
            continue
        if node not in guides:
            fixed[node] = torch.zeros(step.meta_of(node).shape, dtype=torch.int32)
            continue
        found = step.data(node)
        if found is None:
            raise Declined("an index depends on an argument")
        fixed[node] = found.cpu()
    return fixed


def _run(
    step: Step, fixed: dict[fx.Node, Tensor], numbered: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """The operator on numbered elements, in the strides of the tensors themselves.

    Returns the arguments that it was given and its results.
    """
    given: dict[fx.Node, Tensor] = {}
    for node, ids in zip(step.linear_inputs, numbered, strict=True):
        meta = step.meta_of(node)
        stand_in = ids.reshape(meta.shape)
        if is_dense(meta) and stand_in.stride() != meta.stride:
            laid_out = torch.empty_strided(meta.shape, meta.stride, dtype=ids.dtype)
            stand_in = laid_out.copy_(stand_in)
        given[node] = stand_in
    for kind in (None, torch.int64, torch.float64):
        found = _attempt(step, fixed | given, kind)
        if found is not None:
            return list(given.values()), found
    raise Declined("it does not run on numbers of elements")


def _attempt(
    step: Step, tensors: dict[fx.Node, Tensor], kind: torch.dtype | None
) -> list[Tensor] | None:
    """The results on numbers of this kind; None where the operator takes no such numbers."""

    def stand_in(node: fx.Node) -> Any:
        tensor = tensors[node]
        return tensor if kind is None or tensor.dtype is not torch.int32 else tensor.to(kind)

    args, kwargs = fx.node.map_arg((step.node.args, dict(step.node.kwargs)), stand_in)
    if "device" in kwargs:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    target: Any = step.node.target
    with torch.no_grad():
        try:
            result = target(*args, **kwargs)
        except (NotImplementedError, RuntimeError) as error:
            if "not implemented for '" in str(error):
                return None
            raise Declined("it does not run on numbers of elements") from None
    return [result] if isinstance(result, Tensor) else list(result)


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
