"""The matrix of a call that is linear in some operands and whose others are settled."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from ..captured import without_autocast
from ..coloring import color
from ..coloring.recover import sources
from ..dependence import Dependence, identity
from ..graph import packet_name
from ..pattern import SparsityPattern
from ..rules.base import RULES, Declined, Step
from ..trial import rounding_of, same
from .linear import lanes_of, reals
from .settled import Settled, stand_in

# Operands of which a call reads the shape alone, in the form in which autograd makes it.
_SHAPE_ONLY = {
    "convolution_backward": "input",
    "avg_pool2d_backward": "self",
    "avg_pool3d_backward": "self",
    "_adaptive_avg_pool2d_backward": "self",
    "_adaptive_avg_pool3d_backward": "self",
}
# Larger matrices are left in the differentiated part: storing them would cost more than it saves.
ENTRIES_AT_MOST = 2**23
SEEDS_AT_MOST = 128
_WORK_AT_MOST = 2**28


def matrix_of(step: Step, settled: Settled) -> Any:
    """A SciPy CSR array, a row per real element of the (first) result and a column per real
    element of the linear operands, one after the other; None where the call is left alone."""
    if packet_name(step.node) not in RULES:
        return None
    fixed = _operands(step, settled)
    if fixed is None:
        return None
    call = _Call(step, fixed)
    try:
        call(call.random())
    except RuntimeError:  # it does not run in double precision, or not on the CPU
        return None
    places = _places(step)
    if places is None or (places.is_full and places.nnz > SEEDS_AT_MOST**2):
        return _sum_of_all(call, step)
    matrix = _of_one_weight(call, places)
    if matrix is None and places.nnz <= ENTRIES_AT_MOST and not call.is_complex:
        matrix = _by_seeds(call, places)
    return matrix if matrix is not None and call.agrees(matrix) else None


def _operands(step: Step, settled: Settled) -> dict[fx.Node, Tensor] | None:
    """The values of the operands that are not linear; None if one is not settled."""
    name = packet_name(step.node)
    free = step.get(_SHAPE_ONLY.get(name, ""))
    if sum(value is free for value in step.node.args) > 1:
        free = None  # its values count in the other place
    if name == "convolution_backward" and list(step["output_mask"]) != [True, False, False]:
        return None
    found: dict[fx.Node, Tensor] = {}
    for node in step.node.all_input_nodes:
        if node in step.graph.linear:
            continue
        value = stand_in(step.graph, node) if node is free else settled.value(node)
        if value is None:
            return None
        found[node] = value
    return found


class _Call:
    """The call as a function of its linear operands' real elements."""

    def __init__(self, step: Step, fixed: dict[fx.Node, Tensor]) -> None:
        self._step, self._fixed = step, fixed
        self.inputs = step.linear_inputs
        self.metas = [step.meta_of(n) for n in self.inputs]
        self.out = step.out
        self.is_complex = any(lanes_of(m) == 2 for m in (*self.metas, self.out))
        self.width = sum(map(reals, self.metas))
        self.loose = 1e-9 if step.get("dtype") is None else rounding_of(self.out.dtype)

    def __call__(self, flat: Tensor) -> Tensor:
        operands: dict[fx.Node, Tensor] = {}
        pieces = flat.split([reals(m) for m in self.metas])
        for node, meta, piece in zip(self.inputs, self.metas, pieces, strict=True):
            if meta.dtype.is_complex:
                operands[node] = torch.view_as_complex(piece.reshape(*meta.shape, 2))
            else:
                operands[node] = piece.reshape(meta.shape)

        def operand(value: Any) -> Any:
            if not isinstance(value, fx.Node):
                return value
            return operands[value] if value in operands else _precise(self._fixed[value])

        args, kwargs = pytree.tree_map(
            operand, (self._step.node.args, dict(self._step.node.kwargs))
        )
        target: Any = self._step.node.target
        with torch.no_grad(), without_autocast():
            result = target(*args, **kwargs)
        result = result if isinstance(result, Tensor) else result[0]
        if result.is_complex():
            result = torch.view_as_real(result.resolve_conj())
        return result.reshape(-1).double()  # type: ignore[no-any-return]

    def random(self) -> Tensor:
        # Far from each other and from zero: a wrong weight cannot hide.
        noise = np.random.default_rng(0).uniform(0.5, 1.5, self.width)
        return torch.from_numpy(noise)

    def agrees(self, matrix: Any) -> bool:
        for probe in (self.random(), self.random().flip(0) - 1.1):
            if not same(torch.from_numpy(matrix @ probe.numpy()), self(probe), self.loose):
                return False
        return not bool(self(torch.zeros(self.width, dtype=torch.float64)).any())


def _precise(tensor: Tensor) -> Tensor:
    """In double precision: two weights that differ must not pass for one."""
    if tensor.is_complex():
        return tensor.to(torch.complex128)
    return tensor.to(torch.float64) if tensor.is_floating_point() else tensor


def _places(step: Step) -> SparsityPattern | None:
    """Which operand elements each result element reads, complex ones as pairs."""
    metas = [step.meta_of(n) for n in step.linear_inputs]
    parts = identity([m.shape for m in metas])
    known: dict[fx.Node, Any] = dict(zip(step.linear_inputs, parts, strict=True))
    try:
        found = RULES[packet_name(step.node)].apply(Step(step.graph, step.node, known))
    except Declined:
        return None
    first = found if isinstance(found, Dependence) else found[0]
    if first is None:
        return None
    return first.to_pattern()


def _of_one_weight(call: _Call, places: SparsityPattern) -> Any:
    """A sum, a mean, an accumulation: all weights are one number."""
    marks = places.to_scipy().astype(np.float64)
    if call.is_complex:
        if any(lanes_of(m) != lanes_of(call.out) for m in call.metas):
            return None
        marks = scipy.sparse.kron(marks, scipy.sparse.eye_array(2), format="csr")
    probe = call.random()
    mine, theirs = marks @ probe.numpy(), call(probe).numpy()
    largest = int(np.argmax(np.abs(mine))) if mine.size else 0
    if not mine.size or not mine[largest]:
        return None
    weight = theirs[largest] / mine[largest]
    if not np.isfinite(weight):
        return None
    if abs(weight - round(weight)) < call.loose:
        weight = round(weight)
    matrix = scipy.sparse.csr_array(marks * weight)
    return matrix if call.agrees(matrix) else None


def _by_seeds(call: _Call, places: SparsityPattern) -> Any:
    if not places.nnz:
        return scipy.sparse.csr_array(places.shape)
    coloring = color(places, "columns", "natural")
    count = coloring.num_colors
    if count > SEEDS_AT_MOST or count * max(call.width, places.shape[0]) > _WORK_AT_MOST:
        return None
    colors = coloring.colors
    products = np.stack([call((colors == c).double()).numpy() for c in range(count)])
    found = sources(places, coloring)
    values = products[found.product, found.position]
    return scipy.sparse.csr_array((values, places.indices, places.indptr), shape=places.shape)


def _sum_of_all(call: _Call, step: Step) -> Any:
    """The sum of a large tensor: its rule's pattern is full, and its weights are one number."""
    if packet_name(step.node) not in ("sum", "mean") or call.is_complex or call.out.numel != 1:
        return None
    ones = scipy.sparse.csr_array(np.ones((1, call.width)))
    weight = float(call(torch.ones(call.width, dtype=torch.float64))) / max(call.width, 1)
    matrix = scipy.sparse.csr_array(ones * weight)
    return matrix if call.agrees(matrix) else None
