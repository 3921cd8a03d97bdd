"""``assert_finite``: outputs, and all that their backward pass sends, are finite."""

from __future__ import annotations

from torch import nn

from .. import _torch
from .._trees import Tree
from ..backward.birth import place_of
from ..backward.births import first_birth
from .failure import failure

_CALLER = "pb.assert_finite"


def assert_finite(
    outputs: Tree, cotangents: Tree = None, *, inputs: Tree | nn.Module = None
) -> None:
    """Assert that ``outputs`` and every contribution of their backward pass are finite.

    One backward pass, a look that changes nothing: `find_nonfinite`. A nan that a mask hides in
    the gradients is found as well, since it is met on the way.

    Args:
        outputs: a tensor with a graph, or a pytree of them.
        cotangents: the same structure and shapes; None for outputs of one element.
        inputs: what to differentiate with respect to; None: every leaf.

    Raises:
        GradientAssertionError: with the `Verdict` on the node where the first inf or nan was born.
        ArgumentError, CotangentError, GraphError, TreeError, UnsupportedError: as in ``pb.record``.

    Example:
        >>> import torch, pullback as pb
        >>> x = torch.tensor([0.0, 4.0], requires_grad=True)
        >>> pb.assert_finite((x + 1).sqrt().sum())
        >>> try:
        ...     pb.assert_finite(x.sqrt().sum())
        ... except AssertionError as error:
        ...     print({name: verdict.code for name, verdict in error.verdicts.items()})
        {'SqrtBackward0': 'infinite_derivative'}

    Source: as in ``pb.find_nonfinite``.
    """
    __tracebackhide__ = True
    with _torch.function_modes_off():
        birth = first_birth(_CALLER, outputs, cotangents, inputs)
    if birth is not None:
        at = place_of(birth.call)
        where = f"{birth.node} at {at}" if at else birth.node
        raise failure(f"{_CALLER}: not everything is finite.", {where: birth.verdict})
