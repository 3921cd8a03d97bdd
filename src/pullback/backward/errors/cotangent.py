"""Errors about the cotangent: it is missing, or does not pair with its output."""

from __future__ import annotations

import re

from torch import Tensor

from ... import _checks
from ..._checks import Offer
from ...draw.numbers import shape
from ..offers import offers_for
from ..verdict import Verdict
from . import source
from .scene import Scene
from .words import TO_CHANGE, at, fix, quoted

NEEDED = "needs_cotangent"
SHAPE = "cotangent_shape"
DTYPE = "cotangent_dtype"
_MOST_DEVICES = 1024


def needed(scene: Scene) -> Verdict:
    """The verdict where ``backward()`` was called on several numbers, or a complex one."""
    output = _first_of_many(scene)
    here = ((TO_CHANGE, quoted(scene.engine_place)),)
    if output is None:
        text = f"The output at {at(scene.engine_place)} is not one real number: say with which "
        text += "weights its entries count."
        return Verdict(NEEDED, text, here, fix("Pass a cotangent:", ["out.backward(v)"]))
    name = scene.names.of(output) or "out"
    text = (
        f"`{name}` has shape {shape(output.shape)}: {_numbers(output)}, so backward at "
        f"{at(scene.engine_place)} needs a cotangent v that says which weighted sum of its entries "
        f"to differentiate."
    )
    if output.is_complex():
        text += " A complex output has two real parts: say which real number of it is meant."
        modulus, real = f"{name}.abs().sum().backward()", f"{name}.real.sum().backward()"
        advice = fix("For its modulus:", [modulus], "For its real part:", [real])
        return Verdict(NEEDED, text, here, advice)
    devices = _gathered(output)
    if devices:
        text += f" {devices}"
    found = offers_for(name, output, scene.names)
    facts = [
        (f"{offer.code}: {offer.meaning}", "; ".join(offer.results) or "not computed")
        for offer in found
    ]
    ways = [part for offer in found for part in (f"For {offer.meaning}:", [_asked(scene, offer)])]
    if devices:
        lead = "If they are one loss for each device, or each sample, take their mean:"
        ways = [lead, [f"{name}.mean().backward()"], *ways]
    return Verdict(NEEDED, text, (*facts, *here), fix(*ways))


def _first_of_many(scene: Scene) -> Tensor | None:
    given = () if scene.engine is None else scene.engine.cotangents
    for k, output in enumerate(scene.outputs):
        missing = k >= len(given) or given[k] is None
        if missing and isinstance(output, Tensor) and (output.numel() != 1 or output.is_complex()):
            return output
    return None


def _numbers(output: Tensor) -> str:
    return "1 complex number" if output.numel() == 1 else f"{output.numel()} numbers, not one"


def _gathered(output: Tensor) -> str:
    """What DataParallel leaves: one loss for each device, in one dimension."""
    if output.ndim != 1 or output.numel() > _MOST_DEVICES:
        return ""
    if output.grad_fn is not None and "Gather" in output.grad_fn.name():
        return "It was gathered from several devices, one loss each."
    return (
        f"It looks like {output.numel()} losses, one per device (DataParallel gathers them) or one "
        f"per sample."
    )


def _asked(scene: Scene, offer: Offer) -> str:
    """The call of ``backward`` with a cotangent, or the cotangent where that is not spelled so."""
    code = "" if scene.engine_place is None else scene.engine_place.code
    return (
        f"{code.removesuffix('()')}({offer.code})" if code.endswith(".backward()") else offer.code
    )


def wrong_shape(scene: Scene) -> Verdict:
    """The verdict on a cotangent and an output that do not pair entry by entry."""
    found = _pair(scene)
    here = quoted(scene.engine_place)
    if found is None:
        text = f"A cotangent and its output differ in shape at {at(scene.engine_place)}: "
        text += scene.text.partition(". ")[0].removeprefix("Mismatch in shape: ")
        return Verdict(SHAPE, f"{text}.", ((TO_CHANGE, here),), "Give v the output's shape.")
    name, argument, output, value = found
    text = (
        f"The cotangent `{argument}` has shape {_checks.shape_text(value.shape)}, but `{name}` has "
        f"shape {_checks.shape_text(output.shape)}; the two are paired entry by entry, and nothing "
        f"is broadcast. {_checks.shape_difference(value, output).strip()}"
    )
    facts = (
        ("shape of the cotangent", _checks.shape_text(value.shape)),
        ("shape of the output", _checks.shape_text(output.shape)),
        (TO_CHANGE, here),
    )
    remedy = _checks.shape_remedy(argument, name, value, output)
    lines = [f"{argument} = {code}" for code in _remedies(argument, name, value, output)]
    return Verdict(SHAPE, text, facts, fix(remedy, lines[:1]))


def _remedies(argument: str, name: str, value: Tensor, output: Tensor) -> list[str]:
    """The code in the words of the refusal, in their order."""
    text = _checks.shape_remedy(argument, name, value, output)
    pattern = re.escape(argument) + r"\.(?:t\(\)|reshape\(\(.*?\)\)|expand\(\(.*?\)\))"
    return re.findall(pattern, text) or [f"torch.ones_like({name})"]


def wrong_dtype(scene: Scene) -> Verdict:
    """The verdict on a complex cotangent for a real output, or the other way round."""
    found = _pair(scene)
    here = quoted(scene.engine_place)
    if found is None:
        return Verdict(DTYPE, scene.text, ((TO_CHANGE, here),), "Give v the output's dtype.")
    name, argument, output, value = found
    ours, theirs = _checks.dtype_text(value.dtype), _checks.dtype_text(output.dtype)
    text = (
        f"The cotangent `{argument}` has dtype {ours}, but `{name}` has dtype {theirs}: torch "
        f"converts between real dtypes, but not between real and complex ones."
    )
    facts = (("dtype of the cotangent", ours), ("dtype of the output", theirs), (TO_CHANGE, here))
    part = f"{argument}.real" if value.is_complex() else argument
    line = f"{argument} = {part}.to({name}.dtype)"
    return Verdict(
        DTYPE, text, facts, fix("Convert it where the real part is what is meant:", [line])
    )


def _pair(scene: Scene) -> tuple[str, str, Tensor, Tensor] | None:
    """The output and the cotangent that the error is about, with their names."""
    position = int(m[1]) if (m := re.search(r"grad_output\[(\d+)\]", scene.text)) else 0
    given = () if scene.engine is None else scene.engine.cotangents
    if position >= min(len(given), len(scene.outputs)):
        return None
    output, value = scene.outputs[position], given[position]
    if not (isinstance(output, Tensor) and isinstance(value, Tensor)):
        return None
    name = scene.names.of(output) or "out"
    argument = scene.names.of(value) or _written_cotangent(scene) or "v"
    return name, argument, output, value


def _written_cotangent(scene: Scene) -> str:
    """The cotangent as the call of ``backward`` spells it."""
    place = scene.engine_place
    arguments = [] if place is None else source.arguments_of(place.code)
    return arguments[0] if len(arguments) == 1 else ""
