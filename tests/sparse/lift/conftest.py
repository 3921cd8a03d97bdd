from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def in_double_precision() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.default_generator.manual_seed(0)  # not of absent devices, for which torch notes stacks
    yield
    torch.set_default_dtype(before)
