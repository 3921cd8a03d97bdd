"""``vjp`` and ``jvp`` as drop-ins for torch.func: numbers, graphs, refusals."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils import _pytree as pytree

import pullback as pb
from pullback import _engines, _torch

_torch.load_forward_mode()


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def same(ours: Any, theirs: Any) -> None:
    """Equal in value, dtype, shape and requires_grad."""
    assert_close(ours, theirs)
    flags = [
        [(t.requires_grad, t.dtype, t.shape) for t in pytree.tree_leaves(tree)]
        for tree in (ours, theirs)
    ]
    assert flags[0] == flags[1]


BOTH = pytest.mark.parametrize("vjp", [pb.vjp, torch.func.vjp], ids=["pullback", "torch.func"])


# The cases of torch.func's own documentation, with the import changed.


@BOTH
def test_one_cotangent_at_a_scalar_is_the_gradient(vjp: Callable[..., Any]) -> None:
    x = rand(5)
    _, pull = vjp(lambda x: x.sin().sum(), x)
    assert_close(pull(torch.tensor(1.0, dtype=x.dtype))[0], x.cos())


@BOTH
def test_outputs_in_a_tuple_take_cotangents_in_a_tuple(vjp: Callable[..., Any]) -> None:
    x = rand(5)
    _, pull = vjp(lambda x: (x.sin(), x.cos()), x)
    assert_close(pull((torch.ones_like(x), torch.ones_like(x)))[0], x.cos() - x.sin())


@BOTH
def test_outputs_in_a_dict_take_cotangents_in_a_dict(vjp: Callable[..., Any]) -> None:
    x = rand(5)
    _, pull = vjp(lambda x: {"a": x.sin(), "b": x.cos()}, x)
    found = pull({"a": torch.ones_like(x), "b": 2 * torch.ones_like(x)})
    assert_close(found[0], x.cos() - 2 * x.sin())


@BOTH
def test_every_primal_gets_its_gradient(vjp: Callable[..., Any]) -> None:
    x, y, v = rand(5, 4), rand(4, 5, seed=1), rand(5, 5, seed=2)
    _, pull = vjp(torch.matmul, x, y)
    assert_close(pull(v), (v @ y.T, x.T @ v))


@BOTH
def test_keyword_arguments_keep_their_defaults(vjp: Callable[..., Any]) -> None:
    def scaled(x: Tensor, scale: float = 4.0) -> Tensor:
        return x * scale

    x = rand(5)
    assert_close(vjp(scaled, x)[1](torch.ones_like(x))[0], torch.full_like(x, 4.0))


def _minus_constant_square(x: Tensor) -> Tensor:
    with torch.no_grad():
        c = x**2
    return x - c


@BOTH
def test_an_inner_no_grad_counts_and_an_outer_one_does_not(vjp: Callable[..., Any]) -> None:
    x = rand(5)
    _, pull = vjp(_minus_constant_square, x)
    with torch.no_grad():
        out, outer = vjp(_minus_constant_square, x.clone().requires_grad_())
        assert not out.requires_grad
        assert_close(outer(torch.ones_like(x))[0], torch.ones_like(x))
    assert_close(pull(torch.ones_like(x))[0], torch.ones_like(x))


@pytest.mark.parametrize("jvp", [pb.jvp, torch.func.jvp], ids=["pullback", "torch.func"])
def test_the_cases_of_the_jvp_documentation(jvp: Callable[..., Any]) -> None:
    weights = torch.tensor([1.0, 2.0, 3.0])
    value, pushed = jvp(lambda x: x * weights, (torch.tensor(2.0),), (torch.tensor(1.0),))
    assert_close((value, pushed), (2 * weights, weights))
    x, y = rand(5), rand(5, seed=1)
    _, pushed = jvp(torch.mul, (x, y), (torch.ones_like(x), torch.ones_like(y)))
    assert_close(pushed, x + y)


# What comes back, beside the numbers.


def test_aux_is_passed_through_without_a_private_graph() -> None:
    x = rand(3)

    def func(x: Tensor) -> Any:
        return x.sin(), {"mid": x.exp(), "mask": x > 0}

    for ours, theirs in (
        (pb.vjp(func, x, has_aux=True), torch.func.vjp(func, x, has_aux=True)),
        (pb.jvp(func, (x,), (x,), has_aux=True), torch.func.jvp(func, (x,), (x,), has_aux=True)),
    ):
        same(ours[2], theirs[2])
        same(ours[0], theirs[0])


def test_aux_may_hold_what_is_not_a_tensor() -> None:
    assert pb.vjp(lambda x: (x, "note"), rand(2), has_aux=True)[2] == "note"


def test_an_output_can_be_turned_into_numpy_and_keeps_the_identity_of_its_primal() -> None:
    x, c = rand(3), rand(3, seed=1)
    out, _ = pb.vjp(lambda x: (x.sin(), x, c), x)
    assert out[0].numpy().shape == (3,)
    assert out[1] is x
    assert out[2] is c


def test_a_returned_primal_that_requires_grad_is_the_primal() -> None:
    x = rand(3).requires_grad_()
    assert pb.vjp(lambda x: x, x)[0] is x
    assert torch.func.vjp(lambda x: x, x)[0] is x


def test_the_same_tensor_twice_is_two_primals() -> None:
    x = rand(3)
    assert_close(pb.vjp(torch.mul, x, 2 * x)[1](x), (2 * x * x, x * x))
    assert_close(pb.vjp(torch.mul, x, x)[1](torch.ones_like(x)), (x, x))
    assert_close(pb.jvp(torch.mul, (x, x), (torch.ones_like(x), 0 * x))[1], x)


@pytest.mark.parametrize("requires_grad", [False, True])
def test_a_closed_over_primal_is_a_constant(requires_grad: bool) -> None:
    x = rand(3).requires_grad_(requires_grad)
    _, pull = pb.vjp(lambda t: t * t * x, x)
    same(pull(torch.ones_like(x)), torch.func.vjp(lambda t: t * t * x, x)[1](torch.ones_like(x)))


def test_an_output_that_ignores_a_primal_gives_zeros() -> None:
    x, y = rand(3), rand(2)
    assert_close(pb.vjp(lambda x, y: x * 1, x, y)[1](x), (x, torch.zeros_like(y)))
    assert_close(pb.vjp(lambda x: torch.ones(2), x)[1](torch.ones(2)), (torch.zeros_like(x),))
    assert_close(pb.jvp(lambda x: torch.ones(2), (x,), (x,))[1], torch.zeros(2))


def test_integer_outputs_of_a_jvp_have_zero_tangents() -> None:
    x = rand(4)

    def func(x: Tensor) -> Any:
        return x > 0, x.long(), x.sin()

    same(pb.jvp(func, (x,), (x,)), torch.func.jvp(func, (x,), (x,)))


def test_mixed_dtypes_of_primals_and_tangents() -> None:
    x, y = rand(3), rand(3, seed=1).float()

    def func(x: Tensor, y: Tensor) -> Any:
        return x * y, y.sin()

    same(pb.jvp(func, (x, y), (x, y)), torch.func.jvp(func, (x, y), (x, y)))
    same(pb.jvp(torch.sin, (y,), (x,)), torch.func.jvp(torch.sin, (y,), (x,)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64])
def test_real_cotangents_of_another_dtype_are_cast(dtype: torch.dtype) -> None:
    x, v = rand(3).float(), torch.ones(3, dtype=dtype)
    same(pb.vjp(torch.sin, x)[1](v), torch.func.vjp(torch.sin, x)[1](v))


@pytest.mark.parametrize("func", [lambda z: z * z.conj() + z, torch.abs, torch.view_as_real])
def test_complex_primals(func: Callable[[Tensor], Tensor]) -> None:
    z = torch.complex(rand(4), rand(4, seed=1))
    out, pull = pb.vjp(func, z)
    v = out * 2
    same(pull(v), torch.func.vjp(func, z)[1](v))
    same(pb.jvp(func, (z,), (1j * z,)), torch.func.jvp(func, (z,), (1j * z,)))


def test_no_random_number_is_drawn_beyond_those_of_func() -> None:
    def noisy(x: Tensor) -> Tensor:
        return x * torch.rand_like(x)

    x = rand(5)
    for product in (
        lambda: pb.jvp(noisy, (x,), (x,))[1],
        lambda: pb.vjp(noisy, x)[1](x)[0],
        lambda: x * torch.rand_like(x),
    ):
        torch.manual_seed(3)
        first, state = product(), torch.get_rng_state()
        torch.manual_seed(3)
        assert_close(first, x * torch.rand_like(x))
        assert torch.equal(state, torch.get_rng_state())


# Derivatives of products.


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(rand(3, 3, seed=7))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.weight).sin() * x


def _loss_of_pull(vjp: Callable[..., Any], model: Model, x: Tensor, v: Tensor) -> Tensor:
    out, pull = vjp(model, x)
    return (pull(v)[0] ** 2).sum() + out.sum()


@pytest.mark.parametrize("leaf", [True, False], ids=["leaf", "not-leaf"])
def test_double_backward_through_pull_reaches_primals_parameters_and_cotangents(leaf: bool) -> None:
    found = []
    for vjp in (pb.vjp, torch.func.vjp):
        model, x, v = Model(), rand(2, 3).requires_grad_(), rand(2, 3, seed=1).requires_grad_()
        loss = _loss_of_pull(vjp, model, x if leaf else x * 1, v)
        found.append(torch.autograd.grad(loss, (x, v, model.weight)))
    same(*found)


def test_double_backward_through_jvp_reaches_primals_parameters_and_tangents() -> None:
    found = []
    for jvp in (pb.jvp, torch.func.jvp):
        model, x, t = Model(), rand(2, 3).requires_grad_(), rand(2, 3, seed=1).requires_grad_()
        out, pushed = jvp(model, (x,), (t,))
        loss = (pushed**2).sum() + out.sum()
        found.append(torch.autograd.grad(loss, (x, t, model.weight)))
    same(*found)


@pytest.mark.parametrize("primal", [False, True])
@pytest.mark.parametrize("cotangent", [False, True])
@pytest.mark.parametrize("parameter", [False, True])
@pytest.mark.parametrize("enabled", [False, True])
def test_requires_grad_is_that_of_torch_func(
    primal: bool, cotangent: bool, parameter: bool, enabled: bool
) -> None:
    model = Model()
    model.weight.requires_grad_(parameter)
    x, v = rand(2, 3).requires_grad_(primal), rand(2, 3, seed=1).requires_grad_(cotangent)
    with torch.set_grad_enabled(enabled):
        out, pull = pb.vjp(model, x)
        expected, torch_pull = torch.func.vjp(model, x)
        same(out, expected)
        same(pull(v), torch_pull(v))
        same(pb.jvp(model, (x,), (v,)), torch.func.jvp(model, (x,), (v,)))


def test_a_product_that_no_outside_tensor_enters_has_no_graph() -> None:
    x, bias = rand(3), rand(3, seed=1).requires_grad_()
    _, pull = pb.vjp(lambda x: x.sin() + bias, x)
    _, torch_pull = torch.func.vjp(lambda x: x.sin() + bias, x)
    same(pull(x), torch_pull(x))
    same(pull.batched(torch.diag(x)), torch.func.vmap(torch_pull)(torch.diag(x)))


def test_create_graph_false_cuts_and_true_keeps() -> None:
    x = rand(3).requires_grad_()
    _, pull = pb.vjp(torch.sin, x)
    assert not pull(torch.ones_like(x), create_graph=False)[0].requires_grad
    with torch.no_grad():
        assert not pull(torch.ones_like(x))[0].requires_grad
        assert pull(torch.ones_like(x), create_graph=True)[0].requires_grad


def test_a_freed_graph_says_so() -> None:
    x = rand(3)
    _, pull = pb.vjp(torch.sin, x)
    pull(x, retain_graph=False)
    with pytest.raises(RuntimeError, match="second time"):
        pull(x)
    with pytest.raises(RuntimeError, match="second time"):
        pull.batched(torch.stack([x, x]))


def sines(x: Tensor) -> Tensor:
    return x.sin() * x.cumsum(0)


TRANSFORMS: dict[str, Callable[[Any, Any, Tensor, Tensor], Any]] = {
    "vmap of vjp": lambda vjp, jvp, x, v: torch.func.vmap(lambda t: vjp(sines, t)[1](v))(
        torch.stack([x, v])
    ),
    "vmap of jvp": lambda vjp, jvp, x, v: torch.func.vmap(lambda t: jvp(sines, (t,), (v,))[1])(
        torch.stack([x, v])
    ),
    "grad of vjp": lambda vjp, jvp, x, v: torch.func.grad(lambda t: vjp(sines, t)[1](v)[0].sum())(
        x
    ),
    "grad of jvp": lambda vjp, jvp, x, v: torch.func.grad(
        lambda t: jvp(sines, (t,), (v,))[1].sum()
    )(x),
    "jvp of vjp": lambda vjp, jvp, x, v: torch.func.jvp(lambda t: vjp(sines, t)[1](v), (x,), (v,)),
    "vjp of grad": lambda vjp, jvp, x, v: vjp(torch.func.grad(lambda t: sines(t).sum()), x)[1](v),
    "jvp of grad": lambda vjp, jvp, x, v: jvp(
        torch.func.grad(lambda t: sines(t).sum()), (x,), (v,)
    ),
    "vjp of vjp": lambda vjp, jvp, x, v: vjp(lambda t: vjp(sines, t)[1](v)[0], x)[1](v),
    "jvp of jvp": lambda vjp, jvp, x, v: jvp(lambda t: jvp(sines, (t,), (v,))[1], (x,), (v,)),
    "jvp of own vjp": lambda vjp, jvp, x, v: jvp(lambda t: vjp(sines, t)[1](v)[0], (x,), (v,)),
    "vjp of jvp": lambda vjp, jvp, x, v: vjp(lambda t: jvp(sines, (t,), (v,))[1], x)[1](v),
    "vjp of a hessian": lambda vjp, jvp, x, v: vjp(
        lambda t: torch.func.hessian(lambda s: sines(s).sum())(t) @ v, x
    )[1](v),
    "vmap of pull": lambda vjp, jvp, x, v: torch.func.vmap(vjp(sines, x)[1])(torch.diag(v)),
    "jvp of pull": lambda vjp, jvp, x, v: torch.func.jvp(
        lambda w: vjp(sines, x)[1](w)[0], (v,), (x,)
    ),
    "jacrev of vjp": lambda vjp, jvp, x, v: torch.func.jacrev(lambda t: vjp(sines, t)[1](v)[0])(x),
    "jacfwd of vjp": lambda vjp, jvp, x, v: torch.func.jacfwd(lambda t: vjp(sines, t)[1](v)[0])(x),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_under_and_over_transforms(name: str) -> None:
    x, v = rand(4), rand(4, seed=1)
    program = TRANSFORMS[name]
    same(program(pb.vjp, pb.jvp, x, v), program(torch.func.vjp, torch.func.jvp, x, v))


def test_a_pull_made_outside_a_transform_is_differentiable_inside() -> None:
    x, v, t = rand(4), rand(4, seed=1), rand(4, seed=2)
    values = []
    for vjp in (pb.vjp, torch.func.vjp):
        _, pull = vjp(sines, x)
        rows = torch.func.vmap(pull)(torch.diag(v))
        assert not rows[0].requires_grad
        gradient = torch.func.grad(lambda w, pull=pull: (pull(w)[0] * t).sum())(v)
        rowwise = torch.func.vmap(torch.func.grad(lambda w, pull=pull: (pull(w)[0] * t).sum()))(
            torch.stack([v, t])
        )
        pushed = torch.func.jvp(lambda w, pull=pull: pull(w)[0], (v,), (t,))
        values.append((rows, gradient, rowwise, pushed))
    assert_close(*values)


NESTED: dict[str, Callable[[Any, Tensor, Tensor], Any]] = {
    "vmap in grad": lambda pull, v, t: torch.func.grad(
        lambda w: (torch.func.vmap(pull)(torch.stack([w, 2 * w]))[0] * t).sum()
    )(v),
    "vmap of products in grad": lambda pull, v, t: torch.func.grad(
        lambda w: torch.func.vmap(lambda s: pull(w * s)[0] @ t)(t).sum()
    )(v),
    "jvp in grad": lambda pull, v, t: torch.func.grad(
        lambda w: torch.func.jvp(lambda s: pull(w * s)[0], (t,), (t,))[1] @ t
    )(v),
    "grad in jvp": lambda pull, v, t: torch.func.jvp(
        lambda w: torch.func.grad(lambda s: pull(w * s)[0] @ t)(t), (v,), (t,)
    ),
    "grad in grad": lambda pull, v, t: torch.func.grad(
        lambda w: torch.func.grad(lambda s: pull(w * s)[0] @ (t * s))(t).sum()
    )(v),
    "grad in vmap in grad": lambda pull, v, t: torch.func.grad(
        lambda w: torch.func.vmap(torch.func.grad(lambda s: pull(w * s)[0] @ (t * s)))(
            torch.stack([t, v])
        ).sum()
    )(v),
}


@pytest.mark.parametrize("name", NESTED)
def test_a_pull_made_outside_nested_transforms_is_never_cut(name: str) -> None:
    x, v, t = rand(4), rand(4, seed=1), rand(4, seed=2)
    found = [NESTED[name](vjp(sines, x)[1], v, t) for vjp in (pb.vjp, torch.func.vjp)]
    assert_close(*found)


def test_forward_mode_through_pull_and_vjp() -> None:
    from torch.autograd import forward_ad

    x, t = rand(4), rand(4, seed=1)
    _, outside = pb.vjp(sines, x)
    expected = torch.func.jvp(lambda w: outside(w)[0], (x,), (t,))[1]
    curved = torch.func.jvp(lambda s: torch.func.vjp(sines, s)[1](x)[0], (x,), (t,))[1]
    with forward_ad.dual_level():
        through = forward_ad.unpack_dual(outside(forward_ad.make_dual(x, t))[0])
        assert_close(through.tangent, expected)
        _, inside = pb.vjp(sines, forward_ad.make_dual(x, t))
        assert_close(forward_ad.unpack_dual(inside(x)[0]).tangent, curved)


def test_inference_mode() -> None:
    x = rand(3)
    with torch.inference_mode():
        out, pull = pb.vjp(torch.sin, x)
        assert_close(pull(x), (x * x.cos(),))
        assert_close(pull.batched(torch.diag(x)), (torch.diag(x * x.cos()),))
        assert_close(pb.jvp(torch.sin, (x,), (x,)), (x.sin(), x * x.cos()))
    assert_close(out, x.sin())


def test_compiled_in_one_graph() -> None:
    def both(x: Tensor, v: Tensor) -> Any:
        return pb.vjp(sines, x)[1](v), pb.jvp(sines, (x,), (v,))

    x, v = rand(4), rand(4, seed=1)
    compiled = torch.compile(both, backend="eager", fullgraph=True)
    assert_close(compiled(x, v), both(x, v))


# In-place changes, made by func and made later.


def doubled_in_place(x: Tensor) -> Tensor:
    x.mul_(2)
    return x.sin()


@pytest.mark.parametrize("kind", ["plain", "leaf", "not leaf"])
def test_vjp_refuses_a_func_that_changes_its_argument_as_torch_func_does(kind: str) -> None:
    x = rand(3) if kind == "plain" else rand(3).requires_grad_()
    x = x * 1 if kind == "not leaf" else x
    before = x.detach().clone()
    for vjp in (torch.func.vjp, pb.vjp):
        with pytest.raises(RuntimeError, match=r"in-place operation|modified inplace") as refusal:
            vjp(doubled_in_place, x)
        assert torch.equal(x, before)
    assert refusal.value.__notes__ == [
        "If the tensor changed in place is an argument of func, let func work on a copy: "
        "x = x.clone(). A derivative is taken at the value that func was given."
    ]


def test_jvp_hands_a_func_that_changes_its_argument_to_torch_func() -> None:
    def noisy(x: Tensor) -> Tensor:
        noise = torch.rand_like(x)
        x.mul_(2)
        return x.sin() * noise

    found = []
    for jvp in (pb.jvp, torch.func.jvp):
        x = rand(3)
        torch.manual_seed(0)
        found.append((jvp(noisy, (x,), (torch.ones_like(x),)), x))
    same(*found)


def test_changing_an_output_in_place_leaves_the_pullback_alone() -> None:
    x = rand(3).requires_grad_()
    out, pull = pb.vjp(lambda x: x * 2, x)
    with torch.no_grad():
        out.mul_(3)
    out.add_(1).mul_(5)
    ones = torch.ones_like(x)
    assert_close(pull(ones)[0].detach(), 2 * ones.detach())
    assert_close(pull.batched(torch.eye(3, dtype=x.dtype))[0].detach(), 2 * torch.eye(3).double())
    plain, pull = pb.vjp(lambda x: x * 2, x.detach())
    plain.mul_(3)
    assert_close(pull(ones)[0], 2 * ones.detach())


def test_changing_a_saved_output_in_place_is_refused_not_ignored() -> None:
    out, pull = pb.vjp(torch.exp, rand(3))
    out.mul_(3)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        pull(torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("leaf", [True, False])
def test_an_optimizer_step_on_a_primal_leaves_a_linear_pullback_alone(leaf: bool) -> None:
    x = rand(3).requires_grad_()
    x = x if leaf else x * 1
    _, pull = pb.vjp(lambda x: x * 2, x)
    with torch.no_grad():
        x.add_(1)
    assert_close(pull(torch.ones(3).double())[0].detach(), torch.full((3,), 2.0).double())


# Backward passes that torch cannot differentiate, or differentiates wrongly.


class HiddenSquare(torch.autograd.Function):
    """A backward that leaves autograd: differentiating it again sees a constant."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x**2

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0].detach() * grad.detach()

    @staticmethod
    def jvp(ctx: Any, t: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * t


class OnceSquare(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * grad


@pytest.mark.parametrize("beside", [0.0, 3.0], ids=["alone", "beside another path"])
def test_a_hidden_backward_is_found_out_and_forward_mode_takes_over(beside: float) -> None:
    x, t = rand(4), rand(4, seed=1)

    def func(x: Tensor) -> Tensor:
        return HiddenSquare.apply(x) + beside * x * torch.rand(())

    torch.manual_seed(0)
    ours = pb.jvp(func, (x,), (t,))
    torch.manual_seed(0)
    same(ours, torch.func.jvp(func, (x,), (t,)))


def test_a_jvp_that_torch_can_compute_neither_way_is_refused_with_both_reasons() -> None:
    x = rand(4)
    with pytest.raises(pb.UnsupportedError) as refusal:
        pb.jvp(lambda x: OnceSquare.apply(x) + x, (x,), (x,))
    first, backward, forward, remedy = str(refusal.value).splitlines()
    assert first == "jvp: torch can push this tangent through `func` neither way."
    assert backward == (
        "  Through the backward pass: a part of the backward pass does not show up when it is "
        "differentiated again; a backward that computes outside autograd, or one that is not "
        "linear in its cotangent, does that."
    )
    assert forward.startswith("  Through forward mode: In order to use an autograd.Function with")
    assert remedy == (
        "Write the backward of custom Functions with differentiable torch operations, or give "
        "them a static method jvp."
    )


def test_a_jvp_that_only_forward_mode_can_do_is_handed_to_it() -> None:
    x, target, weight = rand(3), torch.ones(3).double(), rand(3, seed=1).abs()

    def func(x: Tensor, weight: Tensor) -> Tensor:
        return torch.nn.functional.binary_cross_entropy_with_logits(x, target, weight)

    same(pb.jvp(func, (x, weight), (x, 0 * x)), torch.func.jvp(func, (x, weight), (x, 0 * x)))


def test_a_double_backward_that_is_not_finite_where_the_backward_is_gives_way() -> None:
    x = torch.zeros(3, dtype=torch.float64)

    def cubic_norm(x: Tensor) -> Tensor:
        return torch.linalg.vector_norm(x, ord=3)

    same(pb.jvp(cubic_norm, (x,), (x + 1,)), (x.sum(), x.sum()))
    assert pb.jvp(torch.sqrt, (x,), (x + 1,))[1].isinf().all()


def test_strict_refuses_an_output_that_ignores_the_primals() -> None:
    x = rand(2)
    with pytest.raises(RuntimeError, match="independent of the inputs"):
        pb.jvp(lambda x: (x, torch.ones(2)), (x,), (x,), strict=True)


# Batches.


def test_a_batch_says_which_engine_ran() -> None:
    x = rand(3)
    _, pull = pb.vjp(torch.sin, x)
    assert (pull.engine, pull.notes) == (None, ())
    (rows,) = pull.batched(pb.cotangents.basis(x))
    assert_close(rows, torch.diag(x.cos()))
    assert (pull.engine, pull.notes) == (_engines.ORDER[0], ())


def test_a_batch_has_the_structure_of_the_primals() -> None:
    params = {"w": rand(2, 3), "b": rand(2, seed=1)}
    _, pull = pb.vjp(lambda p, x: p["w"] @ x + p["b"], params, rand(3))
    gradients, at_x = pull.batched(torch.eye(2, dtype=torch.float64))
    assert gradients["w"].shape == (2, 2, 3)
    assert gradients["b"].shape == (2, 2)
    assert at_x.shape == (2, 3)


def test_a_batch_of_none() -> None:
    _, pull = pb.vjp(torch.sin, rand(3))
    assert pull.batched(torch.zeros(0, 3, dtype=torch.float64))[0].shape == (0, 3)


def test_a_batch_is_differentiable_where_a_product_is() -> None:
    x = rand(3).requires_grad_()
    _, pull = pb.vjp(torch.exp, x)
    (rows,) = pull.batched(torch.eye(3, dtype=torch.float64))
    assert_close(torch.autograd.grad(rows.sum(), x)[0], x.exp().detach())


def test_a_batch_inside_a_transform() -> None:
    def rows(x: Tensor) -> Tensor:
        return pb.vjp(sines, x)[1].batched(torch.eye(3, dtype=torch.float64))[0]

    x = torch.stack([rand(3), rand(3, seed=1)])
    assert_close(torch.func.vmap(rows)(x), torch.func.vmap(torch.func.jacrev(sines))(x))


# Refusals.


def refuses(kind: type[Exception], text: str, call: Callable[[], object]) -> None:
    with pytest.raises(kind, match=f"^{re.escape(text)}$"):
        call()


def test_refusals_of_primals() -> None:
    refuses(
        pb.TreeError,
        "vjp: `primals[1]` is a float, not a tensor. Pass a tensor, or a tuple, list or dict of "
        "tensors.",
        lambda: pb.vjp(torch.mul, rand(2), 2.0),
    )
    refuses(
        pb.TreeError,
        "vjp: `primals` holds no tensors. Pass at least one.",
        lambda: pb.vjp(lambda: rand(2)),
    )
    refuses(
        pb.ArgumentError,
        "vjp: `primals[0]` has dtype int64, and only floating point and complex tensors can be "
        "differentiated. Convert it with .float() or .double(), or close over it: "
        "lambda x: func(x, primals[0]).",
        lambda: pb.vjp(torch.sin, torch.arange(3)),
    )
    refuses(
        pb.TreeError,
        "jvp: `primals` is a tensor, not a tuple; `func` is called as func(*primals). Write (x,) "
        "for a single argument.",
        lambda: pb.jvp(torch.sin, rand(2), rand(2)),
    )


def test_refusals_of_what_func_returns() -> None:
    x = rand(2)
    advice = (
        "Return tensors only; what is not to be differentiated goes into aux: return output, aux "
        "with has_aux=True."
    )
    refuses(
        pb.TreeError,
        f"vjp: `func` returned None, not a tensor. {advice}",
        lambda: pb.vjp(lambda x: None, x),
    )
    refuses(
        pb.TreeError,
        f"vjp: `func` returned a float at [output]['a'], not a tensor. {advice}",
        lambda: pb.vjp(lambda x: {"a": 2.0}, x),
    )
    refuses(
        pb.TreeError,
        "vjp: `func` returned no tensors. Return at least one.",
        lambda: pb.vjp(lambda x: (), x),
    )
    refuses(
        pb.ArgumentError,
        "vjp: `out[1]`, an output of `func`, has dtype int64, and only floating point and complex "
        "tensors have derivatives. Return it as aux with has_aux=True, or return the values before "
        "they were rounded or compared.",
        lambda: pb.vjp(lambda x: (x, x.long()), x),
    )
    for returned, found in ((x, "a tensor"), ((x, x, x), "a tuple of 3"), ([x, x], "a list")):
        refuses(
            pb.TreeError,
            "vjp: with has_aux=True `func` must return a tuple (output, aux), but it returned "
            f"{found}. Return both, or leave has_aux out.",
            lambda returned=returned: pb.vjp(lambda x: returned, x, has_aux=True),
        )


def test_refusals_of_cotangents() -> None:
    x = rand(2, 3)
    _, pull = pb.vjp(lambda x: x.t().sin(), x)
    refuses(
        pb.CotangentError,
        "pull: the cotangent `cotangents` has shape (2, 3), but `out` has shape (3, 2); the two "
        "are paired entry by entry. They differ at axis 0 (2 against 3) and axis 1 (3 against 2). "
        "Write cotangents.t() if its rows are the columns of `out`, or cotangents.reshape((3, 2)) "
        "if its entries are already in C order.",
        lambda: pull(x),
    )
    refuses(
        pb.CotangentError,
        "pull: `out` has shape (3, 2): 6 numbers, not one, so there are 6 gradients, one per "
        "entry. `cotangents` must say which weighted sum of them is meant, with one weight per "
        "entry. For instance:\n  pull(torch.ones_like(out))\n      the gradient of out.sum()",
        lambda: pull(None),
    )
    refuses(
        pb.CotangentError,
        "pull: the cotangent `cotangents` for `out` is a float, not a tensor. Write "
        "torch.full_like(out, value) for one weight everywhere.",
        lambda: pull(2.0),
    )
    refuses(
        pb.CotangentError,
        "pull: `cotangents` is laid out as (tensor,), but the outputs are laid out as tensor; the "
        "two are paired leaf by leaf. Pass one cotangent per output, in the same structure.",
        lambda: pull((x,)),
    )
    refuses(
        pb.CotangentError,
        "pull: the cotangent `cotangents` has dtype complex128, but `out` has dtype float64. Write "
        "cotangents.to(out.dtype).",
        lambda: pull(x.t() * 1j),
    )
    assert_close(pb.vjp(torch.sum, x)[1](None), (torch.ones_like(x),))


def test_refusals_of_batches() -> None:
    x = rand(3)
    _, pull = pb.vjp(lambda x: (x.sin(), x.sum()), x)
    eye = torch.eye(3, dtype=x.dtype)
    refuses(
        pb.CotangentError,
        "pull.batched: `cotangents` is laid out as tensor, but the outputs are laid out as "
        "(tensor, tensor); the two are paired leaf by leaf. Pass one batch of cotangents per "
        "output, in the same structure.",
        lambda: pull.batched(eye),
    )
    refuses(
        pb.CotangentError,
        "pull.batched: the batch `cotangents[0]` for `out[0]` is None, not a tensor. Stack the "
        "cotangents along a new leading axis with torch.stack.",
        lambda: pull.batched((None, x)),
    )
    refuses(
        pb.CotangentError,
        "pull.batched: the batch `cotangents[0]` has shape (3,), but B cotangents for `out[0]` "
        "have shape (B, 3): a leading axis, then the shape of `out[0]`. Write "
        "cotangents[0].unsqueeze(0) for this one cotangent.",
        lambda: pull.batched((x, x)),
    )
    refuses(
        pb.CotangentError,
        "pull.batched: the batch `cotangents[1]` has shape (3, 3), but B cotangents for `out[1]` "
        "have shape (B,): a leading axis, then the shape of `out[1]`. Write "
        "pb.cotangents.basis(out[1]) for all rows of J.",
        lambda: pull.batched((eye, eye)),
    )
    refuses(
        pb.CotangentError,
        "pull.batched: the batch `cotangents[1]` holds 2 cotangents, but the batches before it "
        "hold 3; product k takes entry k of each. Give every output the same number.",
        lambda: pull.batched((eye, x[:2])),
    )
    refuses(
        pb.CotangentError,
        "pull.batched: the batch `cotangents[0]` has dtype complex128, but `out[0]` has dtype "
        "float64. Write cotangents[0].to(out[0].dtype).",
        lambda: pull.batched((eye * 1j, x)),
    )
    refuses(
        pb.ArgumentError,
        "pull.batched: `chunk_size` is 0; it must be a positive whole number, or None for all "
        "products at once.",
        lambda: pull.batched((eye, x), chunk_size=0),
    )


def test_refusals_of_tangents() -> None:
    x = rand(2, 3)
    refuses(
        pb.TreeError,
        "jvp: `tangents` is laid out as tensor, but `primals` is laid out as (tensor,); the two "
        "are paired leaf by leaf. Pass one tangent per primal, in the same structure.",
        lambda: pb.jvp(torch.sin, (x,), x),
    )
    refuses(
        pb.ArgumentError,
        "jvp: the tangent `tangents[0]` has shape (3,), but `primals[0]` has shape (2, 3); the two "
        "are paired entry by entry. One has 1 axis, the other 2 axes. Write "
        "tangents[0].expand((2, 3)) to repeat it along the missing axes.",
        lambda: pb.jvp(torch.sin, (x,), (x[0],)),
    )
    refuses(
        pb.TreeError,
        "jvp: the tangent `tangents[1]` for `primals[1]` is None, not a tensor. Write "
        "torch.zeros_like(primals[1]) to hold that argument fixed.",
        lambda: pb.jvp(torch.mul, (x, x), (x, None)),
    )
    refuses(
        pb.ArgumentError,
        "jvp: `primals[0]` has dtype int64, and only floating point and complex tensors can be "
        "differentiated. Convert it with .float() or .double(), or close over it: "
        "lambda x: func(x, primals[0]).",
        lambda: pb.jvp(torch.sin, (torch.arange(3),), (torch.arange(3),)),
    )


def test_a_pullback_prints_the_shapes_it_takes() -> None:
    _, pull = pb.vjp(lambda x: (x, x.sum()), rand(3))
    assert repr(pull) == "VJP(cotangents of shape (3,), ())"


def scattered(x: Tensor) -> Tensor:
    return torch.as_strided_scatter(x[0, 0], x[1, 1] * x[0, 0], (), (), 0)


@pytest.mark.parametrize(
    ("func", "node"),
    [
        (lambda x: torch.cdist(x, x.flip(0) + 1, p=3), "CdistBackward0"),
        (scattered, "AsStridedScatterBackward0"),
    ],
    ids=["cdist", "as_strided_scatter"],
)
def test_a_rule_of_batching_that_is_wrong_is_left(func: Any, node: str) -> None:
    """Whatever torch 2.13 batches wrongly is looped over."""
    x = torch.rand(4, 2, dtype=torch.float64)
    out, pull = pb.vjp(func, x)
    batch = torch.rand(3, *out.shape, dtype=torch.float64)
    expected = torch.stack([pull(v)[0] for v in batch])
    assert_close(pull.batched(batch)[0], expected)
    assert pull.engine == "loop"
    assert node in pull.notes[0]


def test_wrong_rules_of_batching_are_left_inside_transforms() -> None:
    x = torch.rand(4, 2, dtype=torch.float64)
    batch = torch.arange(1.0, 4.0, dtype=torch.float64)

    def rows(x: Tensor) -> Any:
        pull = pb.vjp(scattered, x)[1]
        found, expected = pull.batched(batch)[0], torch.stack([pull(v)[0] for v in batch])
        return found.sum(), (found, expected)

    def matrix(x: Tensor) -> Any:
        found = pb.jacobian(lambda x: scattered(x) * batch)(x)
        return found.sum(), (found, batch[:, None, None] * pb.vjp(scattered, x)[1](batch[0])[0])

    for func in (rows, matrix):
        _, (found, expected) = torch.func.grad(func, has_aux=True)(x)
        assert_close(found, expected)


def test_wrong_rules_of_batching_are_left_where_weightings_are_compared() -> None:
    x = torch.rand(4, 2, dtype=torch.float64, requires_grad=True)
    out = torch.cdist(x, x.detach().flip(0) + 1, p=3)
    weights = {name: torch.rand(4, 4, dtype=torch.float64) for name in "ab"}
    found = pb.sensitivity(out, x, weights)
    for name, v in weights.items():
        (gradient,) = torch.autograd.grad(out, x, v, retain_graph=True)
        assert found.totals[name] == pytest.approx(float(gradient.sum()))
