"""``pb.diagnose``: from an error of autograd to the user's own tensors and lines."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor

from .. import _torch
from .._errors import PullbackError
from .errors import cotangent, freed, functions, leaves, modified, nograph, refusals, unused, views
from .errors.scene import Scene
from .errors.words import at, quoted
from .verdict import Verdict

Reading = Callable[[Scene], Verdict]

# What torch says, from its beginning or middle, and who reads it; the first that fits.
_READINGS: tuple[tuple[str, Reading], ...] = (
    (r"modified by an inplace operation", modified.modified),
    (r"backward through the graph a second time|have already been freed", freed.freed),
    (r"element \d+ of tensors does not require grad", nograph.no_graph),
    (r"grad can be implicitly created only for", cotangent.needed),
    (r"Mismatch in shape: grad_output", cotangent.wrong_shape),
    (r"Mismatch in dtype: grad_output|grad_output and output are required", cotangent.wrong_dtype),
    (r"a (view of a )?leaf Variable that requires grad is being used", leaves.written),
    (r"can't optimize a non-leaf Tensor", leaves.not_a_leaf),
    (r"only change requires_grad flags of leaf variables", leaves.flag_of_a_non_leaf),
    (r"[oO]nly Tensors of floating point .*dtype can require", leaves.dtype),
    (r"support the deepcopy protocol", leaves.deepcopy),
    (r"Output \d+ of \w+ is a view and is being modified", views.of_many),
    (r"view was created in (no_grad|inference) mode", views.made_without_gradients),
    (r"is a view .*being modified inplace|view was created inside a custom", views.by_function),
    (r"more than one element of the written-to tensor", views.overlapping),
    (r"Can't detach views in-place", views.detached),
    (r"[Ii]nference tensor", refusals.inference),
    (r"Can't call numpy\(\) on Tensor that requires grad", refusals.numpy),
    (r"functions with out=.* don't support automatic differentiation", refusals.out),
    (r"can't retain_grad on Tensor that|cannot register a hook on a tensor", refusals.unwatched),
    (r"differentiated Tensors? (at index \d+ )?appears? to not have been used", unused.unused),
    (r"One of the differentiated Tensors does not require grad", unused.no_flag),
    (r"Expected to have finished reduction in the prior iteration", unused.unreduced),
    (r"None of the inputs have requires_grad", unused.checkpoint_inputs),
    (r"checkpoint is incompatible with \.grad\(\)", unused.reentrant),
    (r"checkpoint: (A different number of tensors|Recomputed values)", unused.recomputed),
    (r"returned an invalid gradient at index", functions.gradient_shape),
    (r"returned an incorrect number of gradients", functions.gradient_count),
    (r"derivative for .* is not implemented", functions.no_derivative),
    (r"marked with @once_differentiable", functions.once),
)


def diagnose(
    error: BaseException,
    outputs: Tensor | Sequence[Tensor] | None = None,
    *,
    rerun: Callable[[], Any] | None = None,
) -> Verdict:
    """Say what an error of autograd means for the program that raised it, and what mends it.

    Reads the exception's traceback: the line that raised, the tensors that were differentiated
    and their graph. What was noted under ``pb.trace()`` adds who wrote in place, who freed a graph
    and where one was cut off, with their lines; without it the verdict says what it would add.
    Nothing of the program is run or changed.

    An error that was raised from one of autograd's is read as that one; any other gets the code
    ``"unknown_error"``, and one of pullback's own ``"refused"``.

    Args:
        error: an exception, or a warning that was turned into one or recorded.
        outputs: what was differentiated, where it is not in the traceback any more.
        rerun: for an error of a write in place: a function that does the failing work again, from
            its forward on. It is called once with every saved tensor kept as it was; where it then
            passes, the writes are the whole cause, and what it returns is among the evidence.

    Returns:
        A `Verdict`: ``print`` it, or compare its ``code``.

    Example:
        >>> import torch, pullback as pb
        >>> x = torch.zeros(2, requires_grad=True)
        >>> try:
        ...     with pb.trace():
        ...         y = x.exp()
        ...         y += 1
        ...         y.sum().backward()
        ... except RuntimeError as error:
        ...     verdict = pb.diagnose(error)
        >>> verdict.code, dict(verdict.evidence)["node"]
        ('modified_in_place', 'ExpBackward0')

    The lines are read as ``torch.autograd`` words them; each is held by a test of the project.
    """
    given = () if outputs is None else (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
    with _torch.function_modes_off():
        if isinstance(error, PullbackError):
            place = Scene(error).place
            return Verdict("refused", str(error), (("raised at", quoted(place)),))
        found = next((known for each in _causes(error) if (known := _reading(each))), None)
        if found is None:
            return _unknown(Scene(error))
        cause, reading = found
        verdict = reading(Scene(cause, given))
    if rerun is None or reading is not modified.modified:
        return verdict
    evidence = (*verdict.evidence, *modified.proof(rerun))
    return Verdict(verdict.code, verdict.text, evidence, verdict.fix)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and those from which it was raised."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        yield each
        seen.add(id(each))
        each = each.__cause__


def _reading(error: BaseException) -> tuple[BaseException, Reading] | None:
    text = str(error)
    return next(((error, read) for words, read in _READINGS if re.search(words, text)), None)


def _unknown(scene: Scene) -> Verdict:
    kind = type(scene.error).__name__
    text = (
        f"{kind}, raised at {at(scene.place)}, is no error of autograd that pullback knows. Its "
        f"own words are: {scene.text.partition(chr(10))[0] or 'none'}"
    )
    return Verdict("unknown_error", text, (("raised at", quoted(scene.place)),))
