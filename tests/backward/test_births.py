"""Where the first inf or nan is born: every program against theory, and every rewrite applied."""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import pullback as pb
from pullback.backward.finite import all_finite, first_bad
from pullback.backward.operations import OPERATIONS, Guard, Operation

from .broken_programs import BROKEN, Broken
from .programs import PROGRAMS

by_name = pytest.mark.parametrize("broken", BROKEN, ids=lambda b: b.name)


def run(source: str, folder: Path) -> dict[str, Any]:
    """The names of a program after it ran, under trace, from a file of its own."""
    file = folder / "program.py"
    file.write_text(source, encoding="utf-8")
    scope: dict[str, Any] = {"torch": torch, "F": torch.nn.functional}
    with pb.trace():
        exec(compile(source, str(file), "exec"), scope)
    return scope


def find(scope: dict[str, Any]) -> pb.Birth | None:
    out = scope["out"]
    return pb.find_nonfinite(out, torch.ones_like(out))


def leaves(scope: dict[str, Any]) -> dict[str, Tensor]:
    return {
        k: t for k, t in scope.items() if isinstance(t, Tensor) and t.is_leaf and t.requires_grad
    }


def gradients(scope: dict[str, Any]) -> dict[str, Tensor]:
    named, out = leaves(scope), scope["out"]
    grads = torch.autograd.grad(out, list(named.values()), torch.ones_like(out), retain_graph=True)
    return dict(zip(named, grads, strict=True))


def repaired(source: str, birth: pb.Birth) -> str:
    """The program with the expression of ``birth`` replaced by its rewrite, lines before it."""
    assert birth.call is not None
    lines = source.splitlines()
    line = lines[birth.call.line - 1]
    assert line.count(birth.call.code) == 1, line
    *before, expression = birth.rewrite
    lines[birth.call.line - 1] = line.replace(birth.call.code, f"({expression})")
    lines[birth.call.line - 1 : birth.call.line - 1] = before
    return "\n".join(lines)


def same(one: float | complex | None, other: float | complex | None) -> bool:
    if one is None or other is None:
        return one is other
    if isinstance(one, complex) or isinstance(other, complex):
        return one == other
    return one == other or (math.isnan(one) and math.isnan(other))


@by_name
def test_the_birth_is_where_theory_puts_it(broken: Broken, tmp_path: Path) -> None:
    birth = find(run(broken.source, tmp_path))
    assert birth is not None
    found = (birth.code, birth.node, birth.position, birth.element, birth.kind)
    assert found == (broken.code, broken.node, broken.position, broken.element, broken.kind)
    if broken.derivative is not None:
        assert same(birth.derivative, broken.derivative)
    assert birth.call is not None
    line = next(k for k, t in enumerate(broken.source.splitlines(), 1) if t.endswith("# here"))
    assert (Path(birth.call.file).name, birth.call.line) == ("program.py", line)
    assert birth.node in str(birth)
    assert birth.verdict.code == birth.code


@pytest.mark.parametrize("broken", [b for b in BROKEN if b.after], ids=lambda b: b.name)
def test_the_rewrite_mends_the_program(broken: Broken, tmp_path: Path) -> None:
    scope = run(broken.source, tmp_path)
    birth = find(scope)
    assert birth is not None
    assert birth.proof is not None
    assert birth.proof.holds, birth.proof
    assert all(f"    {line}" in birth.fix for line in birth.rewrite)
    mended = run(repaired(broken.source, birth), tmp_path)
    assert find(mended) is None
    was_finite = scope["out"].isfinite()
    torch.testing.assert_close(mended["out"][was_finite], scope["out"][was_finite])
    assert broken.after is not None
    for name, grad in gradients(mended).items():
        expected = torch.tensor(broken.after[name], dtype=grad.dtype)
        torch.testing.assert_close(grad, expected, rtol=1e-6, atol=1e-12, msg=name)


@pytest.mark.parametrize("broken", [b for b in BROKEN if b.after is None], ids=lambda b: b.name)
def test_no_rewrite_is_offered_that_did_not_hold(broken: Broken, tmp_path: Path) -> None:
    birth = find(run(broken.source, tmp_path))
    assert birth is not None
    assert birth.rewrite == ()
    assert birth.proof is None or not birth.proof.holds


@by_name
def test_twice_the_cotangent_has_its_birth_in_the_same_place(
    broken: Broken, tmp_path: Path
) -> None:
    out = run(broken.source, tmp_path)["out"]
    one = pb.find_nonfinite(out, torch.ones_like(out))
    two = pb.find_nonfinite(out, 2 * torch.ones_like(out))
    assert one is not None
    assert two is not None
    fields = ("code", "node", "position", "element", "count", "kind", "call", "also")
    assert [getattr(one, f) for f in fields] == [getattr(two, f) for f in fields]


def test_the_mending_test_can_fail(tmp_path: Path) -> None:
    """The check of the rewrites notices one that does nothing."""
    source = BROKEN[0].source
    birth = find(run(source, tmp_path))
    assert birth is not None
    idle = pb.Birth(**{**vars(birth), "rewrite": (birth.call.code,)})  # type: ignore[union-attr]
    assert find(run(repaired(source, idle), tmp_path)) is not None


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_finite_passes_have_no_birth(name: str) -> None:
    built = PROGRAMS[name]()
    outputs = built.outputs
    ones = torch.utils._pytree.tree_map(torch.ones_like, outputs)
    before = {k: t.grad for k, t in built.leaves.items() if t.is_leaf}
    assert pb.find_nonfinite(outputs, ones) is None
    assert before == {k: t.grad for k, t in built.leaves.items() if t.is_leaf}


def nodes_behind(outputs: Any) -> list[Any]:
    found, stack = [], [t.grad_fn for t in torch.utils._pytree.tree_leaves(outputs)]
    while stack:
        node = stack.pop()
        if node is not None and node not in found and not hasattr(node, "variable"):
            found.append(node)
            stack += [child for child, _ in node.next_functions]
    return found


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_what_a_hook_spoils_is_found_at_its_node(name: str) -> None:
    """At any node of any program: the hook is to blame, and nothing fails on the way."""
    built = PROGRAMS[name]()
    ones = torch.utils._pytree.tree_map(torch.ones_like, built.outputs)
    nodes = nodes_behind(built.outputs)
    for node in nodes[:: max(1, len(nodes) // 4)]:

        def spoil(sent: Any, received: Any) -> Any:
            return tuple(None if t is None else t * math.nan for t in sent)

        with node.register_hook(spoil):
            birth = pb.find_nonfinite(built.outputs, ones)
        if birth is None:  # it sends nothing, or nothing with an entry
            assert name in ("empty_tensors", "custom_function_returning_none")
            continue
        assert birth.node == node.name().rpartition("::")[2]
        assert birth.code == ("custom_function" if birth.node in CUSTOM else "hook")
        assert str(birth)


CUSTOM = {"OldStyleBackward", "WritesItsCotangentBackward", "ReturnsNoneBackward", "WideBackward"}


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_a_poisoned_cotangent_is_found_in_every_program(name: str) -> None:
    built = PROGRAMS[name]()
    poisoned = torch.utils._pytree.tree_map(lambda t: t * 0 + math.nan, built.outputs)
    poisoned = torch.utils._pytree.tree_map(lambda t: t.detach(), poisoned)
    birth = pb.find_nonfinite(built.outputs, poisoned)
    assert birth is not None
    assert birth.code == "poisoned_cotangent"


def test_inf_is_found_where_anomaly_mode_is_silent() -> None:
    x = torch.tensor([0.0, 1.0], requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.autograd.detect_anomaly():
            (grad,) = torch.autograd.grad(x.sqrt(), x, torch.ones(2))
    assert grad[0] == math.inf
    birth = pb.find_nonfinite(x.sqrt(), torch.ones(2))
    assert birth is not None
    assert (birth.kind, birth.node, birth.upstream) == ("inf", "SqrtBackward0", 1.0)


def test_a_poisoned_cotangent_is_no_nodes_fault() -> None:
    """Anomaly mode blames the first operation."""
    x = torch.ones(3, requires_grad=True)
    out = x.exp()
    v = torch.tensor([1.0, math.nan, math.inf])
    birth = pb.find_nonfinite(out, v)
    assert birth is not None
    assert (birth.code, birth.element, birth.count) == ("poisoned_cotangent", (1,), 2)
    assert "no node made it" in birth.text


def test_a_leaf_that_is_not_finite_is_named() -> None:
    w = torch.tensor([1.0, math.nan], requires_grad=True)
    birth = pb.find_nonfinite((w * 2).sum(), inputs={"weight": w})
    assert birth is not None
    assert birth.code == "born_in_forward"
    assert birth.text.startswith("weight itself holds nan at [1], before anything was computed.")


class ReturnsNan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 1

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad / 0 - grad / 0


def test_a_custom_function_is_named() -> None:
    x = torch.ones(2, requires_grad=True)
    birth = pb.find_nonfinite(ReturnsNan.apply(x.sin()).exp(), torch.ones(2))
    assert birth is not None
    assert (birth.code, birth.node) == ("custom_function", "ReturnsNanBackward")
    assert birth.operands == {}
    assert birth.derivative is None


def poison(grad: Tensor) -> Tensor:
    return grad * math.inf


def test_hooks_are_named() -> None:
    x = torch.ones(2, requires_grad=True)
    h = x.sin()
    h.register_hook(poison)
    on_tensor = pb.find_nonfinite(h.exp(), torch.ones(2))
    assert on_tensor is not None
    assert (on_tensor.code, on_tensor.node) == ("hook", "SinBackward0")
    assert "poison" in on_tensor.text
    y = x.sin()
    assert y.grad_fn is not None
    y.grad_fn.register_hook(lambda sent, received: (sent[0] * math.nan,))
    on_node = pb.find_nonfinite(y.exp(), torch.ones(2))
    assert on_node is not None
    assert (on_node.code, on_node.node) == ("hook", "SinBackward0")
    x.register_hook(poison)
    on_leaf = pb.find_nonfinite(x.exp(), torch.ones(2))
    assert on_leaf is not None
    assert (on_leaf.code, on_leaf.node) == ("hook", "AccumulateGrad")
    assert "poison" in on_leaf.text


def test_a_sum_of_contributions_that_overflows() -> None:
    x = torch.ones(2, requires_grad=True)
    h = x * 1
    birth = pb.find_nonfinite(h * 2e38 + h * 3e38, torch.tensor([0.5, 1.0]))
    assert birth is not None
    assert (birth.code, birth.node, birth.element) == ("overflow", "MulBackward0", (1,))
    assert "2 finite contributions meet at MulBackward0" in birth.text


def test_a_loss_scale_that_is_too_large_says_by_how_much() -> None:
    """60000 = 65504 / 1.09: a scale of 4 is too large by a factor of 4."""
    x = torch.ones(2, dtype=torch.float16, requires_grad=True)
    out = (x * 60000).float()
    assert pb.find_nonfinite(out, torch.ones(2)) is None
    birth = pb.find_nonfinite(out, torch.full((2,), 4.0))
    assert birth is not None
    assert (birth.code, birth.upstream, birth.derivative) == ("overflow", 4.0, 60000.0)
    assert "2**-2 times as large a v" in birth.fix
    assert "A larger loss scale makes it worse" in birth.fix


def test_the_source_of_a_zero_is_told_only_where_its_mask_says_so() -> None:
    x = torch.tensor([0.0, 4.0], requires_grad=True)
    masked = pb.find_nonfinite(torch.where(x > 0, x.sqrt(), 0 * x), torch.ones(2))
    given = pb.find_nonfinite(torch.where(x >= 0, x.sqrt(), 0 * x), torch.tensor([0.0, 1.0]))
    assert masked is not None
    assert given is not None
    assert "comes from WhereBackward0, which took its other branch" in masked.text
    assert "The 0 was sent by WhereBackward0." in given.text


def test_a_proof_says_where_its_operands_are_from() -> None:
    row = torch.full((2,), -math.inf)
    x = torch.zeros(2, requires_grad=True)
    soft = pb.find_nonfinite((x + row).softmax(0), torch.ones(2))
    saved = pb.find_nonfinite((x + 1).mul(0).log().exp(), torch.ones(2))
    assert soft is not None
    assert saved is not None
    assert soft.proof is not None
    assert saved.proof is not None
    assert soft.proof.text.startswith(
        "Tried on operands that give the saved result (of -inf, where a slice of it is nan), with "
        "ones as their upstream: no entry of the original is finite; its gradients have 0 entries "
        "that are not finite, before 2."
    )
    assert saved.proof.text == (
        "Tried on the operands of this pass, with the upstream of this pass: the forward equals "
        "the original in the 2 entries where that is not nan; its gradients have 0 entries that "
        "are not finite, before 2."
    )


def test_other_births_are_listed() -> None:
    x = torch.tensor([0.0, 4.0], requires_grad=True)
    birth = pb.find_nonfinite(x.sqrt() + torch.where(x > 0, x.log(), 0 * x), torch.ones(2))
    assert birth is not None
    assert {birth.node, *birth.also} == {"SqrtBackward0", "LogBackward0"}


def test_nodes_that_received_what_was_born_are_not_listed() -> None:
    x = torch.tensor([0.0, 4.0], requires_grad=True)
    birth = pb.find_nonfinite((x * 3 / 2).sqrt().exp(), torch.ones(2))
    assert birth is not None
    assert (birth.node, birth.also) == ("SqrtBackward0", ())


def test_an_operation_that_does_not_send_what_its_node_sends_is_not_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = Operation("sqrt", {"a": "result"}, "a.exp()", (Guard("a > 0", "1.0"),))
    monkeypatch.setitem(OPERATIONS, "SqrtBackward0", wrong)
    birth = pb.find_nonfinite(torch.zeros(2, requires_grad=True).sqrt(), torch.ones(2))
    assert birth is not None
    assert (birth.node, birth.element, birth.code) == ("SqrtBackward0", (0,), "infinite_derivative")
    assert (birth.operands, birth.derivative, birth.fix, birth.proof) == ({}, None, "", None)


def test_packed_tensors_are_read_through_their_hooks() -> None:
    x = torch.tensor([0.0, 4.0], requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t + math.nan, lambda t: x.detach()):
        logs = x.log()
    birth = pb.find_nonfinite(torch.where(x > 0, logs, 0 * x), torch.ones(2))
    assert birth is not None
    assert (birth.code, birth.operands) == ("zero_times_infinity", {"self": 0.0})
    forward = pb.find_nonfinite(logs, torch.ones(2))
    assert forward is not None
    assert (forward.kind, forward.node, forward.operands) == ("inf", "LogBackward0", {"self": 0.0})


@pytest.mark.parametrize("packs", ["checkpoint", "offload"])
def test_operands_inside_a_checkpoint_are_computed_again(packs: str) -> None:
    def masked(t: Tensor) -> Tensor:
        return torch.where(t > 0, t.sqrt(), 0 * t) * 2

    x = torch.tensor([0.0, 4.0], requires_grad=True)
    if packs == "checkpoint":
        out = checkpoint(masked, x, use_reentrant=False)
    else:
        with torch.autograd.graph.save_on_cpu():
            out = masked(x)
    birth = pb.find_nonfinite(out, torch.ones(2))
    assert birth is not None
    assert (birth.code, birth.node) == ("zero_times_infinity", "SqrtBackward0")
    assert birth.operands == {"result": 0.0}
    assert birth.proof is not None
    assert birth.proof.holds


def test_a_compiled_region_is_opaque() -> None:
    x = torch.tensor([0.0, 4.0], requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = torch.compile(lambda t: t.sqrt() * 2, backend="aot_eager")(x)
    birth = pb.find_nonfinite(out, torch.ones(2))
    assert birth is not None
    assert (birth.code, birth.node) == ("compiled_region", "CompiledFunctionBackward")
    assert birth.fix == "Run the same function without torch.compile, and look again."


def test_no_trace_is_left_and_a_second_look_says_the_same() -> None:
    x = torch.tensor([0.0, 4.0], requires_grad=True)
    h = x * 1
    h.retain_grad()
    out = h.sqrt()
    state = torch.get_rng_state()
    first, second = (pb.find_nonfinite(out, torch.ones(2)) for _ in range(2))
    assert first == second
    assert x.grad is None
    assert h.grad is None
    assert torch.equal(state, torch.get_rng_state())
    out.backward(torch.ones(2))


def test_without_a_trace_the_rewrite_names_its_operands() -> None:
    x = torch.tensor([0.0, 4.0], requires_grad=True)
    birth = pb.find_nonfinite(x.sqrt(), torch.ones(2))
    assert birth is not None
    assert birth.call is None
    assert birth.rewrite == ("torch.where(x > 0, torch.where(x > 0, x, 1.0).sqrt(), 0.0)",)
    assert "(x and y stand for its operands)" in birth.fix


def test_refusals_are_those_of_record() -> None:
    x = torch.ones(2, requires_grad=True)
    out = x.exp()
    with pytest.raises(pb.CotangentError, match=re.escape("pb.find_nonfinite: ")):
        pb.find_nonfinite(out)
    with pytest.raises(pb.GraphError, match=re.escape("pb.find_nonfinite: ")):
        pb.find_nonfinite(x.detach(), torch.ones(2))
    out.sum().backward()
    with pytest.raises(pb.GraphError, match="was freed by an earlier backward"):
        pb.find_nonfinite(out, torch.ones(2))


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x.norm(),
        lambda x: torch.linalg.vector_norm(x, 3),
        lambda x: x.std(),
        lambda x: torch.atan2(x, x.detach()).sum(),
        lambda x: torch.cdist(x[None], x[None].detach()).sum(),
        lambda x: x.prod(),
        lambda x: x.cumprod(0).sum(),
        lambda x: torch.nn.functional.normalize(x, dim=0).sum(),
        lambda x: torch.nn.functional.cosine_similarity(x, torch.ones(2), dim=0),
        lambda x: x.to(torch.complex64).abs().sum(),
    ],
)
def test_torch_answers_0_at_these_singular_points(make: Any) -> None:
    """Norms, deviations and products at 0: torch takes a subgradient, so nothing is born."""
    assert pb.find_nonfinite(make(torch.zeros(2, requires_grad=True))) is None


def test_attention_without_a_key_is_safe_in_torch() -> None:
    x = torch.ones(1, 2, 1, requires_grad=True)
    none = torch.zeros(2, 2, dtype=torch.bool)
    out = torch.nn.functional.scaled_dot_product_attention(x, x, x, attn_mask=none)
    assert pb.find_nonfinite(out, torch.ones_like(out)) is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.complex64])
def test_finiteness_by_a_sum_is_exact(dtype: torch.dtype) -> None:
    large = torch.full((100,), torch.finfo(dtype).max / 2, dtype=dtype)
    assert all_finite(large)
    for bad in (math.inf, -math.inf, math.nan):
        for place in (0, 57, 99):
            spoiled = large.clone()
            spoiled[place] = bad
            assert not all_finite(spoiled)
            found = first_bad(spoiled)
            assert found is not None
            assert (found.element, found.count) == ((place,), 1)
    assert not all_finite(torch.tensor([math.inf, -math.inf]))


def test_a_sparse_gradient_is_read_through_its_values() -> None:
    table = torch.nn.Embedding(4, 2, sparse=True)
    out = table(torch.tensor([1, 3])) * torch.tensor([1.0, 1e38])
    assert pb.find_nonfinite(out, torch.ones(2, 2)) is None
    birth = pb.find_nonfinite(out, torch.full((2, 2), 1e3))
    assert birth is not None
    assert birth.code == "overflow"
