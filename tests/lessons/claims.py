"""What a first tutorial on tensor gradients says, and the cell that shows how much of it is so.

One line per claim, in our words; where a claim is loose, the words after "exactly" are what holds.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """``place``: the role and the key of a cell that computes it."""

    text: str
    lesson: int
    place: str


CLAIMS = [
    # From scalar losses to tensors
    Claim("backward on a scalar loss puts gradients into .grad", 1, "proof eye"),
    Claim("eye gives ones on the diagonal and zeros elsewhere", 1, "proof eye"),
    Claim("for a scalar, an upstream gradient of 1 is filled in", 1, "reveal implicit"),
    Claim("a computation may end in a tensor; .t() makes it (5, 4)", 1, "reveal shape"),
    Claim("backward() without argument on a tensor is an error", 1, "reveal refused"),
    Claim("scalar: exactly, a tensor of one element", 1, "proof one-element"),
    Claim(
        "a tensor has no single gradient: exactly, one per entry, the Jacobian", 1, "reveal size"
    ),
    Claim("Jacobians are large and costly to build", 1, "proof size"),
    Claim("with requires_grad operations are recorded", 3, "proof leaf"),
    # What v is
    Claim("v must have the shape of the output", 2, "reveal shape"),
    Claim("ones weigh all entries alike: the gradient of the sum", 2, "reveal ones"),
    Claim("other v are as valid, and mean other questions", 2, "proof offers"),
    Claim(
        "backward(v) is the gradient of v^T out: exactly, of the sum of v * out", 2, "proof any-v"
    ),
    Claim("v^T out is a scalar: exactly, not the matrix product of two matrices", 2, "proof any-v"),
    Claim("this is a vector-Jacobian product, without forming J", 2, "proof matrix"),
    Claim("v is not needed because of repeated calls or retain_graph", 2, "reveal retain"),
    # Leaves
    Claim("the result is on inp, though backward is called on out", 3, "reveal where"),
    Claim("backward tells how an output depended on earlier tensors", 3, "proof rows"),
    Claim("all leaves that require grad receive one: exactly, those reached", 3, "reveal who"),
    Claim("computed tensors do not keep a gradient", 3, "reveal where"),
    Claim("the gradient by a matrix is a matrix of partial derivatives", 3, "proof row"),
    Claim("out stores none: exactly, its gradient would be v", 3, "proof retain"),
    # Accumulation
    Claim("a second call gives twice the first: exactly, to the last bit", 4, "reveal second"),
    Claim("new gradients are added to what .grad holds", 4, "proof own"),
    Claim("zero_() sets .grad to zeros; the next call gives the first again", 4, "proof zero"),
    Claim("before the first backward .grad is None, hence the guard", 4, "proof guard"),
    Claim("accumulation serves several terms of a loss", 4, "proof terms"),
    Claim("accumulation serves mini-batches: exactly, each with its share", 4, "reveal chunks"),
    Claim("clearing is up to you: optimizer.zero_grad(), exactly: to None", 4, "proof decay"),
    Claim("zero and None: not the same to an optimizer", 4, "reveal decay"),
    # retain_graph
    Claim("retain_graph=True lets the graph be used again", 5, "proof keep"),
    Claim(
        "without it a second call fails: exactly, where saved tensors are needed",
        5,
        "reveal second",
    ),
    Claim("without it a second call fails: not where nothing was saved", 5, "reveal linear"),
    # The exercise
    Claim("v with more weight on the first row", 6, "check first-row"),
    Claim("what inp.grad then holds: exactly, a column, because of .t()", 6, "reveal lands"),
    Claim("changing v amplifies and mutes", 6, "reveal change"),
    Claim("v weighs the rows of out: exactly, each entry, a row of J", 6, "proof local"),
    Claim(
        "most sensitive: diagonal and heavily weighted; exactly, weight times slope", 6, "proof top"
    ),
    Claim("the diagonal dominates: exactly, by 21 %", 6, "reveal ratio"),
    Claim("a heavy entry off the diagonal beats a light one on it", 6, "reveal beats"),
    Claim("inp.grad: how the weighed sum changes when an entry is nudged", 6, "proof nudge"),
    Claim("not the gradient of one scalar: exactly, of the number v . out", 6, "proof nudge"),
    Claim("totals are nearly the same for all v: here 312.6, 315.75, 300", 6, "proof totals"),
    Claim("especially with normalized v: exactly, only then", 6, "proof raw"),
    Claim("why: exactly, a total is v . (J 1), an average of row sums", 6, "proof rowsums"),
    Claim("constant: exactly, where row sums are equal, and only there", 6, "proof edges"),
    # Promised for later
    Claim(
        "sensitivity analysis: here, of a trained model, in comparable units", 10, "proof elastic"
    ),
]
