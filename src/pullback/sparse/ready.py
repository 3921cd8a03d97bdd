"""A call that finds everything as an earlier one left it: straight to the products.

A record of one call that went through all checks holds what those checks looked at, in a form that
is quick to compare. Whatever it does not recognise at once is left to them: it never decides that
something has changed, only that nothing has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import is_
from typing import Any

from torch import Tensor, nn

from .. import _settings
from .arguments import Arguments, as_real, bits
from .layouts import Csr
from .state import Reading, TensorGuard
from .state.owner import Snapshot
from .study import Study

_LEAF = object()
_PLAIN_TENSORS = (Tensor, nn.Parameter, nn.Buffer)


class _Tree:
    """The containers of one argument: builtin ones and named tuples, each of the same class."""

    def __init__(self, value: Any) -> None:
        self.kind: Any = type(value) if _is_container(type(value)) else _LEAF
        self.keys: list[Any] = []
        self.parts: list[_Tree] = []
        if self.kind is dict:
            self.keys = list(value)
            self.parts = [_Tree(part) for part in value.values()]
        elif self.kind is not _LEAF:
            self.parts = [_Tree(part) for part in value]

    def open(self, value: Any, leaves: list[Any]) -> bool:
        """Append the leaves of ``value``; False where its containers are others."""
        if self.kind is _LEAF:
            leaves.append(value)
            return True
        if type(value) is not self.kind or len(value) != len(self.parts):
            return False
        parts = value
        if self.kind is dict:
            if not all(map(is_, value, self.keys)):
                return False
            parts = value.values()
        return all(tree.open(part, leaves) for tree, part in zip(self.parts, parts, strict=True))


def _is_container(kind: type[Any]) -> bool:
    named = kind.__base__ is tuple and hasattr(kind, "_fields") and kind.__iter__ is tuple.__iter__
    return kind in (tuple, list, dict) or named


class _Forms:
    """Tensors of the recorded forms, of which those that were one tensor still are."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        first: dict[int, int] = {}
        same = [first.setdefault(id(t), k) for k, t in enumerate(tensors)]
        self._distinct = list(first.values())
        self._again = [(k, j) for k, j in enumerate(same) if k != j]
        self._wanted = [t.requires_grad for t in tensors]
        plain = all(type(t) in _PLAIN_TENSORS for t in tensors)
        distinct = [tensors[k] for k in self._distinct]
        self._check = _settings.forms_check(distinct) if plain and distinct else None
        self.is_quick = self._check is not None

    def hold(self, tensors: Sequence[Tensor]) -> bool:
        distinct = tensors
        if self._again:
            if not all(tensors[k] is tensors[j] for k, j in self._again):
                return False
            distinct = [tensors[k] for k in self._distinct]
        assert self._check is not None
        return self._check(*distinct) and [t.requires_grad for t in tensors] == self._wanted


class _Arguments:
    """Arguments of the recorded structure, forms and plain values, and the very same objects."""

    def __init__(self, args: Sequence[Any], arguments: Arguments) -> None:
        leaves = arguments.leaves
        self._trees = [_Tree(arg) for arg in args]
        self._count = len(args)
        self._flat = all(tree.kind is _LEAF for tree in self._trees)
        self._tensors_at = sorted((*arguments.primal_at, *arguments.other_at))
        self._all_tensors = len(self._tensors_at) == len(leaves)
        self._plain = arguments.plain
        rest = {*range(len(leaves))} - {*self._tensors_at, *(k for k, _, _ in self._plain)}
        self._objects = [(k, leaves[k]) for k in rest]
        self._forms = _Forms([leaves[k] for k in self._tensors_at])
        opened = self._opened(args)
        same = opened is not None and len(opened) == len(leaves)
        # What pytrees open and this does not (registered classes) stays unknown.
        self.is_quick = self._forms.is_quick and same and all(map(is_, opened or (), leaves))

    def _opened(self, args: Sequence[Any]) -> Sequence[Any] | None:
        if len(args) != self._count:
            return None
        if self._flat:
            return args
        leaves: list[Any] = []
        opened = all(t.open(a, leaves) for t, a in zip(self._trees, args, strict=True))
        return leaves if opened else None

    def leaves(self, args: Sequence[Any]) -> Sequence[Any] | None:
        """The leaves of ``args``, or None where they are not known to be those of the record."""
        leaves = self._opened(args)
        if leaves is None:
            return None
        if self._all_tensors:
            return leaves if self._forms.hold(leaves) else None
        if not self._forms.hold([leaves[k] for k in self._tensors_at]):
            return None
        for k, kind, known in self._plain:
            if type(leaves[k]) is not kind or bits(leaves[k]) != known:
                return None
        return leaves if all(leaves[k] is known for k, known in self._objects) else None


class _Owned:
    """What the function owns: nothing has changed since the walk, nor the forms of its tensors."""

    def __init__(self, snapshot: Snapshot, tensors: Sequence[Tensor]) -> None:
        self._snapshot = snapshot
        self._forms = _Forms(tensors)
        self.is_quick = not tensors or self._forms.is_quick
        self._pointers = self._places(tensors) if self.is_quick else []

    def _places(self, tensors: Sequence[Tensor]) -> list[int]:
        """Where the tensors lie: at unchanged places, those that share memory still do."""
        return [t.data_ptr() for t in tensors] if len(tensors) > 1 else []

    def tensors(self) -> list[Tensor] | None:
        tensors = self._snapshot.tensors()
        if tensors is None or not self._snapshot.modes.alone:
            return None
        if not tensors:
            return tensors
        if not self._forms.hold(tensors) or self._places(tensors) != self._pointers:
            return None
        return tensors


class Ready:
    """The record of a call that was replayed.

    ``laid_out``, its arguments without leaves, and ``out`` are what a result is laid out by;
    ``csr`` makes CSR matrices of its values.
    """

    def __init__(
        self,
        args: Sequence[Any],
        arguments: Arguments,
        reading: Reading,
        study: Study,
        guards: Mapping[str, TensorGuard],
        trust_indices: bool,
        csr: Csr,
    ) -> None:
        assert study.captured is not None
        self.csr = csr
        self.laid_out, self.out = replace(arguments, leaves=()), study.captured.out
        self._captured, self._trust = study.captured, trust_indices
        self._primal_at, self._other_at = arguments.primal_at, arguments.other_at
        self._args = _Arguments(args, arguments)
        self._owned = _Owned(study.state.snapshot, tuple(reading.tensors.values()))
        self.is_quick = self._args.is_quick and self._owned.is_quick
        paths = list(reading.tensors)
        self._owned_at = [paths.index(path) for path in study.captured.owned]
        others = dict(zip(arguments.other_names, arguments.other_at, strict=True))
        self._guarded_args = [(others[n], g) for n, g in guards.items() if n in others]
        self._guarded = [(paths.index(n), g) for n, g in guards.items() if n not in others]
        given = [arguments.leaves[k] for k in (*self._primal_at, *self._other_at)]
        inputs = study.tensors(arguments, reading)[len(self._owned_at) :]
        # Neither copied into other strides nor seen as reals.
        self._as_given = self.is_quick and all(
            t.data_ptr() == i.data_ptr() and t.dtype == i.dtype
            for t, i in zip(given, inputs, strict=True)
        )

    def tensors(self, args: Sequence[Any]) -> list[Tensor] | None:
        """The inputs of the captured graph at ``args``; None where the long way must be gone."""
        leaves = self._args.leaves(args)
        if leaves is None:
            return None
        known = self._owned.tensors()
        if known is None:
            return None
        for where, guards in ((leaves, self._guarded_args), (known, self._guarded)):
            for k, guard in guards:
                if not guard.has_content(where[k], self._trust):
                    return None
        owned = [known[k] for k in self._owned_at]
        primals = [leaves[k] for k in self._primal_at]
        others = [leaves[k] for k in self._other_at]
        if self._as_given:
            return [t.detach() if t.requires_grad else t for t in (*owned, *primals, *others)]
        return self._captured.inputs(owned, [as_real(t) for t in primals], others)
