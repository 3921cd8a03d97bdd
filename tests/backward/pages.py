"""A page's document read back, and the arithmetic that the page does with it, in numpy."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import numpy.typing as npt

KINDS = {"f8": "<f8", "f4": "<f4", "i4": "<i4"}


def decoded(packed: dict[str, Any]) -> npt.NDArray[Any]:
    return np.frombuffer(base64.b64decode(packed["data"]), KINDS[packed["type"]])


def followed(
    document: dict[str, Any], weights: npt.NDArray[np.float64]
) -> dict[int, npt.NDArray[np.float64]]:
    """Every quantity that the page can follow, for these weights of its basis."""
    found = {}
    for number, rows in document["responses"].items():
        starts, indices = decoded(rows["starts"]), decoded(rows["indices"])
        values = decoded(rows["values"])
        total = np.zeros(rows["width"])
        for row, weight in enumerate(weights):
            part = slice(starts[row], starts[row + 1])
            np.add.at(total, indices[part], weight * values[part].astype(np.float64))
        found[int(number)] = total
    return found


def expected(document: dict[str, Any]) -> dict[int, npt.NDArray[Any]]:
    """The recorded values of every quantity that was kept."""
    return {
        number: decoded(quantity["values"])
        for number, quantity in enumerate(document["quantities"])
        if quantity["values"] is not None
    }


def weights_of(cotangents: list[Any]) -> npt.NDArray[np.float64]:
    return np.concatenate([v.detach().double().reshape(-1).numpy() for v in cotangents])
