"""Saved records: exact, and safe to read whatever the text."""

from __future__ import annotations

import copy
import json
import math
import random
import re
from functools import cache
from typing import Any

import pytest
import torch

import pullback as pb


@cache
def saved() -> str:
    x = torch.tensor([1.0, 2.0, float("inf")], requires_grad=True)
    w = torch.randn(2, 3, dtype=torch.bfloat16, requires_grad=True)
    with pb.trace():
        out = (x * w.float()).sin()
    return pb.record(out, torch.ones(2, 3), inputs={"x": x, "w": w}).to_json()


def refused(text: str, message: str) -> None:
    with pytest.raises(pb.RecordFormatError, match=f"^{re.escape(message)}$"):
        pb.BackwardRecord.from_json(text)


def test_the_text_is_strict_json() -> None:
    def no_constants(name: str) -> None:
        raise AssertionError(name)

    json.loads(saved(), parse_constant=no_constants)


def test_numbers_and_bits_come_back() -> None:
    record = pb.BackwardRecord.from_json(saved())
    assert record.deposits["w"].dtype == torch.bfloat16
    assert math.isnan(record.nodes[0].upstream[0].stats.norm) is False  # type: ignore[union-attr]
    assert record.to_json() == pb.BackwardRecord.from_json(record.to_json()).to_json()


def test_refusals() -> None:
    refused(
        "{",
        "BackwardRecord.from_json: the text is not JSON (Expecting property name enclosed in double "
        "quotes: line 1 column 2 (char 1)). Pass the string that record.to_json() returned.",
    )
    refused(
        "[1]",
        "BackwardRecord.from_json: the text is JSON, but not a record; records are written by "
        "record.to_json().",
    )
    refused(
        '{"format": 99, "record": {}}',
        "BackwardRecord.from_json: the record has format 99; this version of pullback reads format "
        "2. Record the pass again.",
    )
    body = json.loads(saved())
    body["record"]["accumulate"] = 0
    refused(json.dumps(body), "BackwardRecord.from_json: record.accumulate must be bool; found 0.")


def altered(change: Any) -> str:
    body = json.loads(saved())
    change(body["record"])
    return json.dumps(body)


def set_at(*path: Any, value: Any) -> Any:
    def change(record: Any) -> None:
        for key in path[:-1]:
            record = record[key]
        record[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        set_at("outputs", value=[]),
        set_at("leaves", value=[]),
        set_at("seeds", 0, "position", value=5),
        set_at("seeds", 0, "target", value=-1),
        set_at("nodes", 0, "index", value=3),
        set_at("nodes", 0, "leaf", value="nobody"),
        set_at("nodes", 0, "edges", 0, "slot", value=99),
        set_at("nodes", 0, "edges", 0, "source", value=1),
        set_at("nodes", 0, "edges", 0, "target", value=0),
        set_at("outputs", 0, "node", value=77),
        set_at("tolerance", value=10**400),
        set_at("deposits", 0, 1, "shape", value=[10**30, 0]),
        set_at("deposits", 0, 1, "data", value="!!!"),
        set_at("deposits", 0, 1, "dtype", value="nn"),
        set_at("deposits", 0, 1, value={"layout": "sparse_coo", "shape": [2]}),
    ],
)
def test_altered_records_are_refused(change: Any) -> None:
    with pytest.raises(pb.RecordFormatError, match=r"^BackwardRecord\.from_json: "):
        pb.BackwardRecord.from_json(altered(change))


def mutate(value: Any, rng: random.Random) -> Any:
    """Replace one place of a JSON value by something else."""
    if isinstance(value, (dict, list)) and value and rng.random() < 0.9:
        value = copy.copy(value)
        key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
        value[key] = mutate(value[key], rng)
        return value
    return rng.choice([None, -1, 10**12, 1.5, "x", [], {}, True, "nan", [[]]])


@pytest.mark.parametrize("seed", range(300))
def test_no_text_does_worse_than_a_refusal(seed: int) -> None:
    """Either a refusal, or a record that prints and saves itself."""
    rng = random.Random(seed)
    text = json.dumps(mutate(json.loads(saved()), rng))
    if seed % 5 == 0:
        text = text[: rng.randrange(len(text))]
    try:
        record = pb.BackwardRecord.from_json(text)
    except pb.RecordFormatError:
        return
    assert str(record)
    assert pb.BackwardRecord.from_json(record.to_json()).to_json() == record.to_json()
