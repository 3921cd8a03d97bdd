"""``pullback jacobian``: plan the Jacobian of a function in a file, compute it, write it down."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import typer
from torch import Tensor

from .. import draw
from .._checks import commands as checks
from .._checks import one_of
from .._errors import ArgumentError
from .._jacobian import Jacobian, jacobian
from .._trees import flatten
from ..sparse.arguments import Arguments, arguments_for
from ..sparse.plan import Plan
from ..sparse.planning import MODES, plan_of
from ..sparse.study import study
from ..sparse.verify import verify
from . import failures, matrix_files, script
from .stages import Stages, seconds_text

CALLER = "jacobian"
# A first call that took longer is not repeated to be timed, in seconds.
_WORTH_REPEATING = 10.0
LAYOUTS: dict[str, Any] = {
    "csr": torch.sparse_csr,
    "coo": torch.sparse_coo,
    "strided": torch.strided,
}


@dataclass(frozen=True)
class Request:
    """What was typed, a field for each option."""

    target: str
    at: Path | None = None
    out: Path | None = None
    plan: Path | None = None
    spy: Path | None = None
    layout: str = "csr"
    mode: str = "auto"
    argnums: str = "0"
    verify: bool = False
    traceback: bool = False

    @property
    def picture(self) -> Path | None:
        """Where the plot goes: where it was asked for, else beside the matrix."""
        if self.spy is None and self.out is not None:
            return self.out.with_suffix(".png")
        return self.spy


class PlanIsWrong(Exception):  # noqa: N818
    """``--verify`` found that the plan gives another matrix than autograd."""


def run(request: Request) -> int:
    """Do it, and return the exit code: 0 done, 1 the function failed or the plan is wrong, 2
    refused."""
    try:
        _run(request)
    except (Exception, SystemExit) as error:
        if request.traceback:
            raise
        return _say(error)
    return 0


def _say(error: BaseException) -> int:
    if isinstance(error, PlanIsWrong):
        typer.echo(f"pullback {CALLER}: {error}", err=True)
        return 1
    return failures.say(CALLER, error)


def _run(request: Request) -> None:
    argnums = _checked(request)
    file, name = checks.target_text(CALLER, request.target)
    path = Path(file)
    checks.file_is_there(CALLER, "FILE.py", path)
    target = script.target_of(CALLER, script.import_file(path), path, name)
    point = (
        script.point_of_module(CALLER, target)
        if request.at is None
        else script.point_in_file(CALLER, request.at, target)
    )
    arguments = arguments_for(CALLER, point.args, argnums, target.func)
    typer.echo(_what(target, point, arguments))
    stages = Stages()
    plan = _plan(request, target.func, arguments, stages)
    matrix_files.check_dtype(CALLER, request.out, plan.dtype)
    typer.echo(repr(plan))
    _evaluate(request, target, point, argnums, plan, stages)
    if request.verify:
        _verify(target.func, point, plan, stages)


def _checked(request: Request) -> int | tuple[int, ...]:
    one_of(CALLER, "--mode", request.mode, MODES)
    one_of(CALLER, "--layout", request.layout, tuple(LAYOUTS))
    matrix_files.check_files(CALLER, request.out, request.spy, request.layout)
    named: dict[Path, str] = {}
    files = {"--at": request.at, "--plan": request.plan, "--out": request.out}
    for option, path in (files | {"--spy": request.picture}).items():
        if path is not None and named.setdefault(path.resolve(), option) != option:
            raise checks.same_file(CALLER, named[path.resolve()], option, path)
    return checks.argnums_text(CALLER, request.argnums)


def _what(target: script.Target, point: script.Point, arguments: Arguments) -> str:
    lines = [f"{target.name} of {target.path}, at {point.source}"]
    for k, (name, leaf) in enumerate(zip(arguments.names, arguments.leaves, strict=True)):
        if isinstance(leaf, Tensor):
            dtype = str(leaf.dtype).removeprefix("torch.")
            chosen = ", differentiated" if k in arguments.primal_at else ""
            lines.append(f"  {name}: {draw.shape(leaf.shape)} {dtype}{chosen}")
    return "\n".join(lines)


def _plan(request: Request, func: Callable[..., Any], arguments: Arguments, stages: Stages) -> Plan:
    if request.plan is not None and request.plan.exists():
        plan = Plan.load(request.plan)
        checks.plan_has_mode(CALLER, request.plan, plan.mode, request.mode)
        typer.echo(f"plan      read from {request.plan}")
        return plan
    with stages.stage("study", "study: running the function, finding the pattern"):
        found = study(CALLER, func, arguments)
    with stages.stage("color", "color: choosing the products"):
        plan = plan_of(CALLER, found, arguments, request.mode)
    if request.plan is not None:
        request.plan.parent.mkdir(parents=True, exist_ok=True)
        plan.save(request.plan)
        typer.echo(f"plan      written to {request.plan}")
    return plan


def _evaluate(
    request: Request,
    target: script.Target,
    point: script.Point,
    argnums: int | tuple[int, ...],
    plan: Plan,
    stages: Stages,
) -> None:
    products = "product" if plan.num_products == 1 else "products"
    layout = LAYOUTS[request.layout]
    jac = jacobian(target.func, argnums, plan, layout)
    doing = f"evaluate: {draw.count(plan.num_products)} {products}"
    with stages.stage("evaluate", doing), torch.no_grad():
        found = jac(*point.args)
    assert jac.plan is not None
    reasons = "".join(f"; {reason}" for reason in jac.notes[len(jac.plan.notes) :])
    typer.echo(f"  engine {jac.engine}{reasons}{_second_call(jac, point, stages)}")
    typer.echo(statistics(found, request.layout))
    if request.out is not None:
        read_by = matrix_files.write_matrix(request.out, found)
        typer.echo(f"matrix    written to {request.out}; {read_by} reads it")
    if request.picture is not None:
        matrix_files.draw_spy(request.picture, plan, f"Jacobian of {target.name}")
        typer.echo(f"spy plot  written to {request.picture}")


def _second_call(jac: Jacobian, point: script.Point, stages: Stages) -> str:
    """What a call costs once the first one has looked at the function."""
    if stages.seconds["evaluate"] > _WORTH_REPEATING:
        return ""
    start = time.perf_counter()
    with torch.no_grad():
        jac(*point.args)
    return f"; a second call takes {seconds_text(time.perf_counter() - start)}"


def _verify(func: Callable[..., Any], point: script.Point, plan: Plan, stages: Stages) -> None:
    with stages.stage("verify", "verify: comparing with autograd on random vectors"):
        try:
            verify(func, *point.args, plan=plan)
        except ArgumentError as error:
            # The plan fits, or the evaluation before would have been refused.
            raise PlanIsWrong(str(error)) from None
    typer.echo("  the matrix agrees with autograd on random vectors, here and near by")


def statistics(found: Any, layout: str) -> str:
    """How many entries are stored, how many of them are zero or not finite, and the largest."""
    if layout == "strided":
        values = torch.cat([leaf.reshape(-1) for leaf in flatten(found)[0]])
    else:
        values = found.values() if layout == "csr" else found._values()
    stored = draw.count(values.numel())
    zeros = draw.count(int((values == 0).sum()))
    lines = f"  {stored} entries stored, {zeros} of them zero here"
    broken = int((~values.isfinite()).sum())
    if broken:
        lines += f", {draw.count(broken)} not finite"
    finite = values[values.isfinite()]
    if finite.numel():
        lines += f"; largest |entry| {draw.number(float(finite.abs().max()))}"
    return lines
