"""User text made safe to print: control characters become their visible pictures."""

import re

# The last two ranges turn the direction of the text that follows, and with it its numbers.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u202a-\u202e\u2066-\u2069]")


def _picture(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else "\ufffd"


def printable(text: str) -> str:
    """Return one line of `text` that no terminal, XML parser or font obeys as a command.

    >>> printable("a\\x1b[31mb\\n")
    'a␛[31mb␊'
    """
    return _CONTROL.sub(_picture, text)


def printable_lines(text: str) -> list[str]:
    """Split at line feeds, expand tabs, and make every line printable."""
    return [printable(line) for line in text.expandtabs(4).replace("\r\n", "\n").split("\n")]


def clipped(text: str, length: int) -> str:
    """Cut printable `text` to `length` characters, the last one an ellipsis where cut."""
    line = printable(text)
    return line if len(line) <= length else line[: length - 1] + "…"
