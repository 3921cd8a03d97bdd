"""Why ``.grad`` is None: asked in the order in which a gradient could have been lost."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _checks, _torch
from .booktext import by_words, times
from .cuts import cuts_of
from .cuttext import REASONS, at, cut_evidence, first_cut, fix_of_cut, in_words
from .entries import place_text
from .graph import walk
from .origins import call_of
from .question import Question
from .statements import statement_of
from .verdict import Verdict
from .whyunreached import of_not_run, of_undefined, of_unreached


def of_missing(question: Question) -> Verdict:
    """The tensor keeps no ``.grad``, or it is None."""
    tensor = question.tensor
    if not tensor.requires_grad:
        return _of_no_requirement(question)
    if not tensor.is_leaf and not tensor.retains_grad:
        return _of_non_leaf(question)
    return (
        _emptied(question)
        or _not_asked(question)
        or of_unreached(question)
        or of_undefined(question)
        or of_not_run(question)
    )


def of_undelivered(question: Question) -> Verdict | None:
    """Why no gradient is defined at the tensor, whatever ``.grad`` holds; None if one is."""
    if not question.tensor.requires_grad:
        return _of_no_requirement(question)
    return of_unreached(question) or of_undefined(question)


def _of_no_requirement(question: Question) -> Verdict:
    name, tensor = question.name, question.tensor
    if not _checks.can_carry_gradients(tensor.dtype):
        cut = first_cut(cuts_of(tensor))
        where = "" if cut is None else f" It was made so by {at(cut.call)}."
        return Verdict(
            "integer_dtype",
            f"{name} has dtype {_checks.dtype_text(tensor.dtype)}: only floating point and complex "
            f"tensors carry gradients.{where}",
            (("dtype", _checks.dtype_text(tensor.dtype)), *cut_evidence(cut)),
            "Differentiate the floating point values that it was made from, or make it one:\n"
            f"    {name} = {name}.float().requires_grad_()",
        )
    cut = first_cut(cuts_of(tensor))
    if tensor.is_inference() and (cut is None or cut.reason == "inference_mode"):
        return Verdict(
            "inference_mode",
            f"{name} was made under torch.inference_mode(){in_words(cut)}: such a tensor has no "
            f"graph and can get none.",
            (("is_inference", "True"), *cut_evidence(cut)),
            "Compute it outside of inference_mode(), or clone it there before it is used:\n"
            f"    {name} = {name}.clone().requires_grad_()",
        )
    if cut is not None:
        code = "no_grad" if cut.reason == "no_grad" else "cut"
        return Verdict(
            code,
            f"{name} was computed from tensors that require a gradient, and lost its graph in "
            f"{at(cut.call)}: {REASONS[cut.reason]}.",
            cut_evidence(cut),
            fix_of_cut(cut),
        )
    if isinstance(tensor, torch.nn.Parameter):
        return Verdict(
            "frozen",
            f"{name} is a parameter with requires_grad=False: it is frozen, and backward leaves it "
            f"alone.",
            (("requires_grad", "False"),),
            f"Thaw it before the forward:\n    {name}.requires_grad_(True)",
        )
    return Verdict(
        "no_requires_grad",
        f"{name}.requires_grad is False, so no graph leads back to it and no gradient is computed "
        f"for it.",
        (("requires_grad", "False"), ("is_leaf", str(tensor.is_leaf))),
        f"Before anything is computed from it:\n    {name}.requires_grad_()",
    )


def _of_non_leaf(question: Question) -> Verdict:
    """Its gradient exists while the graph does: shown where outputs were given."""
    name, tensor = question.name, question.tensor
    node = tensor.grad_fn
    assert node is not None
    call = call_of(node)
    statement = None if call is None else statement_of(call)
    evidence: list[tuple[str, str]] = [("made by", _torch.node_name(node))]
    if call is not None:
        evidence.append(("at", at(call)))
    leaves = _leaves_below(tensor)
    evidence.append(("leaves upstream", ", ".join(leaves) or "none"))
    recovered = question.recovered()
    if recovered is not None:
        evidence.append(("its gradient (cotangents of ones)", recovered))
    rebound = statement.rebinds if statement is not None else None
    if statement is not None and call is not None and "requires_grad" in statement.text:
        rebound = rebound or (statement.targets[0] if statement.targets else None)
    if rebound is not None and statement is not None and call is not None:
        return Verdict(
            "rebound",
            f"{name} was computed, so .grad is not kept for it: {place_text(call)} "
            f"(`{statement.text}`) gave the name {rebound} to a new tensor. The gradient goes to "
            f"the leaf that it was made from.",
            tuple(evidence),
            "Make the leaf last:\n"
            f"    {rebound} = {_leaf_last(statement.text)}\n"
            "or keep the leaf under a name of its own, and read .grad there.",
        )
    return Verdict(
        "non_leaf",
        f"{name} was computed (is_leaf is False), and backward keeps .grad for leaves only.",
        tuple(evidence),
        f"Before backward:\n    {name}.retain_grad()\n"
        f"or ask for it: torch.autograd.grad({'loss' if name == 'out' else 'out'}, {name}).",
    )


def _leaf_last(text: str) -> str:
    """The right-hand side of an assignment, detached and made a leaf."""
    value = text.partition("=")[2].strip() if "=" in text else text
    for option in (", requires_grad=True", ",requires_grad=True"):
        if option in value:
            return f"({value.replace(option, '')}).requires_grad_()"
    return f"({value}).detach().requires_grad_()"


def _leaves_below(tensor: Tensor) -> list[str]:
    graph = walk([tensor])
    found = []
    for _, leaf in graph.leaves()[:4]:
        found.append(f"a leaf of shape {_checks.shape_text(tuple(leaf.shape))}")
    return found


def _emptied(question: Question) -> Verdict | None:
    account, name = question.account, question.name
    if account is None or not account.counts["deposit"]:
        return None
    entry = next(
        (e for e in reversed(account.entries) if e.kind == "none" or (e.kind == "hook")), None
    )
    if entry is None:
        return None
    what = f"the hook {entry.note}" if entry.kind == "hook" else by_words(entry.call)
    return Verdict(
        "zeroed_after",
        f"{name}.grad was written ({times(account.counts['deposit'], 'deposit')}) and then set to "
        f"None, by {what}.",
        (("emptied by", what), ("code", entry.call.code)),
        f"Read {name}.grad between backward() and that line.",
    )


def _not_asked(question: Question) -> Verdict | None:
    """Backward ran, and was not asked to write here."""
    name, calls = question.name, question.calls_that_reach()
    if not calls:
        return None
    last = calls[-1]
    if last.error:
        code = "freed_graph" if "second time" in last.error else "backward_failed"
        return Verdict(
            code,
            f"{at(last.call)} raised before it wrote {name}.grad: {last.error}",
            (("error", last.error), ("at", at(last.call))),
            "Ask about the error:\n    print(pb.diagnose(error))",
        )
    if all(not call.writes for call in calls):
        return Verdict(
            "autograd_grad",
            f"Only torch.autograd.grad ran ({at(last.call)}): it hands gradients back, and writes "
            f"no .grad.",
            (("call", at(last.call)), ("code", last.call.code)),
            f"Use what it returned:\n    (grad,) = torch.autograd.grad(out, [{name}])\nor call "
            f"backward().",
        )
    left_out = [call for call in calls if call.writes and not call.asked_for(question.tensor)]
    if left_out and len(left_out) == len([call for call in calls if call.writes]):
        return Verdict(
            "inputs_left_out",
            f"{at(left_out[-1].call)} was given inputs=, and {name} is not among them.",
            (("call", at(left_out[-1].call)), ("code", left_out[-1].call.code)),
            f"Add {name} to inputs=, or leave inputs= out.",
        )
    return None
