"""The drawn tree, exactly."""

from __future__ import annotations

import torch
from torch import nn

import pullback as pb


def test_a_chain_is_flat() -> None:
    inp = torch.eye(4, 5, requires_grad=True)
    with pb.trace():
        out = (inp + 1).pow(2).t()
    record = pb.record(out, torch.ones_like(out), inputs={"inp": inp})
    line = record.nodes[0].call
    assert line is not None
    assert (
        str(record)
        == f"""\
backward of out (5, 4)
======================

node             cotangent         norm            from
out <- v         (5, 4)            4.472
TBackward0 #0    (5, 4) -> (4, 5)  4.472           test_record_text.py:{line.line}  (inp + 1).pow(2).t()
PowBackward0 #1  (4, 5)            4.472 -> 11.31  test_record_text.py:{line.line}  (inp + 1).pow(2)
AddBackward0 #2  (4, 5)            11.31           test_record_text.py:{line.line}  inp + 1
inp (leaf) #3    (4, 5)            11.31

4 nodes ran, 1 deposit (a look: no .grad was touched).
Conserved: contributions sum to the upstream of every node, to the last bit."""
    )


def test_side_branches_indent_and_joins_point() -> None:
    x = torch.tensor([2.0], requires_grad=True)
    h = x.exp()
    out = h.log() + h
    record = pb.record(out, torch.ones(1), inputs={"x": x})
    # exp(2) = 7.389; log passes 1 / 7.389 = 0.1353; the join sums 1 + 0.1353.
    assert (
        str(record)
        == """\
backward of out (1,)
====================

node                   cotangent  norm            from
out <- v               (1,)       1
AddBackward0 #0        (1,)       1
└─ -> ExpBackward0 #2  (1,)       1
LogBackward0 #1        (1,)       1 -> 0.1353
ExpBackward0 #2        (1,)       1.135 -> 8.389
x (leaf) #3            (1,)       8.389

4 nodes ran, 1 deposit (a look: no .grad was touched).
Conserved: contributions sum to the upstream of every node, to the last bit."""
    )


def test_formulas_are_quoted_on_request() -> None:
    x = torch.tensor([4.0], requires_grad=True)
    record = pb.record(x.sqrt())
    assert "grad / (2 * result.conj())" not in str(record)
    assert "    self: grad / (2 * result.conj())" in record.tree(formulas=True)


def test_long_passes_leave_out_their_middle() -> None:
    x = torch.ones(1, requires_grad=True)
    out = x
    for _ in range(30):
        out = out.neg()
    lines = pb.record(out).tree(limit=10).splitlines()
    assert sum("NegBackward0" in line for line in lines) == 9
    assert "... 21 more" in lines[10]


def test_a_fork_into_parameters_stays_readable() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    record = pb.record(model(torch.ones(1, 2)), inputs=model)
    labels = [line.split("  ")[0] for line in str(record).splitlines()[5:14]]
    assert labels == [
        "AddmmBackward0 #0",
        "├─ 2.bias (leaf) #1",
        "├─ TBackward0 #2",
        "└─ 2.weight (leaf) #3",
        "ReluBackward0 #4",
        "AddmmBackward0 #5",
        "└─ 0.bias (leaf) #6",
        "TBackward0 #7",
        "0.weight (leaf) #8",
    ]


def test_what_is_not_conserved_is_said_loudly() -> None:
    from dataclasses import replace

    x = torch.ones(2, requires_grad=True)
    record = pb.record(x.exp().sum())
    broken = replace(
        record, nodes=(replace(record.nodes[0], conservation_error=0.5), *record.nodes[1:])
    )
    assert not broken.conserved
    assert broken.conservation_error == 0.5
    assert (
        "NOT conserved: what SumBackward0 (#0) received is not the sum of its contributions, off "
        "by 0.5 of its largest entry. Only hooks run in between; one on a tensor that is gone, or "
        "registered before an in-place operation, cannot be named."
        in str(broken).replace("\n  ", " ")
    )
