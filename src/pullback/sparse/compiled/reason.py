"""Why a program is left to replay."""

from __future__ import annotations


class NotCompiled(Exception):  # noqa: N818 - it is no error: another engine takes over
    """The reason, in one line."""
