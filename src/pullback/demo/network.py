"""A small network trained from scratch; its tensor output is then weighed point by point."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

import pullback as pb


@dataclass(frozen=True)
class Trained:
    """A model of a wave with two outputs per point, and what its output depends on."""

    losses: tuple[float, float]
    record: pb.BackwardRecord
    explanation: pb.Explanation
    weighed: pb.Sensitivity
    operator: tuple[tuple[int, int], float]


def trained_network(steps: int = 300) -> Trained:
    """Fit (sin 3x, cos 2x), then ask which inputs and weights two parts of the output rest on."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(1, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 2)
    )
    x = torch.linspace(-1, 1, 32)[:, None]
    target = torch.cat([(3 * x).sin(), (2 * x).cos()], dim=1)
    losses = _fit(model, x, target, steps)

    x = x[::4].clone().requires_grad_()
    with pb.trace():
        out = model(x)
    left = pb.cotangents.rows(out, dict.fromkeys(range(4), 0.125))
    right = pb.cotangents.rows(out, dict.fromkeys(range(4, 8), 0.125))
    named = {"x": x, **dict(model.named_parameters())}
    record = pb.record(out, left, inputs=named)
    explanation = pb.explain(out, left, inputs=named)
    weighed = pb.sensitivity(out, {"x": x}, {"left half": left, "right half": right})
    return Trained(losses, record, explanation, weighed, _adjoint_gap(model, x.detach()))


def _fit(model: nn.Module, x: Tensor, target: Tensor, steps: int) -> tuple[float, float]:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[0], losses[-1]


def _adjoint_gap(model: nn.Module, x: Tensor) -> tuple[tuple[int, int], float]:
    """The shape of the Jacobian at ``x``, and how far <J t, v> and <t, J' v> are apart."""
    jacobian = pb.JacobianOperator(model, x)
    rows, columns = jacobian.shape
    t, v = torch.randn(columns), torch.randn(rows)
    there, back = ((jacobian @ t) @ v).detach(), (t @ (v @ jacobian)).detach()
    return (rows, columns), float((there - back).abs() / there.abs())
