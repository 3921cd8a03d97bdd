"""Write the reference of the commands from their own help: ``python docs/make_commands.py``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

from typer import Context
from typer.models import ArgumentInfo

from pullback.cli import app

PAGE = Path(__file__).parent / "reference" / "commands.md"
HEAD = """# Commands

`pullback COMMAND --help` shows the same.
"""


def page() -> str:
    """The whole page, a section per command."""
    commands = [command.callback for command in app.registered_commands]
    return "\n".join(
        [HEAD, *(section(command) for command in commands if command is not None)]
    )


def section(command: Callable[..., Any]) -> str:
    hints = get_type_hints(command, include_extras=True)
    parameters = inspect.signature(command).parameters.values()
    infos = [
        (hints[p.name].__metadata__[0], hints[p.name].__origin__, p)
        for p in parameters
        if hints[p.name] is not Context
    ]
    given = [info.metavar for info, _, _ in infos if isinstance(info, ArgumentInfo)]
    options = "[OPTIONS]" if len(infos) > len(given) else ""
    usage = " ".join(filter(None, ["pullback", command.__name__, options, *given]))
    told = inspect.getdoc(command) or ""
    parts = [f"## pullback {command.__name__}", "", "```text", usage, "```", "", told]
    if infos:
        rows = [row(*info) for info in infos]
        parts += ["", "| write | meaning | default |", "|---|---|---|", *rows]
    return "\n".join([*parts, ""])


def row(info: Any, kind: Any, parameter: inspect.Parameter) -> str:
    """What to write, what it means, and what holds without it."""
    if isinstance(info, ArgumentInfo):
        name = info.metavar
    else:
        value = (
            ""
            if kind is bool
            else info.metavar or getattr(kind, "__name__", "").upper()
        )
        value = {"STR": "TEXT", "INT": "NUMBER"}.get(value, value)
        name = f"--{parameter.name} {value}".strip()
    told = info.help.replace("|", "\\|").replace(
        "[default: beside --out]", "Else beside `--out`."
    )
    default = parameter.default
    shown = (
        ""
        if default in (inspect.Parameter.empty, None, "", False)
        else f"`{default}`"
    )
    return f"| `{name}` | {told} | {shown} |"


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
