"""What a function reads besides its arguments, and whether it is still what it was."""

from .guard import TensorGuard
from .owner import State
from .reading import Owned, Reading

__all__ = ["Owned", "Reading", "State", "TensorGuard"]
