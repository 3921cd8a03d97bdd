"""The account of one ``.grad``: its entries, and whether they explain what it holds."""

from __future__ import annotations

import zlib
from collections import Counter, deque
from weakref import ref

import torch
from torch import Tensor

from .. import _torch
from .entries import EMPTYING, Entry


class Account:
    """All writers of the ``.grad`` of one tensor, in order; the latest ``limit`` are kept.

    - ``name``: what the ledger calls the tensor. ``tensor()``: the tensor; None once it is gone.
    - ``entries``: every `Entry` that is kept. ``counts``: how many there were of each kind.
    - ``since_empty``: those that made ``.grad`` what it is: the latest that emptied or replaced it,
      and all after it. ``deposits_since_empty``: the number of deposits among them.
    - ``had_grad_at_start``: whether ``.grad`` was there when the block began.

    What ``.grad`` was after the last entry is remembered by identity and version (and by content,
    where its memory was handed out or all contents are asked for), so that a change which has no
    entry shows at the next one. ``reused`` counts deposits that were added to what a step had used.
    """

    def __init__(self, name: str, tensor: Tensor, limit: int, contents: bool) -> None:
        self.name = name
        self.tensor = ref(tensor)
        self.entries: deque[Entry] = deque(maxlen=limit)
        self.counts: Counter[str] = Counter()
        self.since_empty: deque[Entry] = deque(maxlen=limit)
        self.deposits_since_empty = 0
        self.contents = contents
        self._known: tuple[ref[Tensor] | None, int] = (None, 0)
        self._known_content: int | None = None
        self.had_grad_at_start = False
        self.reused = 0
        self.first_reuse: Entry | None = None
        self._was_used = False
        self.norm: float | None = None

    def __repr__(self) -> str:
        kinds = ", ".join(f"{many} {kind}" for kind, many in self.counts.items())
        return f"<Account of {self.name}: {kinds or 'no entries'}>"

    def open(self) -> None:
        grad = self.grad()
        self.had_grad_at_start = grad is not None
        self.remember(grad)

    def grad(self) -> Tensor | None:
        tensor = self.tensor()
        if tensor is None or not (tensor.is_leaf or tensor.retains_grad):
            return None  # torch warns where .grad of any other tensor is read
        return tensor.grad

    @property
    def dropped(self) -> int:
        return sum(self.counts.values()) - len(self.entries)

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.counts[entry.kind] += 1
        if entry.kind in EMPTYING:
            self.since_empty.clear()
            self.deposits_since_empty = 0
            self._was_used = False
        elif entry.kind == "read":
            self._was_used = True
        elif entry.kind == "deposit" and self._was_used:
            self.reused += 1
            self.first_reuse = self.first_reuse or entry
            self._was_used = False
        self.since_empty.append(entry)
        self.deposits_since_empty += entry.kind == "deposit"

    def remember(self, grad: Tensor | None) -> None:
        self._known = (None, 0) if grad is None else (ref(grad), _torch.version_of(grad))
        self._known_content = content_of(grad) if self.contents and grad is not None else None

    def watch_content(self) -> None:
        """From now on a write that no version tells of is seen, too."""
        if not self.contents:
            self.contents = True
            self._known_content = content_of(self.grad())

    @property
    def version(self) -> int | None:
        """Of ``.grad``, after the last entry."""
        return None if self._known[0] is None else self._known[1]

    @property
    def is_empty(self) -> bool:
        """Whether ``.grad`` was None after the last entry."""
        return self._known[0] is None

    def left(self, value: Tensor | None) -> bool:
        """Whether ``value`` is the tensor that ``.grad`` was after the last entry."""
        weak = self._known[0]
        return value is not None and weak is not None and weak() is value

    def was_written(self) -> bool:
        """Whether autograd heard of a write since the last entry."""
        grad, (weak, version) = self.grad(), self._known
        return (
            grad is None
            or weak is None
            or weak() is not grad
            or (_torch.version_of(grad) != version)
        )

    def change(self) -> str:
        """How ``.grad`` differs from what the last entry left; empty if it does not."""
        grad, (weak, version) = self.grad(), self._known
        known = None if weak is None else weak()
        if grad is None:
            return "" if weak is None else "it became None"
        if weak is None:
            return "it was None and now is a tensor"
        if known is not grad:
            return "it is another tensor now"
        if _torch.version_of(grad) != version:
            count = _torch.version_of(grad) - version
            return f"it was written in place {count} time{'s' * (count != 1)}"
        if self.contents and self._known_content != content_of(grad):
            return "its entries changed, and no version tells of a write"
        return ""

    def remembers(self, storage: int) -> bool:
        """Whether memory with this number is that of ``.grad`` now."""
        grad = self.grad()
        return grad is not None and _torch.storage_number(grad) == storage


def norm_of(tensor: Tensor | None) -> float | None:
    """The norm of the entries; None on a device that would have to be waited for."""
    if tensor is None or tensor.device.type != "cpu" or tensor.is_quantized:
        return None
    values = tensor.detach() if tensor.requires_grad else tensor
    if values.layout is torch.sparse_coo:
        values = values.coalesce().values()
    elif values.layout is not torch.strided or values.is_mkldnn:
        return None
    return float(torch.linalg.vector_norm(values)) if values.numel() else 0.0


def content_of(tensor: Tensor | None) -> int | None:
    """A number that any write to the entries changes; reads all of them."""
    if tensor is None or tensor.layout is not torch.strided or not tensor.numel():
        return None
    entries = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return zlib.crc32(entries.numpy().tobytes())
