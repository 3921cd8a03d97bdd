"""Functional programs compiled by Inductor, and the reasons where they are not."""

from .engine import Compiled, compiled
from .reason import NotCompiled
from .worth import worth_compiling

__all__ = ["Compiled", "NotCompiled", "compiled", "worth_compiling"]
