"""The explorer: one page, or one frame, that shows a record and lets its reader edit v."""

from .page import framed as framed
from .page import module as module
from .page import style as style
from .page import to_html as to_html

__all__ = ["framed", "module", "style", "to_html"]
