"""``pb.ledger``: every writer of ``.grad``, in order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType

from torch import Tensor, nn

from .. import _checks, draw
from .._names import CallerNames
from .._trees import Tree
from . import calls
from .accounts import Account
from .bookkeeper import Bookkeeper
from .booktext import page_of
from .enginecalls import EngineCall
from .entries import Entry
from .provenance import note_parameters, parameter_name, trace
from .sites import call_at, site

_CALLER = "pb.ledger"


def ledger(
    model_or_tensors: Tree | nn.Module | Iterable[Tensor],
    *,
    contents: bool = False,
    limit: int = 1000,
) -> Ledger:
    """Keep a ledger of every writer of ``.grad`` inside a ``with`` block.

    Deposits of backward passes (from which outputs, with which cotangents and loss scale, by which
    line), zeroing, setting to None, clipping, unscaling, hooks, reads by optimizers, and writes
    behind autograd's back. The block traces calls as ``pb.trace`` does. Values, gradients and the
    order of hooks are not changed.

    Args:
        model_or_tensors: a module (its parameters), a tensor, or a sequence or mapping of tensors.
        contents: also compare the entries of every ``.grad`` at every event, which reads them all.
            Without it a write that leaves no version behind (through NumPy, say) is found where
            Python handed out the memory, but not where an extension took it.
        limit: how many entries are kept for each tensor; older ones are only counted.

    Returns:
        A `Ledger`, to be entered: ``with pb.ledger(model) as book``.

    Raises:
        ArgumentError, TreeError: arguments that cannot be used.

    Example:
        >>> import torch, pullback as pb
        >>> w = torch.ones(2, requires_grad=True)
        >>> with pb.ledger({"w": w}) as book:
        ...     for _ in range(2):
        ...         (3 * w).sum().backward()
        >>> [(entry.kind, entry.tensor, entry.norm) for entry in book.entries]
        [('deposit', 'w', 4.242640495300293), ('deposit', 'w', 8.485280990600586)]
        >>> book.balanced
        True

    Source: double-entry bookkeeping; the facts that it rests on are in "Autograd mechanics" of the
    PyTorch documentation (AccumulateGrad, tensor versions).
    """
    _checks.flag(_CALLER, "contents", contents)
    _checks.positive(_CALLER, "limit", limit)
    return Ledger(_named(model_or_tensors), contents, limit)


def _named(given: Tree | nn.Module | Iterable[Tensor]) -> dict[str, Tensor]:
    if isinstance(given, nn.Module):
        note_parameters(given)
        given = dict(given.named_parameters())
    if not isinstance(given, (Tensor, Mapping, tuple, list)) and isinstance(given, Iterable):
        given = list(given)
    names = CallerNames(_CALLER)
    leaves = _checks.leaves_of(_CALLER, "model_or_tensors", given)
    _checks.outside_transforms(_CALLER, leaves.tensors)
    if isinstance(given, Mapping):
        return dict(zip(leaves.names, leaves.tensors, strict=True))
    found: dict[str, Tensor] = {}
    for k, tensor in enumerate(leaves.tensors):
        name = names.of(tensor) or parameter_name(tensor) or f"tensor {k}"
        found[name if name not in found else f"{name} ({k})"] = tensor
    return found


class Ledger:
    """Every writer of ``.grad`` of some tensors, in order; made by ``pb.ledger``.

    - ``entries``: every `Entry` that is kept, in the order of events.
    - ``balanced``: whether the entries explain what every ``.grad`` holds now (or held when the
      block ended); ``unlogged`` holds the entries of changes that nobody was seen to make.
    - ``account(tensor_or_name)``: the `Account` of one tensor.
    ``print(book)`` tells, for every tensor, what its ``.grad`` is made of and who emptied it.
    """

    def __init__(self, named: Mapping[str, Tensor], contents: bool, limit: int) -> None:
        self._keeper = Bookkeeper(named, contents, limit)
        self._named = dict(named)  # alive until the block ends
        self._trace = trace()
        self._is_open = False

    def __enter__(self) -> Ledger:
        _checks.entered_once(_CALLER, self._is_open)
        self._is_open = True
        self._trace.__enter__()
        self._keeper.open()
        calls.begin_block(self._keeper)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        calls.end_block(self._keeper)
        self._trace.__exit__(kind, value, traceback)
        self._keeper.close(call_at(site(), "the end of the block"))
        self._named.clear()
        self._is_open = False

    @property
    def accounts(self) -> Sequence[Account]:
        """One for each tensor, in the order in which they were given."""
        return self._keeper.accounts

    @property
    def calls(self) -> tuple[EngineCall, ...]:
        """The engine calls seen, those that wrote to none of the tensors included."""
        return tuple(self._keeper.calls)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Every entry that is kept, in the order of events."""
        found = [entry for account in self.accounts for entry in account.entries]
        return tuple(sorted(found, key=lambda entry: entry.number))

    @property
    def unlogged(self) -> tuple[Entry, ...]:
        """Changes of ``.grad`` that nobody was seen to make, each with the lines around it."""
        if self._is_open:
            self._keeper.audit(call_at(site(), "the audit"))
        return tuple(entry for entry in self.entries if entry.kind == "unlogged")

    @property
    def balanced(self) -> bool:
        """Whether the entries explain what every ``.grad`` holds.

        Compared at every event and now (or when the block ended): the tensor itself, its version
        counter and, where its memory was handed out or ``contents=True``, its entries.
        """
        return not self.unlogged and not any(a.counts["unlogged"] for a in self.accounts)

    def account(self, tensor_or_name: Tensor | str) -> Account:
        """The account of one tensor.

        Raises:
            ArgumentError: this ledger does not watch it.
        """
        for account in self.accounts:
            named = isinstance(tensor_or_name, str) and account.name == tensor_or_name
            if named or account.tensor() is tensor_or_name:
                return account
        raise _checks.not_in_ledger([account.name for account in self.accounts])

    def __str__(self) -> str:
        return draw.to_text(self.page())

    def __repr__(self) -> str:
        deposits = sum(a.counts["deposit"] for a in self.accounts)
        state = "balanced" if self.balanced else f"{len(self.unlogged)} unlogged changes"
        return f"<Ledger of {len(self.accounts)} tensors: {deposits} deposits, {state}>"

    def page(self) -> draw.Page:
        return page_of(self.accounts, self.calls, self.unlogged)
