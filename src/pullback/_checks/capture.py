"""Functions whose pullback graph cannot be used."""

from __future__ import annotations

from .._errors import UnsupportedError


def nonlinear_backward(caller: str, operator: str = "", line: str = "") -> UnsupportedError:
    where = f" at {operator}" if operator else ""
    where += f" (the backward of {line})" if line else ""
    return UnsupportedError(
        f"{caller}: the backward is not linear in its cotangent{where}. A Jacobian "
        f"is put together from few products only where pull(2 v) = 2 pull(v). Take the clamp, the "
        f"norm or the rounding out of the custom backward or hook; or ask torch.func.jacrev, which "
        f"applies it to one unit cotangent after the other."
    )


def left_to_replay(reason: str) -> str:
    return f"compile=True was asked for, and products are replayed: {reason}"


def wrongly_batched(node: str) -> str:
    return f"vmap was left: torch's batching rule of {node} gives another result than one by one"
