"""Programs that torch refuses because of what a tensor is: a leaf, a view, an inference tensor."""

from __future__ import annotations

import torch

from .case import Case

CASES = [
    Case(
        "input_in_place",
        "leaf_in_place",
        """
        x = torch.tensor([1.0, 2.0], requires_grad=True)
        x += 1  # <- here
        x.square().sum().backward()
        """,
        """
        x = torch.tensor([1.0, 2.0], requires_grad=True)
        leaf = x
        x = x + 1
        x.square().sum().backward()
        answer = leaf.grad
        """,
        lambda n: 2 * (n["leaf"].detach() + 1),
        ("`x`", "requires_grad", "no_grad"),
    ),
    Case(
        "input_entry",
        "leaf_in_place",
        """
        x = torch.tensor([1.0, 2.0], requires_grad=True)
        x[0] = 0.0  # <- here
        x.square().sum().backward()
        """,
        """
        x = torch.tensor([1.0, 2.0], requires_grad=True)
        leaf = x
        x = x.clone()
        x[0] = 0.0
        x.square().sum().backward()
        answer = leaf.grad
        """,
        lambda n: torch.tensor([0.0, 4.0]),
        ("`x`",),
    ),
    Case(
        "parameter_update",
        "leaf_in_place",
        """
        layer = nn.Linear(2, 1)
        layer(torch.ones(1, 2)).sum().backward()
        layer.weight -= 0.1 * layer.weight.grad  # <- here
        """,
        """
        layer = nn.Linear(2, 1)
        before = layer.weight.detach().clone()
        layer(torch.ones(1, 2)).sum().backward()
        with torch.no_grad():
            layer.weight -= 0.1 * layer.weight.grad
        answer = before - layer.weight.detach()
        """,
        lambda n: torch.full((1, 2), 0.1),
        ("a parameter", "An update"),
    ),
    Case(
        "view_of_a_leaf",
        "leaf_in_place",
        """
        x = torch.tensor([1.0, 2.0], requires_grad=True)
        flat = x.view(-1)
        flat += 1  # <- here
        """,
        """
        x = torch.tensor([1.0, 2.0], requires_grad=True)
        flat = x.clone().view(-1)
        flat += 1
        flat.square().sum().backward()
        answer = x.grad
        """,
        lambda n: 2 * (n["x"].detach() + 1),
        ("a view of the leaf `x`",),
    ),
    Case(
        "non_leaf_to_optimizer",
        "non_leaf_parameter",
        """
        w = torch.ones(3, requires_grad=True) * 0.01  # <- here
        optimizer = torch.optim.SGD([w], lr=0.1)
        """,
        """
        w = (torch.ones(3) * 0.01).requires_grad_()
        optimizer = torch.optim.SGD([w], lr=0.1)
        w.square().sum().backward()
        answer = w.grad
        """,
        lambda n: torch.full((3,), 0.02),
        ("`w`", "MulBackward0", "leaf last"),
    ),
    Case(
        "converted_to_optimizer",
        "non_leaf_parameter",
        """
        w = torch.ones(3, requires_grad=True).to(torch.float64)  # <- here
        optimizer = torch.optim.Adam([w])
        """,
        """
        w = torch.ones(3).to(torch.float64).requires_grad_()
        optimizer = torch.optim.Adam([w])
        w.square().sum().backward()
        answer = w.grad
        """,
        lambda n: torch.full((3,), 2.0, dtype=torch.float64),
    ),
    Case(
        "flag_of_a_result",
        "requires_grad_of_a_non_leaf",
        """
        x = torch.ones(2, requires_grad=True)
        h = x * 2
        h.requires_grad_(False)  # <- here
        """,
        """
        x = torch.ones(2, requires_grad=True)
        h = x * 2
        h = h.detach()
        (h * x).sum().backward()
        answer = x.grad
        """,
        lambda n: torch.full((2,), 2.0),
        ("`h`",),
    ),
    Case(
        "whole_numbers",
        "dtype_without_gradient",
        """
        x = torch.tensor([1, 2], requires_grad=True)  # <- here
        """,
        """
        x = torch.tensor([1, 2], dtype=torch.float32, requires_grad=True)
        x.square().sum().backward()
        answer = x.grad
        """,
        lambda n: torch.tensor([2.0, 4.0]),
    ),
    Case(
        "whole_numbers_later",
        "dtype_without_gradient",
        """
        x = torch.arange(3)
        x = x.requires_grad_()  # <- here
        """,
        """
        x = torch.arange(3)
        x = x.float().requires_grad_()
        x.square().sum().backward()
        answer = x.grad
        """,
        lambda n: torch.tensor([0.0, 2.0, 4.0]),
        ("int64",),
    ),
    Case(
        "deepcopy",
        "deepcopy_of_a_non_leaf",
        """
        import copy

        x = torch.ones(2, requires_grad=True)
        h = x * 2
        kept = copy.deepcopy({"h": h})  # <- here
        """,
        """
        import copy

        x = torch.ones(2, requires_grad=True)
        h = x * 2
        h.sum().backward()
        h = h.detach().clone()
        kept = copy.deepcopy({"h": h})
        answer = x.grad
        """,
        lambda n: n["kept"]["h"],
        ("`h`", "MulBackward0"),
    ),
    Case(
        "unbind",
        "view_in_place",
        """
        x = torch.ones(2, 2, requires_grad=True)
        rows = (x * 2).unbind(0)
        top = rows[0]
        top += 1  # <- here
        """,
        """
        x = torch.ones(2, 2, requires_grad=True)
        rows = (x * 2).unbind(0)
        top = rows[0]
        top = top + 1
        (top * top).sum().backward()
        answer = x.grad
        """,
        lambda n: torch.tensor([[12.0, 12.0], [0.0, 0.0]]),
        ("Unbind", "`top`"),
    ),
    Case(
        "split",
        "view_in_place",
        """
        x = torch.ones(4, requires_grad=True)
        left, right = (x * 2).split(2)
        left.mul_(3)  # <- here
        """,
        """
        x = torch.ones(4, requires_grad=True)
        left, right = (x * 2).split(2)
        left = left.mul(3)
        (left.sum() + right.sum()).backward()
        answer = x.grad
        """,
        lambda n: torch.tensor([6.0, 6.0, 2.0, 2.0]),
        ("Split", "output 0"),
    ),
    Case(
        "view_without_gradients",
        "view_in_place",
        """
        x = torch.ones(4, requires_grad=True)
        h = x * 2
        with torch.no_grad():
            rows = h.view(2, 2)
        rows.mul_(3)  # <- here
        """,
        """
        x = torch.ones(4, requires_grad=True)
        h = x * 2
        rows = h.view(2, 2)
        rows.mul_(3)
        h.sum().backward()
        answer = x.grad
        """,
        lambda n: torch.full((4,), 6.0),
        ("no_grad", "view_without_gradients.py:7"),
    ),
    Case(
        "expanded",
        "overlapping_memory",
        """
        x = torch.ones(3, requires_grad=True)
        rows = torch.zeros(3).expand(2, 3)
        rows.add_(x)  # <- here
        """,
        """
        x = torch.ones(3, requires_grad=True)
        rows = torch.zeros(3).expand(2, 3)
        rows = rows.clone()
        rows.add_(x)
        rows.sum().backward()
        answer = x.grad
        """,
        lambda n: torch.full((3,), 2.0),
        ("strides (0, 1)",),
    ),
    Case(
        "detach_of_view",
        "detach_of_a_view",
        """
        x = torch.ones(3, requires_grad=True)
        v = (x * 2)[:1]
        v.detach_()  # <- here
        """,
        """
        x = torch.ones(3, requires_grad=True)
        v = (x * 2)[:1]
        v = v.detach()
        (x * v).sum().backward()
        answer = x.grad
        """,
        lambda n: torch.full((3,), 2.0),
    ),
    Case(
        "inference_saved",
        "inference_tensor",
        """
        with torch.inference_mode():
            scale = torch.full((2,), 3.0)
        x = torch.ones(2, requires_grad=True)
        y = x * scale  # <- here
        """,
        """
        with torch.inference_mode():
            scale = torch.full((2,), 3.0)
        x = torch.ones(2, requires_grad=True)
        scale = scale.clone()
        y = x * scale
        y.sum().backward()
        answer = x.grad
        """,
        lambda n: torch.full((2,), 3.0),
        ("`scale`", "saved"),
    ),
    Case(
        "inference_written",
        "inference_tensor",
        """
        with torch.inference_mode():
            total = torch.zeros(2)
        total.add_(1)  # <- here
        """,
        """
        with torch.inference_mode():
            total = torch.zeros(2)
        total = total.clone()
        total.add_(1)
        answer = total
        """,
        lambda n: torch.ones(2),
        ("`total`", "written to in place"),
    ),
    Case(
        "to_numpy",
        "numpy_of_a_graph",
        """
        x = torch.ones(2, requires_grad=True)
        y = x * 2
        values = y.numpy()  # <- here
        """,
        """
        x = torch.ones(2, requires_grad=True)
        y = x * 2
        values = y.detach().numpy()
        y.sum().backward()
        answer = x.grad
        """,
        lambda n: torch.from_numpy(n["values"]),
        ("`y`",),
    ),
    Case(
        "out_with_graph",
        "out_with_gradients",
        """
        x = torch.ones(2, requires_grad=True)
        y = torch.empty(2)
        torch.exp(x, out=y)  # <- here
        """,
        """
        x = torch.ones(2, requires_grad=True)
        y = torch.empty(2)
        y = torch.exp(x)
        y.sum().backward()
        answer = x.grad
        """,
        lambda n: n["x"].exp(),
    ),
    Case(
        "hook_without_gradient",
        "no_gradient_to_watch",
        """
        x = torch.ones(2)
        x.register_hook(print)  # <- here
        """,
        """
        seen = []
        x = torch.ones(2)
        x.requires_grad_()
        x.register_hook(seen.append)
        x.square().sum().backward()
        answer = seen[0]
        """,
        lambda n: torch.full((2,), 2.0),
        ("`x`",),
    ),
]
