"""Dense Jacobians with respect to tensors that all samples share, a block for each tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .._errors import PullbackError
from .captured import Captured
from .factored import Factored
from .pattern import index_dtype
from .plan import Plan
from .products import Replay
from .trial import same, weights

# Of fewer entries, one straight line of calls is as fast.
_FROM = 2**17
# So full a pattern is picked out of the whole matrix.
_FULL = 0.5


class Blockwise:
    """Replays a captured graph with as many products as one sample has outputs."""

    def __init__(self, captured: Captured, factored: Factored, plan: Plan) -> None:
        self._captured, self._factored, self._plan = captured, factored, plan
        self._rows = torch.from_numpy(factored.samples.rows.reshape(-1).copy())
        self._in_order = factored.samples.in_order
        self._tried = False

    @classmethod
    def of(cls, caller: str, captured: Captured, plan: Plan) -> Blockwise | None:
        """None where the structure is not there, or not worth it."""
        graph, pattern = captured.graph, plan.pattern
        metas = [*graph.primals, *captured.outputs]
        entries = pattern.shape[0] * pattern.shape[1]
        if plan.kind != "jacobian" or pattern.nnz < _FULL * entries:
            return None
        odd = len({m.dtype for m in metas}) > 1 or captured.in_where_form or not captured.batches
        if odd or entries < _FROM:
            return None
        try:
            factored = Factored.of(caller, graph, captured.handed)
        except PullbackError:  # a rule is stricter than the trials of the replay
            return None
        if factored is None or 2 * factored.products > plan.num_products:
            return None
        return cls(captured, factored, plan)

    def matrices(
        self, tensors: Sequence[Tensor], chunk_size: int | None
    ) -> tuple[list[Tensor], list[Tensor]] | None:
        """The columns of each primal, (m, size) each, and the tensors of aux. None where they are
        not those of the graph: that is tried once."""
        with torch.no_grad():
            handed, values = self._captured.run_forward(tensors)
            blocks = self._factored.blocks(handed, chunk_size)
            found = [self._placed(block.rows()) for block in blocks]
            if not self._tried and not self._agree(tensors, found):
                return None
        self._tried = True
        return found, values[len(self._captured.outputs) :]

    def values(self, matrices: Sequence[Tensor]) -> Tensor:
        """Those of the plan's pattern, out of the columns of each primal."""
        whole = torch.cat(list(matrices), dim=1).reshape(-1)
        pattern = self._plan.pattern
        if pattern.is_full:
            return whole

        def places() -> npt.NDArray[Any]:
            m, n = pattern.shape
            kind = index_dtype(m * n)
            found = np.repeat(np.arange(m, dtype=kind) * kind(n), np.diff(pattern.indptr))
            found += pattern.indices.astype(kind)
            return found

        return whole.index_select(0, self._plan.kept("whole", whole.device, places))

    def _placed(self, rows: Tensor) -> Tensor:
        flat = rows.reshape(self._rows.numel(), -1)
        if self._in_order:
            return flat
        placed = torch.empty_like(flat)
        placed[self._rows.to(flat.device)] = flat
        return placed

    def _agree(self, tensors: Sequence[Tensor], found: Sequence[Tensor]) -> bool:
        start = len(self._captured.owned)
        primals = tensors[start : start + len(found)]
        source = Replay(self._captured, tensors, primals)
        v = torch.cat([w.reshape(-1) for w in weights(source.outputs)])
        truth = source.rev(v[None])[0].split([m.shape[1] for m in found])
        loose = self._captured.graph.rounding
        return all(same(v @ m, t, loose) for m, t in zip(found, truth, strict=True))
