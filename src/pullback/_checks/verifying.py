"""Derivatives that other witnesses contradict."""

from __future__ import annotations

from collections.abc import Sequence

from .._errors import ArgumentError, GradientAssertionError, UnsupportedError

Said = Sequence[tuple[str, str]]


def verify_order(caller: str, order: object, kind: str | None) -> None:
    if order not in (1, 2) or isinstance(order, bool):
        raise ArgumentError(
            f"{caller}: `order` is {order!r}; it must be 1 for first derivatives or 2 for second "
            f"ones."
        )
    if kind == "jacobian" and order == 2:
        raise ArgumentError(
            f"{caller}: `order` is 2, and the plan is one of a Jacobian. Make one with "
            f"pb.plan_hessian(func, *args), or leave plan out."
        )


def cotangents_without_hessian(caller: str) -> ArgumentError:
    return ArgumentError(
        f"{caller}: `cotangents` weigh the outputs that a Hessian is of, and this is a Jacobian. "
        f"Pass order=2, or a plan of pb.plan_hessian(func, *args, cotangents=v)."
    )


def matrix_does_not_fit(caller: str, found: str, wanted: tuple[int, int]) -> ArgumentError:
    return ArgumentError(
        f"{caller}: `matrix` is {found}, and the derivative has shape {wanted}: a row per output "
        f"element, a column per element of the selected arguments. Pass one dense or sparse "
        f"matrix, or a tensor of jacrev's shape with as many elements."
    )


def matrix_is_wrong(
    caller: str, entry: tuple[int, int], names: tuple[str, str], truth: float, found: float
) -> ArgumentError:
    return ArgumentError(
        f"{caller}: `matrix` is wrong at entry {entry}: autograd gives {truth:.6g} for the "
        f"derivative of `{names[0]}` with respect to `{names[1]}`, and the matrix holds "
        f"{found:.6g}, off by {abs(found - truth):.3g}."
    )


def nothing_to_compare(caller: str, notes: Sequence[str]) -> UnsupportedError:
    told = "".join(f"\n  {note}" for note in notes)
    return UnsupportedError(
        f"{caller}: there is one way to this derivative here, and nothing to compare it with.{told}"
        f"\nLet func draw nothing anew and read nothing that changes, or write it with operations "
        f"that have forward mode."
    )


def _table(said: Said) -> str:
    width = max(len(name) for name, _ in said) + 1
    return "\n".join(f"  {name + ':':<{width}} {value}" for name, value in said)


def _head(order: int, entry: tuple[int, int], names: tuple[str, str]) -> str:
    if order == 1:
        return f"entry {entry}, the derivative of `{names[0]}` with respect to `{names[1]}`"
    return (
        f"entry {entry}, the derivative with respect to `{names[1]}` of the gradient at "
        f"`{names[0]}`"
    )


def modes_disagree(
    caller: str,
    order: int,
    entry: tuple[int, int],
    names: tuple[str, str],
    said: Said,
    verdict: str,
    remedy: str,
) -> GradientAssertionError:
    return GradientAssertionError(
        f"{caller}: torch's modes disagree at {_head(order, entry, names)}:\n{_table(said)}\n"
        f"{verdict} {remedy}",
        {},
    )


def differences_disagree(
    caller: str,
    order: int,
    entry: tuple[int, int],
    names: tuple[str, str],
    said: Said,
    mistake: str,
    functions: Sequence[str],
    hint: str,
) -> GradientAssertionError:
    of = "the gradient" if order == 2 else "func"
    modes = len(said) - 2  # but for the differences, and how far off
    agree = "torch's modes agree, so their formula is wrong" if modes > 1 else "autograd is wrong"
    likely = f" {mistake}." if mistake else ""
    ask = "".join(f" Ask pb.audit_function({name}, ...)." for name in functions)
    meant = ", unless another gradient is meant (a straight-through estimator, a surrogate)"
    return GradientAssertionError(
        f"{caller}: finite differences of {of} contradict autograd at "
        f"{_head(order, entry, names)}:\n{_table(said)}\n"
        f"{agree}{meant if functions else ''}.{likely}{ask}{hint}",
        {},
    )
