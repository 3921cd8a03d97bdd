"""A question that a page asks of a live record: another cotangent. Its answer is JSON data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _checks
from .document import answer_of
from .live import Live
from .quantities import size_of
from .record import BackwardRecord, source_of


def answered(record: BackwardRecord, question: object) -> dict[str, Any]:
    """The quantities of the pass for ``{"v": [entries of each output, ...]}``.

    Raises:
        ArgumentError: the question is not of this form, or does not fit the outputs.
        GraphError: the graph behind the record is gone.
    """
    source = source_of(record)
    if not isinstance(source, Live):
        raise _checks.graph_is_gone("explore", "the record was read from a file")
    sizes = [size_of(output.cotangent) for output in record.outputs]
    parts = _checks.page_question("explore", question, sizes)
    return answer_of(source.answer(record, _tensors(record, parts)))


def _tensors(record: BackwardRecord, parts: Sequence[Sequence[float]]) -> list[Tensor]:
    found = []
    for output, part in zip(record.outputs, parts, strict=True):
        dtype = getattr(torch, output.dtype)
        entries = torch.tensor(part, dtype=torch.float64)
        device = output.cotangent.device
        found.append(entries.to(dtype).reshape(output.shape).to(device))
    return found
