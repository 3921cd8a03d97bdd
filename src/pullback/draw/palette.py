"""One diverging palette: blue below zero, orange above, the page itself at zero.

Blue and orange stay apart for every common kind of color blindness, and both ends are dark enough
to carry white text.
"""

BLUE = "#1f5fa8"
ORANGE = "#bf5409"

# From here on, white is easier to read on either color than dark text.
WHITE_TEXT_FROM = 0.8
_FAINTEST = 0.07


def hue(value: float) -> str:
    """Return the color of a value's sign."""
    return BLUE if value < 0 else ORANGE


def strength(value: float, limit: float) -> float:
    """Return how strongly a finite value is colored: 0 only for zero, 1 at the limit."""
    if value == 0:
        return 0.0
    share = min(1.0, abs(value) / limit) if limit > 0 else 1.0
    return max(_FAINTEST, share)
