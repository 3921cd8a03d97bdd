"""The explorer as a notebook widget: its document, its module, and what the process answers."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

import pullback as pb
from pullback.interop.notebook import explorer
from tests.backward.pages import decoded

pytest.importorskip("anywidget")


def asked(widget: Any, content: dict[str, Any]) -> dict[str, Any]:
    sent: list[dict[str, Any]] = []
    widget.send = sent.append
    widget._handle_custom_msg(content, [])
    (answer,) = sent
    return answer


def test_a_question_of_the_cell_is_answered_by_torch() -> None:
    x = torch.randn(3, requires_grad=True)
    y = x.sin()
    record = pb.record(y, torch.ones(3), inputs={"x": x})
    widget = explorer(record)
    v = torch.randn(3)
    answer = asked(widget, {"id": 7, "v": [v.tolist()]})
    assert answer["id"] == 7
    (wanted,) = torch.autograd.grad(y, x, v)
    deposit = widget.document["leaves"][0]["deposit"]
    found = torch.from_numpy(decoded(answer["values"][str(deposit)]).copy()).float()
    torch.testing.assert_close(found, wanted)


def test_a_bad_question_is_told_in_the_cell() -> None:
    x = torch.randn(3, requires_grad=True)
    y = x.sin()
    widget = explorer(pb.record(y, torch.ones(3)))
    assert asked(widget, {"id": 1, "v": [[1.0]]}) == {
        "id": 1,
        "error": "explore: `v` has [1] entries, but the outputs have [3].",
    }


def test_the_module_of_the_widget_has_its_default_export() -> None:
    x = torch.randn(3, requires_grad=True)
    widget = explorer(pb.record(x.sin(), torch.ones(3)))
    assert "export default { render };" in widget._esm
    assert ".pbx" in widget._css


def test_without_anywidget_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anywidget", None)
    x = torch.randn(3, requires_grad=True)
    with pytest.raises(pb.UnsupportedError) as refused:
        explorer(pb.record(x.sin(), torch.ones(3)))
    assert str(refused.value) == (
        "explorer: anywidget is not installed; pip install 'pullback[notebook]' brings it."
    )
