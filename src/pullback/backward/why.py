"""``pb.why``: why ``.grad`` of a tensor is None, stale, doubled, zero or not finite."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _checks, _torch
from .._checks import Leaves
from .._names import CallerNames
from .._trees import Tree
from .bookkeeper import watched_by
from .provenance import parameter_name
from .question import Question
from .verdict import Verdict
from .whyheld import of_held
from .whynone import of_missing

_CALLER = "pb.why"


def why(tensor: Tensor, outputs: Tree = None) -> Verdict:
    """Why the ``.grad`` of ``tensor`` is what it is: a code, a text, evidence, the smallest fix.

    It looks, and changes nothing. From the tensor alone much is known; ``outputs`` lets it follow
    their graph; a forward run inside ``with pb.trace()`` lets it name the line where a gradient was
    cut off; a program run inside ``with pb.ledger(...)`` lets it say who wrote and who emptied.

    Codes of a ``.grad`` that is None, in the order in which they are asked:

    - ``integer_dtype``, ``inference_mode``, ``no_grad``, ``cut``, ``frozen``,
      ``no_requires_grad``: the tensor does not require a gradient;
    - ``rebound``, ``non_leaf``: it was computed, and keeps none;
    - ``zeroed_after``: it was written, and set to None since;
    - ``backward_failed``, ``freed_graph``, ``autograd_grad``, ``inputs_left_out``: the engine was
      not asked, or failed;
    - ``cut``, ``different_object``, ``opaque``, ``not_reached``: no way leads there;
    - ``function_returned_none``, ``undefined``: a way leads there, and nothing arrives;
    - ``underflow``, ``structural_zero``, ``numeric_zero``: zeros would arrive;
    - ``no_backward``, ``unknown``: nothing ran, or nothing more can be said.

    Codes of one that is there: ``unlogged_write``, ``nonfinite``, ``zeroed_after``, ``underflow``,
    ``structural_zero``, ``numeric_zero``, ``zero``, ``loss_scaled``, ``accumulated``, ``stale``,
    ``arrived``.

    Args:
        tensor: any tensor.
        outputs: what the gradient was expected from: a tensor or a pytree of them. The gradients
            shown are those with cotangents of ones.

    Returns:
        A `Verdict`.

    Raises:
        TreeError: ``tensor`` or ``outputs`` is not a tensor.
        UnsupportedError: inside a torch.func transform.

    Example:
        >>> import torch, pullback as pb
        >>> x = torch.ones(3, requires_grad=True)
        >>> with pb.trace():
        ...     out = (x.detach() * x.sum().detach()).sum()
        >>> verdict = pb.why(x, out)
        >>> verdict.code, verdict.fix.splitlines()[-1].strip()
        ('cut', 'x')

    Source: the order follows what autograd itself asks; "Autograd mechanics" of the PyTorch
    documentation.
    """
    names = CallerNames(_CALLER)
    with _torch.function_modes_off():
        _checks.a_tensor(_CALLER, "tensor", tensor)
        _checks.outside_transforms(_CALLER, [tensor])
        question = Question.about(_CALLER, _name(tensor, names), tensor, _outputs(outputs, names))
        with torch.inference_mode(False):
            grad = question.grad
            return of_missing(question) if grad is None else of_held(question, grad)


def _outputs(outputs: Tree, names: CallerNames) -> Leaves | None:
    if outputs is None:
        return None
    name = names.of(outputs) if isinstance(outputs, Tensor) else None
    out = _checks.leaves_of(_CALLER, "outputs", outputs, name=name)
    _checks.outside_transforms(_CALLER, out.tensors)
    return out


def _name(tensor: Tensor, names: CallerNames) -> str:
    watched = watched_by(tensor)
    own = names.of(tensor) or names.first_argument(paths=True) or parameter_name(tensor)
    return own or ("the tensor" if watched is None else watched.account.name)
