"""Functional programs as one straight line of calls, with nothing of Python in between."""

from .program import NotStraight, Straight, straightened

__all__ = ["NotStraight", "Straight", "straightened"]
