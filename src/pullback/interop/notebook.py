"""The explorer as a notebook widget, with the live graph behind it: extra ``notebook``."""

from __future__ import annotations

from typing import Any

from .. import _checks
from .._errors import PullbackError
from ..backward.questions import answered
from ..backward.record import BackwardRecord
from ..draw.explorer import module, style

_BRIDGE = """
let asked = 0;
function render({ model, el }) {
  const ask = (v) => new Promise((resolve, reject) => {
    const id = ++asked;
    const hear = (message) => {
      if (message.id !== id) return;
      model.off("msg:custom", hear);
      if (message.error) return reject(new Error(message.error));
      const entries = Object.entries(message.values);
      resolve(new Map(entries.map(([n, packed]) => [Number(n), decode(packed)])));
    };
    model.on("msg:custom", hear);
    model.send({ id, v: v.map((part) => [...part]) });
  });
  mount(el, model.get("document"), { ask });
}
export default { render };
"""


def explorer(record: BackwardRecord, *, budget: int = 1 << 20) -> Any:
    """The page of ``record`` as a widget: in a notebook's cell it can be edited, drawn and played.

    Where the page does not hold the answers to the reader's cotangent, this process computes them,
    as long as the outputs of the record exist.

    Args:
        record: what ``pb.record`` returned.
        budget: how many bytes of answers the page holds by itself.

    Returns:
        An ``anywidget.AnyWidget``.

    Raises:
        UnsupportedError: anywidget is not installed: ``pip install 'pullback[notebook]'``.

    Example:
        >>> import torch, pullback as pb
        >>> from pullback.interop.notebook import explorer
        >>> x = torch.ones(3, requires_grad=True)
        >>> y = x.exp()
        >>> explorer(pb.record(y, torch.ones(3))).document["title"]
        'y'
    """
    widget = _widget_class()(document=record.document(budget=budget))

    def hear(_: Any, content: dict[str, Any], __: Any) -> None:
        try:
            widget.send({"id": content.get("id"), **answered(record, content)})
        except PullbackError as error:
            widget.send({"id": content.get("id"), "error": str(error)})

    widget.on_msg(hear)
    return widget


def _widget_class() -> Any:
    try:
        import anywidget
        import traitlets
    except ImportError:
        raise _checks.not_installed("explorer", "anywidget", "notebook") from None

    members = {
        "__module__": __name__,
        "_esm": module() + _BRIDGE,
        "_css": style(),
        "document": traitlets.Dict().tag(sync=True),
    }
    return type("Explorer", (anywidget.AnyWidget,), members)
