"""Programs whose backward is asked twice, has no graph, or lacks its cotangent."""

from __future__ import annotations

from itertools import pairwise

import torch

from .case import Case

CASES = [
    Case(
        "same_loss_twice",
        "freed_graph",
        """
        x = torch.tensor([0.0, 1.0], requires_grad=True)
        loss = x.exp().sum()
        loss.backward()  # <- here
        loss.backward()
        """,
        """
        x = torch.tensor([0.0, 1.0], requires_grad=True)
        loss = x.exp().sum()
        loss.backward(retain_graph=True)
        loss.backward()
        answer = x.grad
        """,
        lambda n: 2 * n["x"].exp(),
        ("ExpBackward0", "`result`", "Leave out one of the two", "same_loss_twice.py:5"),
    ),
    Case(
        "loss_in_a_loop",
        "freed_graph",
        """
        w = torch.tensor([1.0, 2.0], requires_grad=True)
        loss = w.square().sum()
        for _ in range(2):
            loss.backward()  # <- here
        """,
        """
        w = torch.tensor([1.0, 2.0], requires_grad=True)
        for _ in range(2):
            loss = w.square().sum()
            loss.backward()
        answer = w.grad
        """,
        lambda n: 4 * n["w"].detach(),
        ("more than once", "move the forward into the loop", "loss_in_a_loop.py:5"),
        in_prose=True,
    ),
    Case(
        "two_losses",
        "freed_graph",
        """
        x = torch.tensor([0.0, 1.0], requires_grad=True)
        trunk = x.exp()
        first = trunk.sum()
        second = trunk.square().sum()
        first.backward()  # <- here
        second.backward()
        """,
        """
        x = torch.tensor([0.0, 1.0], requires_grad=True)
        trunk = x.exp()
        first = trunk.sum()
        second = trunk.square().sum()
        (first + second).backward()
        answer = x.grad
        """,
        lambda n: n["x"].exp() + 2 * (2 * n["x"]).exp(),
        ("ExpBackward0", "`result`", "two_losses.py:5", "retain_graph=True"),
    ),
    Case(
        "losses_in_a_loop",
        "freed_graph",
        """
        x = torch.tensor([0.0, 1.0], requires_grad=True)
        trunk = x.exp()
        losses = [trunk.sum(), trunk.square().sum()]
        for loss in losses:
            loss.backward()  # <- here
        """,
        """
        x = torch.tensor([0.0, 1.0], requires_grad=True)
        trunk = x.exp()
        losses = [trunk.sum(), trunk.square().sum()]
        for loss in losses:
            loss.backward(retain_graph=True)
        answer = x.grad
        """,
        lambda n: n["x"].exp() + 2 * (2 * n["x"]).exp(),
        ("one forward", "Add the outputs up"),
    ),
    Case(
        "hidden_state",
        "freed_graph",
        """
        w = torch.tensor(0.5, requires_grad=True)
        h = torch.zeros(())
        for step in range(3):
            h = torch.tanh(w * h + 1)  # <- here
            loss = h.square()
            loss.backward()
        """,
        """
        w = torch.tensor(0.5, requires_grad=True)
        h = torch.zeros(())
        for step in range(3):
            h = h.detach()
            h = torch.tanh(w * h + 1)
            loss = h.square()
            loss.backward()
        answer = w.grad
        """,
        lambda n: sum(2 * h * (1 - h**2) * before for before, h in _states(0.5)),
        ("TanhBackward0", "MulBackward0", "Detach"),
    ),
    Case(
        "lstm_state",
        "freed_graph",
        """
        rnn = nn.LSTM(2, 2)
        head = torch.ones(2, requires_grad=True)
        state = None
        for step in range(2):
            out, state = rnn(torch.ones(1, 1, 2), state)  # <- here
            (out * head).sum().backward()
        """,
        """
        rnn = nn.LSTM(2, 2)
        head = torch.ones(2, requires_grad=True)
        state = None
        outs = []
        for step in range(2):
            out, state = rnn(torch.ones(1, 1, 2), state)
            state = tuple(part.detach() for part in state)
            outs.append(out.detach().reshape(2))
            (out * head).sum().backward()
        answer = head.grad
        """,
        lambda n: n["outs"][0] + n["outs"][1],
        ("Detach the state",),
    ),
    Case(
        "computed_once",
        "freed_graph",
        """
        v = torch.tensor([3.0, 4.0], requires_grad=True)
        w = v / v.norm()  # <- here
        for step in range(2):
            loss = (w * torch.tensor([1.0, step])).sum()
            loss.backward()
        """,
        """
        v = torch.tensor([3.0, 4.0], requires_grad=True)
        for step in range(2):
            w = v / v.norm()
            loss = (w * torch.tensor([1.0, step])).sum()
            loss.backward()
        answer = v.grad
        """,
        lambda n: torch.tensor([(2 * 16 - 12) / 125, (9 - 2 * 12) / 125]),
        ("computed once", "for every pass"),
    ),
    Case(
        "under_no_grad",
        "no_graph",
        """
        w = torch.tensor([1.0, 2.0], requires_grad=True)
        with torch.no_grad():
            h = w * 3  # <- here
        loss = h.sum()
        loss.backward()
        """,
        """
        w = torch.tensor([1.0, 2.0], requires_grad=True)
        h = w * 3
        loss = h.sum()
        loss.backward()
        answer = w.grad
        """,
        lambda n: torch.full((2,), 3.0),
        ("`loss`", "torch.no_grad()", "leaf of its own"),
    ),
    Case(
        "under_inference_mode",
        "no_graph",
        """
        w = torch.tensor([1.0, 2.0], requires_grad=True)
        with torch.inference_mode():
            h = w * 3  # <- here
            loss = h.sum()
        loss.backward()
        """,
        """
        w = torch.tensor([1.0, 2.0], requires_grad=True)
        h = w * 3
        loss = h.sum()
        loss.backward()
        answer = w.grad
        """,
        lambda n: torch.full((2,), 3.0),
        ("inference_mode",),
    ),
    Case(
        "detached",
        "no_graph",
        """
        w = torch.tensor([1.0, 2.0], requires_grad=True)
        h = (w * w).detach()  # <- here
        loss = h.sum()
        loss.backward()
        """,
        """
        w = torch.tensor([1.0, 2.0], requires_grad=True)
        h = w * w
        loss = h.sum()
        loss.backward()
        answer = w.grad
        """,
        lambda n: 2 * n["w"].detach(),
        ("detach()",),
    ),
    Case(
        "data",
        "no_graph",
        """
        w = torch.tensor([1.0, 2.0], requires_grad=True)
        h = w.data * 2  # <- here
        torch.autograd.grad(h.sum(), w)
        """,
        """
        w = torch.tensor([1.0, 2.0], requires_grad=True)
        h = w * 2
        (answer,) = torch.autograd.grad(h.sum(), w)
        """,
        lambda n: torch.full((2,), 2.0),
        (".data",),
    ),
    Case(
        "argmax",
        "no_graph",
        """
        w = torch.tensor([1.0, 2.0], requires_grad=True)
        best = w.argmax()  # <- here
        loss = best * 1.0
        loss.backward()
        """,
        """
        w = torch.tensor([1.0, 2.0], requires_grad=True)
        best = (w.softmax(0) * torch.arange(2)).sum()
        loss = best * 1.0
        loss.backward()
        answer = w.grad
        """,
        lambda n: torch.tensor([-1.0, 1.0]) * n["w"].detach().softmax(0).prod(),
        ("argmax is not differentiable", "softmax"),
        in_prose=True,
    ),
    Case(
        "comparison",
        "no_graph",
        """
        w = torch.tensor([1.0, 2.0], requires_grad=True)
        right = (w > 1.5).float()  # <- here
        right.mean().backward()
        """,
        """
        w = torch.tensor([1.0, 2.0], requires_grad=True)
        right = torch.sigmoid(w - 1.5)
        right.mean().backward()
        answer = w.grad
        """,
        lambda n: (s := torch.sigmoid(n["w"].detach() - 1.5)) * (1 - s) / 2,
        ("sigmoid",),
        in_prose=True,
    ),
    Case(
        "frozen",
        "no_graph",
        """
        model = nn.Linear(2, 1)
        model.requires_grad_(False)
        loss = model(torch.ones(1, 2)).sum()
        loss.backward()  # <- here
        """,
        """
        model = nn.Linear(2, 1)
        model.requires_grad_(True)
        loss = model(torch.ones(1, 2)).sum()
        loss.backward()
        answer = model.weight.grad
        """,
        lambda n: torch.ones(1, 2),
        ("model.weight", "frozen"),
    ),
    Case(
        "plain_input",
        "no_graph",
        """
        x = torch.tensor([1.0, 2.0])
        loss = x.square().sum()
        loss.backward()  # <- here
        """,
        """
        x = torch.tensor([1.0, 2.0])
        x.requires_grad_()
        loss = x.square().sum()
        loss.backward()
        answer = x.grad
        """,
        lambda n: 2 * n["x"].detach(),
        ("nothing that it was computed from requires a gradient",),
    ),
    Case(
        "several_numbers",
        "needs_cotangent",
        """
        x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
        out = x.square()
        out.backward()  # <- here
        """,
        """
        x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
        out = x.square()
        out.backward(torch.ones_like(out))
        answer = x.grad
        """,
        lambda n: 2 * n["x"].detach(),
        ("(2, 2)", "4 numbers", "sum 20", "one_hot(out, (0, 0))", "out.sum()"),
    ),
    Case(
        "losses_of_devices",
        "needs_cotangent",
        """
        x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
        loss = x * 2
        loss.backward()  # <- here
        """,
        """
        x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
        loss = x * 2
        loss.mean().backward()
        answer = x.grad
        """,
        lambda n: torch.full((3,), 2 / 3),
        ("3 losses, one per device",),
    ),
    Case(
        "complex_number",
        "needs_cotangent",
        """
        x = torch.tensor([1.0, 2.0], requires_grad=True)
        z = (x * 1j).sum()
        z.backward()  # <- here
        """,
        """
        x = torch.tensor([1.0, 2.0], requires_grad=True)
        z = (x * 1j).sum()
        z.abs().sum().backward()
        answer = x.grad
        """,
        lambda n: torch.ones(2),
        ("complex",),
    ),
    Case(
        "wrong_shape",
        "cotangent_shape",
        """
        x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], requires_grad=True)
        out = x * 3
        v = torch.tensor([1.0, 10.0])
        out.backward(v)  # <- here
        """,
        """
        x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], requires_grad=True)
        out = x * 3
        v = torch.tensor([1.0, 10.0])
        v = v.expand((3, 2))
        out.backward(v)
        answer = x.grad
        """,
        lambda n: torch.tensor([3.0, 30.0]).expand(3, 2),
        ("(2,)", "(3, 2)", "1 axis", "2 axes"),
    ),
    Case(
        "transposed_shape",
        "cotangent_shape",
        """
        x = torch.ones(2, 3, requires_grad=True)
        v = torch.arange(6.0).reshape(3, 2)
        (g,) = torch.autograd.grad(x * 2, x, v)  # <- here
        """,
        """
        x = torch.ones(2, 3, requires_grad=True)
        v = torch.arange(6.0).reshape(3, 2)
        v = v.t()
        (answer,) = torch.autograd.grad(x * 2, x, v)
        """,
        lambda n: 2 * torch.arange(6.0).reshape(3, 2).t(),
        ("axis 0 (3 against 2)",),
    ),
    Case(
        "complex_cotangent",
        "cotangent_dtype",
        """
        x = torch.ones(2, requires_grad=True)
        out = x * 2
        v = torch.ones(2, dtype=torch.complex64)
        out.backward(v)  # <- here
        """,
        """
        x = torch.ones(2, requires_grad=True)
        out = x * 2
        v = torch.ones(2, dtype=torch.complex64)
        v = v.real.to(out.dtype)
        out.backward(v)
        answer = x.grad
        """,
        lambda n: torch.full((2,), 2.0),
        ("complex64", "float32"),
    ),
]


def _states(weight: float) -> list[tuple[float, float]]:
    """Each state of the recurrence with the one before it."""
    states = [torch.zeros(())]
    for _ in range(3):
        states.append(torch.tanh(weight * states[-1] + 1))
    return list(pairwise(states))
