"""Convolutions, their backwards and what they are put together from: windows over channels.

A convolution of any kind ties three tensors together. The large side L (N, CL, x...), the small
side S (N, CS, y...) and the weight W (CS, CL / groups, k...) meet where, on every axis,
``x = y * stride - padding + k * dilation``. The plain one makes S of L and W, the transposed one
L of S and W, and a backward makes any one of the three of another.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..dependence import Dependence, grouped, union
from .axes import Ints, affordable, along, merged, reshaped
from .base import Declined, Result, Step, numbers, rule
from .structure import Mask, nonzeros

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Meeting:
    """The shapes of the three tensors of one convolution, and where their elements meet.

    ``places`` has, per axis, all (x, y, k) that meet.
    """

    large: Shape
    small: Shape
    weight: Shape
    groups: int
    places: list[tuple[Ints, Ints, Ints]]

    @classmethod
    def of(cls, step: Step, large: Shape, small: Shape, weight: Shape) -> Meeting:
        if not len(large) == len(small) == len(weight) > 2:
            raise Declined("its tensors have no batch and channel dims")
        axes = len(weight) - 2
        options = [_per_axis(step[name], axes) for name in ("stride", "padding", "dilation")]
        places = [
            meeting_places(large[2 + d], small[2 + d], weight[2 + d], *(o[d] for o in options))
            for d in range(axes)
        ]
        return cls(large, small, weight, int(step["groups"]), places)

    def on_small(self, large: Dependence, mask: Mask | None) -> Dependence:
        if mask is not None:
            return self._through_taps(large, mask, to_small=True)
        blocks = self._group_channels(large, self.large[1])
        for d, (x, y, _) in enumerate(self.places):
            blocks = along(blocks, 2 + d, y, x, self.small[2 + d])
        return self._all_channels(blocks, self.small)

    def on_large(self, small: Dependence, mask: Mask | None) -> Dependence:
        if mask is not None:
            return self._through_taps(small, mask, to_small=False)
        blocks = self._group_channels(small, self.small[1])
        for d, (x, y, _) in enumerate(self.places):
            blocks = along(blocks, 2 + d, x, y, self.large[2 + d])
        return self._all_channels(blocks, self.large)

    def weight_on_small(self, weight: Dependence) -> Dependence:
        found = merged(weight, [1])
        for d, (_, y, k) in enumerate(self.places):
            found = along(found, 2 + d, y, k, self.small[2 + d])
        return reshaped(found, (1, *self.small[1:])).broadcast(self.small)

    def weight_on_large(self, weight: Dependence) -> Dependence:
        found = reshaped(weight, (self.groups, self.weight[0] // self.groups, *self.weight[1:]))
        found = reshaped(merged(found, [1]), (1, self.large[1], *self.weight[2:]))
        for d, (x, _, k) in enumerate(self.places):
            found = along(found, 2 + d, x, k, self.large[2 + d])
        return found.broadcast(self.large)

    def large_on_weight(self, large: Dependence) -> Dependence:
        found = merged(large, [0])
        for d, (x, _, k) in enumerate(self.places):
            found = along(found, 2 + d, k, x, self.weight[2 + d])
        found = reshaped(found, (self.groups, 1, *self.weight[1:]))
        per_group = self.small[1] // self.groups
        return reshaped(found.broadcast((self.groups, per_group, *self.weight[1:])), self.weight)

    def small_on_weight(self, small: Dependence) -> Dependence:
        found = merged(small, [0])
        for d, (_, y, k) in enumerate(self.places):
            found = along(found, 2 + d, k, y, self.weight[2 + d])
        return reshaped(found, (self.weight[0], 1, *self.weight[2:])).broadcast(self.weight)

    def _group_channels(self, dep: Dependence, channels: int) -> Dependence:
        n, rest = dep.shape[0], dep.shape[2:]
        apart = reshaped(dep, (n, self.groups, channels // self.groups, *rest))
        return reshaped(merged(apart, [2]), (n, self.groups, *rest))

    def _all_channels(self, dep: Dependence, shape: Shape) -> Dependence:
        n, channels, *rest = shape
        apart = reshaped(dep, (n, self.groups, 1, *rest))
        return reshaped(apart.broadcast((n, self.groups, channels // self.groups, *rest)), shape)

    def _through_taps(self, dep: Dependence, mask: Mask, to_small: bool) -> Dependence:
        """With a weight whose zeros are known: tap by tap, channel by channel."""
        shape = self.small if to_small else self.large
        target, source, labels = numbers(shape), dep.grid, []
        picked = []
        for tap in itertools.product(*(range(k) for k in self.weight[2:])):
            at: tuple[Any, ...] = (slice(None), slice(None), *tap)
            s, within = np.nonzero(mask[at])
            big = within + s // (self.small[1] // self.groups) * self.weight[1]
            x, y = self._at_tap(tap)
            there, here = ((s, y), (big, x)) if to_small else ((big, x), (s, y))
            labels.append(target[_grid(shape[0], *there)].reshape(-1))
            picked.append(source[_grid(shape[0], *here)].reshape(-1))
        every = dep.with_ids(np.concatenate(picked))
        return grouped([(every, np.concatenate(labels))], shape)

    def _at_tap(self, tap: Sequence[int]) -> tuple[list[Ints], list[Ints]]:
        met = [k == at for (_, _, k), at in zip(self.places, tap, strict=True)]
        xs = [x[m] for (x, _, _), m in zip(self.places, met, strict=True)]
        ys = [y[m] for (_, y, _), m in zip(self.places, met, strict=True)]
        return xs, ys

    def known_zeros(self, step: Step, name: str, dep: Dependence) -> Mask | None:
        mask = nonzeros(step, name)
        if mask is None:
            return None
        pairs = int(mask.sum()) * self.large[0] * int(np.prod(self.small[2:]))
        return mask if affordable(dep, pairs) else None


def _grid(batch: int, channels: Ints, places: Sequence[Ints]) -> tuple[Ints, ...]:
    """Index arrays of every batch item x listed channel x place, in C order."""
    return np.ix_(np.arange(batch), channels, *places)


def meeting_places(
    large: int, small: int, kernel: int, stride: int, padding: int, dilation: int
) -> tuple[Ints, Ints, Ints]:
    """All (x, y, k) with ``x = y * stride - padding + k * dilation`` inside the large side."""
    y, k = (a.reshape(-1) for a in np.indices((small, kernel)))
    x = y * stride - padding + k * dilation
    inside = (x >= 0) & (x < large)
    return x[inside], y[inside], k[inside]


def _per_axis(option: Sequence[int] | int, axes: int) -> list[int]:
    given = [option] if isinstance(option, int) else list(option)
    return given * axes if len(given) == 1 else given


@rule("convolution _convolution convolution_overrideable", "input bias | weight bias")
def _convolution(step: Step) -> Result:
    given, weight, out = step.meta("input").shape, step.meta("weight").shape, step.out.shape
    inputs, weights, bias = step.dep("input"), step.dep("weight"), step.dep("bias")
    parts = []
    if step["transposed"]:
        meeting = Meeting.of(step, out, given, weight)
    else:
        meeting = Meeting.of(step, given, out, weight)
    if inputs is not None:
        mask = None if weights is not None else meeting.known_zeros(step, "weight", inputs)
        make = meeting.on_large if step["transposed"] else meeting.on_small
        parts.append(make(inputs, mask))
    if weights is not None:
        by_weight = meeting.weight_on_large if step["transposed"] else meeting.weight_on_small
        parts.append(by_weight(weights))
    if bias is not None:
        parts.append(reshaped(bias, (-1, *[1] * (len(out) - 2))))
    return union(parts, out)


@rule("convolution_backward convolution_backward_overrideable", "grad_output | input | weight")
def _convolution_backward(step: Step) -> Result:
    given, weight = step.meta("input").shape, step.meta("weight").shape
    back = step.meta("grad_output").shape
    if step["transposed"]:
        meeting = Meeting.of(step, back, given, weight)
    else:
        meeting = Meeting.of(step, given, back, weight)
    makers = (_gradient_of_input, _gradient_of_weight, _gradient_of_bias)
    return [
        None if meta is None else _joined(step, make(step, meeting), meta.shape)
        for make, meta in zip(makers, step.outs, strict=True)
    ]


def _joined(step: Step, parts: list[Dependence], shape: Shape) -> Dependence:
    return union(parts, shape) if parts else step.nothing(shape)


def _gradient_of_input(step: Step, meeting: Meeting) -> list[Dependence]:
    back, weights, transposed = step.dep("grad_output"), step.dep("weight"), step["transposed"]
    parts = []
    if back is not None:
        mask = None if weights is not None else meeting.known_zeros(step, "weight", back)
        parts.append((meeting.on_small if transposed else meeting.on_large)(back, mask))
    if weights is not None:
        make = meeting.weight_on_small if transposed else meeting.weight_on_large
        parts.append(make(weights))
    return parts


def _gradient_of_weight(step: Step, meeting: Meeting) -> list[Dependence]:
    back, inputs, transposed = step.dep("grad_output"), step.dep("input"), step["transposed"]
    parts = []
    if back is not None:
        parts.append((meeting.large_on_weight if transposed else meeting.small_on_weight)(back))
    if inputs is not None:
        parts.append((meeting.small_on_weight if transposed else meeting.large_on_weight)(inputs))
    return parts


def _gradient_of_bias(step: Step, meeting: Meeting) -> list[Dependence]:
    back = step.dep("grad_output")
    if back is None:
        return []
    found = merged(back, [d for d in range(len(back.shape)) if d != 1])
    return [reshaped(found, (back.shape[1],))]
