"""Programs whose inputs are not reached, and Functions whose backward does not fit."""

from __future__ import annotations

import torch

from .case import Case

FUNCTION = """
        class Scale(torch.autograd.Function):
            @staticmethod
            def forward(ctx, a, factor):
                ctx.factor = factor
                return a * factor

            @staticmethod
            def backward(ctx, grad):
                {returns}

        x = torch.ones(3, requires_grad=True)
        y = Scale.apply(x, 2.0)
        y.sum().backward()
        {answer}
        """

CASES = [
    Case(
        "cut_from_input",
        "unused_input",
        """
        a = torch.ones(2, requires_grad=True)
        b = torch.ones(2, requires_grad=True)
        h = b.detach() * 2  # <- here
        out = (a * h).sum()
        ga, gb = torch.autograd.grad(out, [a, b])
        """,
        """
        a = torch.ones(2, requires_grad=True)
        b = torch.ones(2, requires_grad=True)
        h = b * 2
        out = (a * h).sum()
        ga, gb = torch.autograd.grad(out, [a, b])
        answer = gb
        """,
        lambda n: 2 * n["a"].detach(),
        ("`b`", "index 1", "detach"),
    ),
    Case(
        "view_asked_for",
        "unused_input",
        """
        w = torch.ones(4, requires_grad=True)
        m = w.view(2, 2)  # <- here
        out = w.square().sum()
        (g,) = torch.autograd.grad(out, m)
        """,
        """
        w = torch.ones(4, requires_grad=True)
        m = w.view(2, 2)
        out = w.square().sum()
        (g,) = torch.autograd.grad(out, w)
        answer = g
        """,
        lambda n: torch.full((4,), 2.0),
        ("`m`", "`w`", "another one"),
    ),
    Case(
        "never_used",
        "unused_input",
        """
        a = torch.ones(2, requires_grad=True)
        b = torch.ones(2, requires_grad=True)
        out = a.square().sum()
        grads = torch.autograd.grad(out, [a, b])  # <- here
        """,
        """
        a = torch.ones(2, requires_grad=True)
        b = torch.ones(2, requires_grad=True)
        out = a.square().sum()
        grads = torch.autograd.grad(out, [a, b], allow_unused=True)
        answer = grads[0]
        """,
        lambda n: torch.full((2,), 2.0),
        ("`b`", "Nothing that trace saw", "allow_unused=True"),
        in_prose=True,
    ),
    Case(
        "input_without_flag",
        "input_without_grad",
        """
        a = torch.ones(2, requires_grad=True)
        x = torch.ones(2)  # <- here
        out = (a * x).sum()
        grads = torch.autograd.grad(out, [a, x])
        """,
        """
        a = torch.ones(2, requires_grad=True)
        x = torch.ones(2)
        x.requires_grad_()
        out = (a * x).sum()
        grads = torch.autograd.grad(out, [a, x])
        answer = grads[1]
        """,
        lambda n: n["a"].detach(),
        ("`x`", "index 1"),
    ),
    Case(
        "checkpoint_of_data",
        "checkpoint_inputs",
        """
        from torch.utils.checkpoint import checkpoint

        layer = nn.Linear(2, 2)
        x = torch.ones(1, 2)
        y = checkpoint(layer, x, use_reentrant=True)  # <- here
        """,
        """
        from torch.utils.checkpoint import checkpoint

        layer = nn.Linear(2, 2)
        x = torch.ones(1, 2)
        y = checkpoint(layer, x, use_reentrant=False)
        y.sum().backward()
        answer = layer.weight.grad
        """,
        lambda n: torch.ones(2, 2),
        ("`layer.weight`", "`layer.bias`", "stays None"),
    ),
    Case(
        "checkpoint_and_grad",
        "reentrant_checkpoint",
        """
        from torch.utils.checkpoint import checkpoint

        x = torch.ones(2, requires_grad=True)
        y = checkpoint(torch.exp, x, use_reentrant=True)  # <- here
        (g,) = torch.autograd.grad(y.sum(), x)
        """,
        """
        from torch.utils.checkpoint import checkpoint

        x = torch.ones(2, requires_grad=True)
        y = checkpoint(torch.exp, x, use_reentrant=False)
        (g,) = torch.autograd.grad(y.sum(), x)
        answer = g
        """,
        lambda n: n["x"].exp(),
    ),
    Case(
        "function_shape",
        "function_gradient_shape",
        FUNCTION.format(returns="return grad.sum(), None  # <- here", answer="").replace(
            "grad.sum()", "grad[:2] * ctx.factor"
        ),
        FUNCTION.format(returns="return grad * ctx.factor, None", answer="answer = x.grad"),
        lambda n: torch.full((3,), 2.0),
        ("(2,)", "(3,)", "input `a`", "Scale.backward"),
        in_prose=True,
    ),
    Case(
        "function_count",
        "function_gradient_count",
        FUNCTION.format(returns="return grad * ctx.factor  # <- here", answer=""),
        FUNCTION.format(
            returns="grad_a, grad_factor = grad * ctx.factor, None\n                return grad_a, grad_factor",
            answer="answer = x.grad",
        ),
        lambda n: torch.full((3,), 2.0),
        ("takes 2 arguments (a, factor)", "returned 1 gradient"),
    ),
    Case(
        "second_derivative",
        "no_derivative",
        """
        x = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
        d = torch.pdist(x)  # <- here
        (g,) = torch.autograd.grad(d.sum(), x, create_graph=True)
        g.square().sum().backward()
        """,
        """
        x = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
        d = (x[0] - x[1]).square().sum().sqrt()
        (g,) = torch.autograd.grad(d.sum(), x, create_graph=True)
        g[0, 0].backward()
        answer = x.grad
        """,
        lambda n: torch.tensor([[16.0, -12.0], [-16.0, 12.0]]) / 125,
        ("pdist", "second derivative"),
        in_prose=True,
    ),
    Case(
        "once_differentiable",
        "differentiable_once",
        """
        from torch.autograd.function import once_differentiable

        class Square(torch.autograd.Function):
            @staticmethod
            def forward(ctx, a):
                ctx.save_for_backward(a)
                return a * a

            @staticmethod
            @once_differentiable
            def backward(ctx, grad):
                return 2 * ctx.saved_tensors[0] * grad

        x = torch.ones(2, requires_grad=True)
        v = torch.ones(2, requires_grad=True)
        (g,) = torch.autograd.grad(Square.apply(x), x, v, create_graph=True)
        g.sum().backward()  # <- here
        """,
        """
        class Square(torch.autograd.Function):
            @staticmethod
            def forward(ctx, a):
                ctx.save_for_backward(a)
                return a * a

            @staticmethod
            def backward(ctx, grad):
                return 2 * ctx.saved_tensors[0] * grad

        x = torch.ones(2, requires_grad=True)
        v = torch.ones(2, requires_grad=True)
        (g,) = torch.autograd.grad(Square.apply(x), x, v, create_graph=True)
        g.sum().backward()
        answer = x.grad
        """,
        lambda n: torch.full((2,), 2.0),
        ("@once_differentiable",),
        in_prose=True,
    ),
    Case(
        "checkpoint_changes",
        "checkpoint_differs",
        """
        from torch.utils.checkpoint import checkpoint

        runs = []

        def block(a):
            runs.append(1)
            return a.exp().atan() if len(runs) == 1 else a.exp()

        x = torch.ones(2, requires_grad=True)
        y = checkpoint(block, x, use_reentrant=False)
        y.sum().backward()  # <- here
        """,
        """
        from torch.utils.checkpoint import checkpoint

        def block(a, first):
            return a.exp().atan() if first else a.exp()

        x = torch.ones(2, requires_grad=True)
        y = checkpoint(block, x, True, use_reentrant=False)
        y.sum().backward()
        answer = x.grad
        """,
        lambda n: n["x"].exp() / (1 + (2 * n["x"]).exp()),
        in_prose=True,
    ),
]
