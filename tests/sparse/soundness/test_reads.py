"""Rule 3: data that leave the tensors are never baked in, whatever way they take."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import pullback as pb

from .reference import CSR, assert_right, engines, matrix_of, whole


def stored(x: Tensor) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(x.storage())


def pickled(x: Tensor) -> Tensor:
    return pickle.loads(pickle.dumps(x))


def saved(x: Tensor) -> Tensor:
    file = io.BytesIO()
    torch.save(x, file)
    file.seek(0)
    return torch.load(file)


def with_new_data(x: Tensor) -> Tensor:
    y = torch.zeros(4)
    y.data = x * 2
    return y


def written_through_data(x: Tensor) -> Tensor:
    y = torch.zeros(4)
    y.data.copy_(x)
    return y


def written_through_numpy(x: Tensor) -> Tensor:
    y = torch.empty(4)
    y.numpy()[:] = x.numpy()
    return y


def set_to(x: Tensor) -> Tensor:
    y = torch.zeros(4)
    y.set_(x)
    return y


READS: dict[str, Callable[[Tensor], Any]] = {
    "float": lambda x: float(x.sum()),
    "item": lambda x: x[0].item(),
    "int": lambda x: int(10 * x.sum()),
    "branch": lambda x: 2.0 if x.sum() > 1 else 3.0,
    "tolist": lambda x: torch.tensor(x.tolist()),
    "numpy": lambda x: torch.from_numpy(x.numpy().copy()),
    "asarray": lambda x: torch.from_numpy(np.asarray(x) * 2),
    "np.sin": lambda x: torch.from_numpy(np.sin(x.numpy())),
    "dlpack": lambda x: torch.from_numpy(np.from_dlpack(x).copy()),
    "from_dlpack": lambda x: torch.from_dlpack(x).clone(),
    "storage": lambda x: torch.tensor(stored(x)),
    "pickle": pickled,
    "torch.save": saved,
    "deepcopy": copy.deepcopy,
    "format": lambda x: float(f"{x[0]}"),
    "repr": lambda x: float(repr(x).split("[")[1].split(",")[0]),
    "str": lambda x: float(str(x).split("[")[1].split(",")[0]),
    "torch.tensor of numbers": lambda x: torch.tensor([x[0], x[1], x[2], x[3]]),
    "torch.as_tensor of numbers": lambda x: torch.as_tensor(list(x)),
    "torch.Tensor of numbers": lambda x: torch.Tensor(list(x)),
    "np.array of numbers": lambda x: torch.from_numpy(np.array([float(t) for t in x])),
    "equal": lambda x: 2.0 if torch.equal(x, torch.zeros(4)) else 3.0,
    "allclose": lambda x: 2.0 if torch.allclose(x, torch.zeros(4)) else 3.0,
    "in": lambda x: 2.0 if 0.0 in x else 3.0,
    "max of python": lambda x: max(x.unbind()),
    "index": lambda x: x[int(x.argmax())],
    "0-d index": lambda x: x[x.argmax()],
    "slice": lambda x: x[: (x > 0.5).sum()].sum(),
    "full": lambda x: torch.full((4,), float(x.sum())),
    "alpha": lambda x: torch.add(x, x, alpha=x[0].item()),
    "linspace": lambda x: torch.linspace(x[0], x[1], 4),
    "data": lambda x: x.data * 1.0,
    "data set": with_new_data,
    "data written": written_through_data,
    "numpy written": written_through_numpy,
    "set_": set_to,
    "hash": lambda x: float(hash(x.sum().item()) % 7),
    "bool list": lambda x: torch.tensor([2.0 if t > 0.5 else 3.0 for t in x]),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
@pytest.mark.parametrize("start", [0.0, 0.3], ids=["planned at zeros", "planned elsewhere"])
def test_a_read_of_data_that_vary(read: Callable[[Tensor], Any], start: float) -> None:
    def func(x: Tensor) -> Tensor:
        return x * (1 + read(x.detach()))

    sample = torch.full((4,), start) + (torch.arange(4.0) * 0.1 if start else 0)
    own = pb.jacobian(func, layout=CSR)
    given = pb.jacobian(func, plan=pb.plan_jacobian(func, sample))
    for x, grad in ((sample, True), (torch.rand(4) + 0.5, True), (torch.rand(4), False)):
        expected = matrix_of(func, x)
        with torch.set_grad_enabled(grad):
            assert_close(whole(own(x)), expected)
            assert_close(whole(given(x)), expected)


def test_an_address() -> None:
    def func(x: Tensor) -> Tensor:
        return x * (2.0 if x.data_ptr() % 64 >= 0 else 3.0)

    assert engines(func, torch.rand(4)) == "function"


def test_a_number_passed_as_a_tensor_argument() -> None:
    def func(x: Tensor, dt: Tensor) -> Tensor:
        return x**2 * float(dt)

    jac = pb.jacobian(func, layout=CSR)
    x = torch.rand(4)
    for dt in (0.1, 0.2):
        assert_right(jac, func, x, torch.tensor(dt))


def test_a_read_that_does_not_vary_is_read_again() -> None:
    scale = torch.tensor([2.0, 3.0])

    def func(x: Tensor) -> Tensor:
        return x**2 * float(scale[0]) if scale.sum() > 1 else x**3

    own = pb.jacobian(func, layout=CSR)
    given = pb.jacobian(func, plan=pb.plan_jacobian(func, torch.rand(4)))
    x = torch.rand(4)
    for change in (lambda: None, lambda: scale.mul_(2), lambda: scale.data.zero_(), scale.zero_):
        change()
        for jac in (own, given):
            assert_right(jac, func, x)


def test_a_counter_that_a_layer_reads() -> None:
    """With ``momentum=None``, BatchNorm turns its counter into a Python float."""
    layer = nn.BatchNorm1d(4, momentum=None)
    X = torch.rand(3, 4)
    for jac in (
        pb.jacobian(layer, layout=CSR),
        pb.jacobian(layer, plan=pb.plan_jacobian(layer, X)),
    ):
        for _ in range(3):
            state = {k: v.clone() for k, v in layer.state_dict().items()}
            expected = matrix_of(layer, X)
            after = {k: v.clone() for k, v in layer.state_dict().items()}
            layer.load_state_dict(state)
            assert_close(whole(jac(X)), expected)
            assert_close(dict(layer.state_dict()), after)


def test_printing_alone_does_no_harm(capsys: pytest.CaptureFixture[str]) -> None:
    def func(x: Tensor) -> Tensor:
        print(x.detach())
        return x**2

    jac = pb.jacobian(func, layout=CSR)
    for _ in range(2):
        assert_right(jac, func, torch.rand(4))
    assert "tensor" in capsys.readouterr().out


def test_a_function_that_fails_only_beside_the_point() -> None:
    """The second point that a capture is tried at is the library's idea, not the user's."""
    table = torch.rand(4, 3)

    def guarded(x: Tensor) -> Tensor:
        if x.max() > 2:
            raise ValueError("out of domain")
        return torch.cat([x**2 * x.sum(), x, x * x[0]])

    cases: list[tuple[Callable[..., Any], Tensor]] = [
        (torch.linalg.cholesky, torch.tensor([[1.0, 1.0], [1.0, 1 + 1e-7]])),
        (lambda x: table[x.long()] * x[:, None], torch.tensor([3.99, 2.0, 1.99])),
        (guarded, torch.tensor([2.0, 1.0])),
    ]
    for func, x in cases:
        assert_right(pb.jacobian(func, layout=CSR), func, x, close=1e-5)
        pb.plan_jacobian(func, x)
