"""Every error of autograd that ``diagnose`` reads, each raised by a program of its own."""

from __future__ import annotations

from . import in_place, leaves, passes, reaching
from .case import Case

CASES: list[Case] = [*in_place.CASES, *passes.CASES, *leaves.CASES, *reaching.CASES]
