"""Compiled programs, trusted only after they agreed with the program itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx

from ... import _checks, _inductor
from ..trial import in_its_layout, perturbed, shuffled
from . import clean
from .places import Placed, write_pieces
from .reason import NotCompiled
from .trace import Run, Traced, traced

Kernel = Callable[[list[Tensor]], Sequence[Tensor]]


def compiled(
    run: Run,
    tensors: Sequence[Tensor],
    *,
    loose: float,
    placed: Placed | None = None,
    whole: Run | None = None,
) -> Compiled:
    """``run`` as one kernel for tensors of the shapes, strides, dtypes and devices of ``tensors``.

    ``run(*tensors)`` returns a tuple of tensors, and must be a pure function: it writes to nothing
    that it is given, and reads nothing but its arguments and tensors whose *content* stays what it
    is now (indices, colors); those are closed over, and those of one value become part of the
    code. What may change is an argument. ``run`` may use ``torch.func.vmap`` and ``vjp`` inside.

    The result is called with the list of tensors and returns the outputs in C order, in memory of
    their own; the first may be written into a tensor that is handed in. It is compiled for
    ``torch.get_num_threads()`` threads, anew where that changes, and kept on disk for later
    processes. Signed zeros aside, it rounds as ``run`` does up to the order of sums, and keeps inf
    and nan.

    With ``placed``, the first results of ``run`` are pieces of one tensor, the first output; then
    ``whole(*tensors)`` gives the outputs in another way.

    Before it is returned it is compared with ``run`` (or ``whole``) at ``tensors`` and at three
    points made from them. ``loose`` is the relative difference that rounding may make.

    Raises NotCompiled with the reason, in one line, where nothing could be compiled, where that
    would not pay, or where the kernel and ``run`` differ.
    """
    if torch.compiler.is_compiling():
        raise NotCompiled("torch.compile is tracing")
    with _one_line():
        run(*tensors)  # what it keeps for later calls must not be made of traced tensors
        found = Compiled(whole or run, traced(run, tensors), tensors, loose, placed)
    found.prepare(tensors)
    return found


@contextmanager
def _one_line() -> Iterator[None]:
    """Whatever fails in a compiler is a reason to go on without it."""
    try:
        with torch.inference_mode(False), torch.no_grad():
            yield
    except NotCompiled:
        raise
    except Exception as error:
        raise NotCompiled(_checks.first_line(error)) from error


class Compiled:
    """A program with a kernel for each number of threads that it was called under."""

    __slots__ = (
        "_constants",
        "_first",
        "_forms",
        "_kernels",
        "_loose",
        "_placed",
        "_run",
        "_traced",
    )

    def __init__(
        self, run: Run, graph: Traced, tensors: Sequence[Tensor], loose: float,
        placed: Placed | None,
    ) -> None:  # fmt: skip
        self._run, self._traced, self._loose, self._placed = run, graph, loose, placed
        self._constants = graph.constants
        if placed is None:
            self._first = clean.first_into(graph.module)
        else:
            self._constants = [*graph.constants, *placed.indices]
            self._first = torch.Size([placed.size]), placed.dtype, placed.device
        self._forms = [(t.dtype, t.shape, t.stride()) for t in tensors]
        self._kernels: dict[int, Kernel] = {}

    def __call__(self, tensors: Sequence[Tensor], into: Tensor | None = None) -> Sequence[Tensor]:
        """The outputs at ``tensors``. ``into``, of the form of the first output and apart from all
        tensors, receives it.

        Raises TypeError where a tensor has another dtype, shape or stride, requires a gradient or
        is a lazy negative; NotCompiled where the number of threads has changed and the new kernel
        cannot be trusted.
        """
        kernel = self._kernels.get(torch.get_num_threads())
        if kernel is None:
            kernel = self.prepare(tensors)
        for tensor, form in zip(tensors, self._forms, strict=True):
            if (tensor.dtype, tensor.shape, tensor.stride()) != form or _is_special(tensor):
                raise TypeError(f"compiled for {_plain(*form)}, not for {_described(tensor)}")
        return self._called(kernel, tensors, into)

    def _called(
        self, kernel: Kernel, tensors: Sequence[Tensor], into: Tensor | None
    ) -> Sequence[Tensor]:
        if self._first is None:
            found = kernel([*tensors, *self._constants])
            return found if into is None else (into.copy_(found[0]), *found[1:])
        if into is None:
            shape, dtype, device = self._first
            into = torch.empty(shape, dtype=dtype, device=device)
        if self._placed is None:
            return into, *kernel([*tensors, *self._constants, into])
        targets = [into] * len(self._placed.places)
        return into, *kernel([*tensors, *self._constants, *targets])[self._placed.scratch :]

    @property
    def graph(self) -> fx.Graph:
        """What is compiled, before Inductor's own changes."""
        return self._traced.module.graph

    def prepare(self, tensors: Sequence[Tensor]) -> Kernel:
        """Compile for the present number of threads, and try the kernel out near ``tensors``."""
        threads = torch.get_num_threads()
        given = self._traced
        with _one_line():
            last = _last if self._first is None else _last_into
            if self._placed is not None:
                last = partial(_last_placed, placed=self._placed, mode=given.mode)
            alike = self._placed is not None
            kernel = _inductor.kernel_of(given.module, given.mode, threads, last, alike=alike)
            differences(
                self._run, partial(self._tried, kernel), tensors, self._constants, self._loose
            )
        self._kernels[threads] = kernel
        return kernel

    def _tried(self, kernel: Kernel, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        """The outputs, the first in memory where every element that stays unwritten shows."""
        if self._first is None:
            return self._called(kernel, tensors, None)
        shape, dtype, device = self._first
        unwritten = torch.nan if dtype.is_floating_point else -1
        return self._called(
            kernel, tensors, torch.full(shape, unwritten, dtype=dtype, device=device)
        )


def _is_special(tensor: Tensor) -> bool:
    return tensor.requires_grad or tensor.is_neg()


def _described(tensor: Tensor) -> str:
    kind = "a lazy negative of " if tensor.is_neg() else ""
    form = _plain(tensor.dtype, tensor.shape, tensor.stride())
    return f"{kind}{form}{' with a gradient' * tensor.requires_grad}"


def _plain(dtype: torch.dtype, shape: Sequence[int], stride: Sequence[int]) -> str:
    return f"{dtype} of shape {tuple(shape)} and strides {tuple(stride)}"


def _last(module: fx.GraphModule) -> None:
    clean.clone_expanded_bases(module)
    clean.own_outputs(module)


def _last_into(module: fx.GraphModule) -> None:
    clean.clone_expanded_bases(module)
    clean.write_first_into(module)
    clean.own_outputs(module)


def _last_placed(module: fx.GraphModule, placed: Placed, mode: Any) -> None:
    clean.clone_expanded_bases(module)
    write_pieces(module, placed, mode)
    clean.own_outputs(module)


def differences(
    run: Run,
    kernel: Callable[[Sequence[Tensor]], Sequence[Tensor]],
    tensors: Sequence[Tensor],
    constants: Sequence[Tensor],
    loose: float,
) -> None:
    """Raise NotCompiled unless ``kernel`` gives what ``run`` gives, at four points.

    The second is near by, with nothing zero; the third has the same numbers in other places, every
    second one negated; the fourth has inf, nan and 0 among them. A point that ``run`` itself
    refuses does not count.
    """
    points: list[list[Tensor]] = [
        [t.detach() for t in tensors],
        [in_its_layout(perturbed, t) for t in tensors],
        [in_its_layout(_turned, t) for t in tensors],
        [in_its_layout(_spoiled, t) for t in tensors],
    ]
    for k, point in enumerate(points):
        try:
            expected = run(*point)
        except Exception:
            if k == 0:
                raise
            continue
        before = [t.clone() for t in point]
        found = kernel(point)
        _compare(found, expected, loose)
        if not all(map(_equal, point, before)):
            raise NotCompiled("the kernel writes to its inputs")
        _apart(found, [*point, *constants])


def _turned(tensor: Tensor) -> Tensor:
    flat = shuffled(tensor).reshape(-1)
    flat[1::2].neg_()
    return flat.reshape(tensor.shape)


def _spoiled(tensor: Tensor) -> Tensor:
    """With inf, -inf, nan and 0 at every eleventh place, in turn."""
    with torch.no_grad():
        flat = tensor.reshape(-1).clone()
        for k, value in enumerate((torch.inf, torch.nan, -torch.inf, 0.0)):
            flat[11 * k :: 44] = value
        return flat.reshape(tensor.shape)


def _compare(found: Sequence[Tensor], expected: Sequence[Tensor], loose: float) -> None:
    if len(found) != len(expected):
        raise NotCompiled(f"the kernel differs: {len(found)} results, not {len(expected)}")
    for one, other in zip(found, expected, strict=True):
        if one.shape != other.shape or one.dtype != other.dtype:
            raise NotCompiled("the kernel differs in shape or dtype")
        if not one.is_contiguous():
            raise NotCompiled("the kernel differs in layout")
        if not close(one, other, loose):
            raise NotCompiled(f"the kernel differs: {_worst(one, other)}")


def close(found: Tensor, expected: Tensor, loose: float) -> bool:
    """Entry by entry, with an allowance for sums that cancel: a few roundings of the largest."""
    if not expected.is_floating_point():
        return torch.equal(found, expected)
    finite = expected[expected.isfinite()]
    largest = float(finite.abs().max()) if finite.numel() else 0.0
    rounding = min(1e3 * torch.finfo(expected.dtype).eps, loose)
    return torch.allclose(found, expected, rtol=loose, atol=rounding * largest, equal_nan=True)


def _worst(found: Tensor, expected: Tensor) -> str:
    apart = (found.double() - expected.double()).abs().nan_to_num(nan=torch.inf)
    place = int(apart.reshape(-1).argmax())
    return f"{float(found.reshape(-1)[place]):g} for {float(expected.reshape(-1)[place]):g}"


def _equal(left: Tensor, right: Tensor) -> bool:
    """Bit for bit; nan may stay nan."""
    return torch.allclose(left, right, rtol=0.0, atol=0.0, equal_nan=True)


def _apart(found: Sequence[Tensor], given: Sequence[Tensor]) -> None:
    places = [t.untyped_storage().data_ptr() for t in (*found, *given) if t.numel()]
    own = places[: sum(1 for t in found if t.numel())]
    if len(set(own)) < len(own) or set(own) & set(places[len(own) :]):
        raise NotCompiled("the kernel returns memory that is in use")
