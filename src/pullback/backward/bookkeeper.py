"""Who writes the entries: told of what touches ``.grad``, and watching what nobody tells."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor
from torch.optim import Optimizer
from torch.utils.weak import WeakIdKeyDictionary

from .. import _torch
from .accounts import Account, norm_of
from .deposits import DepositHooks
from .enginecalls import Asked, EngineCall
from .entries import Entry, place_text
from .events import UserCall
from .sites import Site, call_at, site

_KEPT_CALLS = 1000


class Watched(NamedTuple):
    """An account, and who keeps it."""

    account: Account
    keeper: Bookkeeper


_watched: WeakIdKeyDictionary = WeakIdKeyDictionary()


def watched_by(tensor: Tensor) -> Watched | None:
    """The account of ``tensor`` in the ledger that watched it last."""
    found: Watched | None = _watched.get(tensor)
    return found


class Bookkeeper:
    """The `Listener` of one ledger. ``holds``: the tensors are kept alive until it is closed."""

    holds = True

    def __init__(self, named: Mapping[str, Tensor], contents: bool, limit: int) -> None:
        self.accounts = [Account(n, t, limit, contents) for n, t in named.items()]
        self.limit = limit
        self.calls_seen = 0
        self.calls: deque[EngineCall] = deque(maxlen=_KEPT_CALLS)
        self._numbers = itertools.count(1)
        pairs = zip(named.values(), self.accounts, strict=True)
        self._of_tensor = {id(tensor): account for tensor, account in pairs}
        self._of_memory: dict[int, Account] = {}
        self._running: list[EngineCall] = []
        self._of_task: dict[int, EngineCall | None] = {}
        self._hooks: dict[Account, DepositHooks] = {}
        self._incoming: dict[Account, tuple[float | None, Tensor | None, int]] = {}
        self._last_call = UserCall("", "", 0, "")

    def open(self) -> None:
        with _torch.function_modes_off():
            for account in self.accounts:
                self._open(account)

    def _open(self, account: Account) -> None:
        account.open()
        self._watch(account)
        self._locate(account, account.grad())
        tensor = account.tensor()
        if tensor is not None:
            _watched[tensor] = Watched(account, self)

    def close(self, call: UserCall) -> None:
        self.audit(call)
        for hooks in self._hooks.values():
            hooks.remove()
        self._hooks.clear()

    def audit(self, call: UserCall) -> None:
        with _torch.function_modes_off():
            for account in self.accounts:
                self._settle(account, call)

    def _settle(self, account: Account, call: UserCall, kind: str = "unlogged") -> None:
        """Give what has changed since the last entry an entry of its own."""
        change = account.change()
        if change:
            note = change
            if kind == "unlogged":
                note = f"{change}, between {_words(self._last_call)} and {_words(call)}"
            self._add(account, kind, call, note=note)

    def _add(
        self,
        account: Account,
        kind: str,
        call: UserCall,
        *,
        engine_call: EngineCall | None = None,
        amount: float | None = None,
        norm: float | None = None,
        behind: bool = False,
        note: str = "",
    ) -> None:
        number = next(self._numbers)
        if kind == "read":  # which changes nothing
            version = account.version
            norm = account.norm
        else:
            grad = account.grad()
            version = None if grad is None else _torch.version_of(grad)
            norm = account.norm = norm_of(grad) if norm is None else norm
            account.remember(grad)
            self._locate(account, grad)
        account.add(
            Entry(
                number, kind, account.name, call, engine_call, amount, norm, version, behind, note
            )
        )  # fmt: skip
        self._last_call = call

    def _locate(self, account: Account, grad: Tensor | None) -> None:
        number = None if grad is None else _torch.storage_number(grad)
        if number is not None:
            self._of_memory[number] = account

    def _watch(self, account: Account) -> None:
        """Hooks on the node of a leaf, unless they sit there."""
        tensor, hooks = account.tensor(), self._hooks.get(account)
        if tensor is None or not (tensor.is_leaf and tensor.requires_grad):
            return
        if hooks is not None and hooks.sits_on(tensor):
            return
        self._hooks[account] = DepositHooks(
            tensor,
            lambda incoming: self._before_deposit(account, incoming),
            lambda: self._after_deposit(account),
            hold=self.holds,
        )

    def _before_deposit(self, account: Account, incoming: Tensor) -> None:
        grad = account.grad()
        self._settle(account, self._engine_place())
        version = -1 if grad is None else _torch.version_of(grad)
        self._incoming[account] = (norm_of(incoming), grad, version)

    def _after_deposit(self, account: Account) -> None:
        """The write itself, and what hooks made of it."""
        amount, before, version = self._incoming.pop(account, (None, None, -1))
        tensor, grad = account.tensor(), account.grad()
        names = () if tensor is None else _torch.post_accumulate_hook_names(tensor)
        call = self._engine_call()
        place = self._engine_place() if call is None else call.call
        alone = before is None and grad is not None and not names
        self._add(
            account, "deposit", place, engine_call=call, amount=amount,
            norm=amount if alone else norm_of(grad),
        )  # fmt: skip
        if names and _changed_since(before, version, grad, amount):
            self._add(account, "hook", place, note=", ".join(names))

    def _engine_call(self) -> EngineCall | None:
        """The call whose pass runs this hook: the first hook of a pass belongs to the call that
        began last."""
        task = _torch.graph_task()
        if task not in self._of_task:
            taken = set(map(id, self._of_task.values()))
            free = [call for call in self._running if id(call) not in taken]
            self._of_task[task] = free[-1] if free else None
        return self._of_task[task]

    def _engine_place(self) -> UserCall:
        return self._running[-1].call if self._running else call_at(site(), "backward")

    def engine_begins(self, call: EngineCall, asked: Asked) -> None:
        self._running.append(call)
        self.calls_seen += 1
        self.calls.append(call)
        for account in self.accounts:
            self._settle(account, call.call)
            if account not in self._hooks:
                self._watch(account)

    def engine_ended(self, call: EngineCall) -> None:
        self._running.remove(call)
        self._of_task = {t: c for t, c in self._of_task.items() if c is not call}
        for account in self.accounts:
            tensor = account.tensor()
            if tensor is None or not account.change():
                continue
            if not tensor.is_leaf:
                self._add(account, "deposit", call.call, engine_call=call, note="retain_grad")
            else:
                self._settle(account, call.call, "reduce")

    def grad_was_none(self, owner: Tensor, where: Site) -> None: ...

    def grad_was_set(self, owner: Tensor, value: Tensor | None, where: Site) -> None:
        account = self._account_of(owner)
        if account is None or (value is None and account.is_empty):
            return
        if account.left(value):  # the second half of `x.grad /= 4`
            return
        call = call_at(where, _entered(where, "grad = None" if value is None else "grad = ..."))
        self._add(account, "none" if value is None else "set", call)

    def about_to_write(self, target: Tensor) -> None:
        account = self._account_behind(target)
        if account is not None:
            self._settle(account, self._last_call)

    def wrote(self, target: Tensor, function: str, where: Site) -> None:
        account = self._account_behind(target)
        if account is None:
            return
        name = _entered(where, function)
        kind = _kind_of_write(function, name)
        if kind == "write" and norm_of(account.grad()) == 0:
            kind = "zero"
        behind = kind in ("write", "zero") and not account.was_written()
        self._add(account, kind, call_at(where, name), behind=behind)

    def _account_of(self, owner: Tensor) -> Account | None:
        account = self._of_tensor.get(id(owner))
        return account if account is not None and account.tensor() is owner else None

    def _account_behind(self, target: Tensor) -> Account | None:
        """The account whose ``.grad`` shares memory with ``target``."""
        number = _torch.storage_number(target)
        account = None if number is None else self._of_memory.get(number)
        if number is None or account is None:
            return None
        if not account.remembers(number):  # the memory has gone to another tensor
            del self._of_memory[number]
            return None
        return account

    def handed_out(self, tensor: Tensor, function: str, where: Site) -> None:
        account = self._account_behind(tensor)
        if account is not None:
            account.watch_content()
            self._last_call = call_at(where, function)

    def data_was_set(self, owner: Tensor) -> None:
        account = self._account_of(owner)
        if account is not None:
            self._watch(account)

    def step_begins(self, optimizer: Optimizer, call: UserCall) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                account = self._account_of(parameter)
                if account is not None and account.grad() is not None:
                    self._settle(account, call)
                    self._add(account, "read", call)

    def step_ended(self, optimizer: Optimizer, call: UserCall) -> None:
        for account in self.accounts:
            self._settle(account, call, "write")


def _changed_since(
    before: Tensor | None, version: int, grad: Tensor | None, amount: float | None
) -> bool:
    """Whether ``.grad`` is something else than what it was with the deposit added to it."""
    if grad is None:
        return True
    if before is None:
        return norm_of(grad) != amount
    return grad is before and _torch.version_of(grad) > version + 1


def _entered(where: Site, function: str) -> str:
    """What the user called: ``zero_grad``, ``clip_grad_norm_``; else the torch function itself."""
    return function if where.entered is None else where.entered.co_name


def _kind_of_write(function: str, entered: str) -> str:
    if entered.startswith("clip_grad"):
        return "clip"
    if "unscale" in function:
        return "unscale"
    if function in ("zero_", "_foreach_zero_"):
        return "zero"
    return "write"


def _words(call: UserCall) -> str:
    return f"{call.function} at {place_text(call)}" if call.line else "the beginning"
