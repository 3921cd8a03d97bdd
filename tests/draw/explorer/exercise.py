"""The tutorial's weighing exercise as a page, what its tables show, and a page with torch behind it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pullback as pb
from pullback.commands.server import Server
from pullback.draw.numbers import number

Show = Callable[..., Any]
D = torch.float64


def cells(page: Any, label: str) -> list[str]:
    """The numbers of the table with this label, row by row."""
    found: list[str] = (
        page.get_by_role("grid", name=label, exact=True).locator("td").all_inner_texts()
    )
    return found


def shown(tensor: Tensor) -> list[str]:
    return [number(float(x)) for x in tensor.detach().reshape(-1)]


class Exercise:
    """The tutorial's weighing exercise in float64, and its page."""

    def __init__(self, folder: Path, **options: Any) -> None:
        inp = torch.eye(4, 5, dtype=D, requires_grad=True)
        with pb.trace():
            out = (inp + 10).pow(3).t()
        self.inp, self.out = inp, out
        self.v = pb.cotangents.rows(out, {0: 1.0}).contiguous()
        self.record = pb.record(out, self.v, inputs={"inp": inp})
        self.path = self.record.to_html(folder / "page.html", **options)

    def grad(self, v: Tensor) -> list[str]:
        (found,) = torch.autograd.grad(self.out, self.inp, v.to(D), retain_graph=True)
        return shown(found)


V = "the cotangent of out"
DEPOSIT = "inp.grad (4, 5)"


@contextmanager
def served(record: pb.BackwardRecord, **options: Any) -> Iterator[Server]:
    """The record's page with torch behind it; ``options`` are those of its document."""
    document = record.document
    object.__setattr__(record, "document", lambda: document(**options))
    server = Server(record)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()
        server.close()


def type_into(page: Any, flat: int, text: str, *, label: str = V) -> None:
    page.get_by_role("grid", name=label, exact=True).locator("td").nth(flat).focus()
    page.keyboard.type(text)
    page.keyboard.press("Enter")
