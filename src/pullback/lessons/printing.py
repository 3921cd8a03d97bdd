"""Code and errors as the terminal shows them."""

from __future__ import annotations

import traceback

from rich.console import Console
from rich.syntax import Syntax


def show_code(console: Console, text: str) -> None:
    console.print()
    console.print(Syntax(text, "python", theme="ansi_dark", background_color="default"))


def show_error(console: Console, error: BaseException, before: str = "") -> None:
    """The error in a line, as Python ends a traceback with it."""
    text = "".join(traceback.format_exception_only(error)).strip()
    console.print(before + text, markup=False, highlight=False, soft_wrap=True)
