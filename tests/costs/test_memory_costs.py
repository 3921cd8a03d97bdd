"""What a process holds for a Jacobian of 10^12 places, NumPy's arrays and torch's alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.costs.footprint import N

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="only Linux lets a process reset its peak"
)


def measured(lift: str) -> dict[str, int]:
    # Arrays that are let go are to leave the process at once.
    variables = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-m", "tests.costs.footprint", lift]
    ended = subprocess.run(
        command, cwd=ROOT, env=variables, check=True, capture_output=True, text=True, timeout=300
    )
    found: dict[str, int] = json.loads(ended.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("lift", ["lifted", "plain"])
def test_a_jacobian_of_a_million_rows_and_columns_takes_what_its_entries_do(lift: str) -> None:
    found = measured(lift)
    values, vector = found["values"], 8 * N
    assert values == 5 * vector
    one_chunk = found["one product"]
    assert found["evaluating"] <= values + one_chunk + found["forward"] + 2 * vector
    assert found["kept"] <= found["indices"] + 4 * vector
    assert found["planning"] <= 11 * values
