"""Programs that write to memory which a backward still needs."""

from __future__ import annotations

import torch

from .case import Case

CASES = [
    Case(
        "augmented",
        "modified_in_place",
        """
        x = torch.tensor([0.0, 1.0, 2.0], requires_grad=True)
        b = x.exp()
        b += 1  # <- here
        b.sum().backward()
        """,
        """
        x = torch.tensor([0.0, 1.0, 2.0], requires_grad=True)
        b = x.exp()
        b = b + 1
        b.sum().backward()
        answer = x.grad
        """,
        lambda n: n["x"].exp(),
        ("ExpBackward0", "grad * result", "`b`", "version 0", "version 1", "augmented.py:5"),
    ),
    Case(
        "method",
        "modified_in_place",
        """
        x = torch.tensor([0.5, 1.0], requires_grad=True)
        b = x.sigmoid()
        c = b * 2
        b.mul_(3)  # <- here
        (b + c).sum().backward()
        """,
        """
        x = torch.tensor([0.5, 1.0], requires_grad=True)
        b = x.sigmoid()
        c = b * 2
        b = b.mul(3)
        (b + c).sum().backward()
        answer = x.grad
        """,
        lambda n: 5 * n["x"].sigmoid() * (1 - n["x"].sigmoid()),
        ("SigmoidBackward0",),
    ),
    Case(
        "setitem",
        "modified_in_place",
        """
        x = torch.tensor([0.0, 1.0], requires_grad=True)
        h = x.tanh()
        h[0] = 5.0  # <- here
        h.sum().backward()
        """,
        """
        x = torch.tensor([0.0, 1.0], requires_grad=True)
        h = x.tanh()
        h = h.clone()
        h[0] = 5.0
        h.sum().backward()
        answer = x.grad
        """,
        lambda n: torch.stack([torch.zeros(()), 1 - n["x"][1].tanh() ** 2]),
        ("TanhBackward0",),
    ),
    Case(
        "twice",
        "modified_in_place",
        """
        x = torch.tensor([1.0, 4.0], requires_grad=True)
        r = x.sqrt()
        r += 1  # <- here
        r *= 2
        r.sum().backward()
        """,
        """
        x = torch.tensor([1.0, 4.0], requires_grad=True)
        r = x.sqrt()
        r = r + 1
        r *= 2
        r.sum().backward()
        answer = x.grad
        """,
        lambda n: 1 / n["x"].sqrt(),
        ("twice", "r += 1", "r *= 2", "write 0 -> 1", "write 1 -> 2"),
    ),
    Case(
        "view_of_result",
        "modified_in_place",
        """
        x = torch.tensor([0.0, 1.0, 2.0], requires_grad=True)
        b = x.exp()
        first = b[:1]
        first += 10  # <- here
        b.sum().backward()
        """,
        """
        x = torch.tensor([0.0, 1.0, 2.0], requires_grad=True)
        b = x.exp().clone()
        first = b[:1]
        first += 10
        b.sum().backward()
        answer = x.grad
        """,
        lambda n: n["x"].exp(),
        ("a view", "shared"),
    ),
    Case(
        "operand",
        "modified_in_place",
        """
        x = torch.tensor([1.0, 2.0], requires_grad=True)
        scale = torch.tensor([3.0, 4.0])
        alias = scale.view(2)
        y = x * scale
        alias.add_(1)  # <- here
        y.sum().backward()
        """,
        """
        x = torch.tensor([1.0, 2.0], requires_grad=True)
        scale = torch.tensor([3.0, 4.0])
        alias = scale.view(2)
        y = x * scale.clone()
        alias.add_(1)
        y.sum().backward()
        answer = x.grad
        """,
        lambda n: torch.tensor([3.0, 4.0]),
        ("MulBackward0", "its operand", "(other)"),
    ),
    Case(
        "copied_over",
        "modified_in_place",
        """
        x = torch.tensor([1.0, 2.0], requires_grad=True)
        noise = torch.ones(2)
        y = x * noise
        noise.copy_(torch.zeros(2))  # <- here
        y.sum().backward()
        """,
        """
        x = torch.tensor([1.0, 2.0], requires_grad=True)
        noise = torch.ones(2)
        y = x * noise
        noise = torch.zeros(2).clone()
        y.sum().backward()
        answer = x.grad
        """,
        lambda n: torch.ones(2),
    ),
    Case(
        "out",
        "modified_in_place",
        """
        x = torch.tensor([1.0, 2.0], requires_grad=True)
        k = torch.ones(2)
        y = x * k
        torch.add(torch.ones(2), 1, out=k)  # <- here
        y.sum().backward()
        """,
        """
        x = torch.tensor([1.0, 2.0], requires_grad=True)
        k = torch.ones(2)
        y = x * k
        k = torch.add(torch.ones(2), 1)
        y.sum().backward()
        answer = x.grad
        """,
        lambda n: torch.ones(2),
    ),
    Case(
        "optimizer_step",
        "modified_in_place",
        """
        model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        h = model(torch.ones(1, 2))
        first = h.sum()
        second = h.square().sum()
        first.backward(retain_graph=True)
        optimizer.step()  # <- here
        second.backward()
        """,
        """
        model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        before = model[1].bias.detach().clone()
        h = model(torch.ones(1, 2))
        first = h.sum()
        second = h.square().sum()
        first.backward(retain_graph=True)
        second.backward()
        answer = model[1].bias.grad
        optimizer.step()
        """,
        lambda n: 1 + 2 * n["h"].detach()[0],
        ("SGD.step", "before the step"),
    ),
    Case(
        "relu_in_place",
        "modified_in_place",
        """
        x = torch.tensor([-1.0, 2.0], requires_grad=True)
        y = x.sigmoid()
        z = nn.functional.relu(y, inplace=True)  # <- here
        z.sum().backward()
        """,
        """
        x = torch.tensor([-1.0, 2.0], requires_grad=True)
        y = x.sigmoid()
        z = nn.functional.relu(y)
        z.sum().backward()
        answer = x.grad
        """,
        lambda n: n["x"].sigmoid() * (1 - n["x"].sigmoid()),
    ),
    Case(
        "module_in_place",
        "modified_in_place",
        """
        net = nn.Sequential(nn.Sigmoid(), nn.ReLU(inplace=True))
        x = torch.tensor([-1.0, 2.0], requires_grad=True)
        y = net(x)  # <- here
        y.sum().backward()
        """,
        """
        net = nn.Sequential(
            nn.Sigmoid(),
            nn.ReLU(inplace=False)
        )
        x = torch.tensor([-1.0, 2.0], requires_grad=True)
        y = net(x)
        y.sum().backward()
        answer = x.grad
        """,
        lambda n: n["x"].sigmoid() * (1 - n["x"].sigmoid()),
        ("SigmoidBackward0", "writes over its input"),
    ),
    Case(
        "saved_twice",
        "modified_in_place",
        """
        x = torch.tensor([0.5, 1.0], requires_grad=True)
        b = x.exp()
        c = b.tanh()
        b += 1
        c += 1  # <- here
        (b * 2 + c).sum().backward()
        """,
        """
        x = torch.tensor([0.5, 1.0], requires_grad=True)
        b = x.exp()
        c = b.tanh()
        b = b + 1
        c = c + 1
        (b * 2 + c).sum().backward()
        answer = x.grad
        """,
        lambda n: n["x"].exp() * (3 - n["x"].exp().tanh() ** 2),
        ("has the same trouble", "also modified", "b = b + 1", "c = c + 1"),
    ),
    Case(
        "buffer",
        "modified_in_place",
        """
        norm = nn.BatchNorm1d(2, affine=False)
        x = torch.ones(2, 2, requires_grad=True)
        y = (x - norm.running_mean) * norm.running_var
        norm(torch.ones(3, 2))
        norm.running_var.mul_(2)  # <- here
        y.sum().backward()
        """,
        """
        norm = nn.BatchNorm1d(2, affine=False)
        x = torch.ones(2, 2, requires_grad=True)
        y = (x - norm.running_mean) * norm.running_var.clone()
        norm(torch.ones(3, 2))
        norm.running_var.mul_(2)
        y.sum().backward()
        answer = x.grad
        """,
        lambda n: torch.ones(2, 2),
        ("norm.running_var",),
    ),
    Case(
        "custom_function",
        "modified_in_place",
        """
        class Square(torch.autograd.Function):
            @staticmethod
            def forward(ctx, a):
                ctx.save_for_backward(a)
                return a * a

            @staticmethod
            def backward(ctx, grad):
                (a,) = ctx.saved_tensors
                return 2 * a * grad

        x = torch.tensor([1.0, 2.0], requires_grad=True)
        a = x * 1
        y = Square.apply(a)
        a += 1  # <- here
        y.sum().backward()
        """,
        """
        class Square(torch.autograd.Function):
            @staticmethod
            def forward(ctx, a):
                ctx.save_for_backward(a)
                return a * a

            @staticmethod
            def backward(ctx, grad):
                (a,) = ctx.saved_tensors
                return 2 * a * grad

        x = torch.tensor([1.0, 2.0], requires_grad=True)
        a = x * 1
        y = Square.apply(a)
        a = a + 1
        y.sum().backward()
        answer = x.grad
        """,
        lambda n: 2 * n["x"].detach(),
        ("SquareBackward",),
    ),
    Case(
        "index",
        "modified_in_place",
        """
        x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
        rows = torch.tensor([0, 2])
        y = x[rows] ** 2
        rows -= 0  # <- here
        y.sum().backward()
        """,
        """
        x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
        rows = torch.tensor([0, 2])
        y = x[rows] ** 2
        rows = rows - 0
        y.sum().backward()
        answer = x.grad
        """,
        lambda n: torch.tensor([2.0, 0.0, 6.0]),
        ("IndexBackward0", "indices"),
    ),
    Case(
        "in_a_function",
        "modified_in_place",
        """
        def forward(x):
            hidden = torch.exp(x)
            hidden.add_(1)  # <- here
            return hidden.sum()

        def train():
            x = torch.tensor([0.0, 1.0], requires_grad=True)
            forward(x).backward()
            return x.grad

        answer = train()
        """,
        """
        def forward(x):
            hidden = torch.exp(x)
            hidden = hidden.add(1)
            return hidden.sum()

        def train():
            x = torch.tensor([0.0, 1.0], requires_grad=True)
            forward(x).backward()
            return x.grad

        answer = train()
        """,
        lambda n: torch.tensor([0.0, 1.0]).exp(),
        ("`hidden`", "torch.exp(x)"),
    ),
]
