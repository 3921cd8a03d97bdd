"""Whose file a frame runs in: torch's, pullback's, or the user's."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, FrameType

import torch
from torch.amp import GradScaler

_TORCH_ROOT = str(Path(torch.__file__).parent) + os.sep
_STANDARD_ROOT = sysconfig.get_path("stdlib") + os.sep
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_OVERRIDES = _TORCH_ROOT + "overrides.py"
_PACKAGE_ROOT = str(Path(__file__).parent.parent) + os.sep
# Programs that pullback ships to be read and run stand where a user's program would.
_USER_SIDE = tuple(_PACKAGE_ROOT + folder + os.sep for folder in ("demo", "lessons"))


def is_library_file(filename: str) -> bool:
    """Whether a code object belongs to torch or to pullback, not to the program that uses them."""
    if filename.startswith(_USER_SIDE):
        return False
    return filename.startswith((_TORCH_ROOT, _PACKAGE_ROOT, "<frozen"))


def is_installed_file(filename: str) -> bool:
    """Whether a code object came with Python or with an installed package."""
    return filename.startswith(_STANDARD_ROOT) or any(f in filename for f in _INSTALLED)


def is_own_file(filename: str) -> bool:
    """Whether a code object is pullback's own."""
    return filename.startswith(_PACKAGE_ROOT) and not filename.startswith(_USER_SIDE)


_DISPATCH_FILES = tuple(
    _TORCH_ROOT + name for name in ("_compile.py", "_dynamo" + os.sep, "utils" + os.sep + "_python")
)


def runs_a_formula() -> bool:
    """Inside a dispatch mode: whether the call comes from C++ of the engine, not from a hook.

    A hook runs while its node counts as running; but between the engine and the mode stands then a
    frame of Python.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if not code.co_filename.startswith((_PACKAGE_ROOT, *_DISPATCH_FILES)):
            return code.co_name == "_engine_run_backward"
        frame = frame.f_back
    return True


def is_detour(filename: str, then: Sequence[str]) -> bool:
    """Whether a frame is there only because a function mode of pullback's is on.

    ``then`` is the file of the frame that it called, if any: a function of torch's that finds a
    mode hands itself to ``torch/overrides.py``, which hands it to the mode.
    """
    if is_own_file(filename) or filename == _OVERRIDES:
        return True
    return filename.startswith(_TORCH_ROOT) and list(then) == [_OVERRIDES]


def is_scaling(code: CodeType) -> bool:
    """Whether this is the code of ``GradScaler.scale``."""
    return code is GradScaler.scale.__code__


def user_line() -> str:
    """``model.py:12``: the innermost running line that is neither torch's nor pullback's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if not (is_library_file(name) or name.startswith("<")):
            return f"{Path(name).name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""
