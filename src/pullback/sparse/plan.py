"""The plan of a sparse Jacobian: its pattern, its coloring, and how the entries are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch

from .. import draw
from .choice import choose
from .coloring import Coloring
from .evaluate import Assembly, Kept
from .leaf import Leaf, values_dtype
from .lift.spec import Lift
from .pattern import SparsityPattern


class Bytes(NamedTuple):
    """What an evaluation holds above one forward's activations and the plan's own indices.

    ``values`` are the nonzeros of the result, ``chunk`` the products that run at once, ``indices``
    the arrays that belong to the plan and are kept.
    """

    values: int
    chunk: int
    indices: int


@dataclass(eq=False)
class Plan:
    """How to compute one sparse Jacobian or Hessian at any point: made once, used many times.

    A plan belongs to the shapes and dtypes of the arguments and outputs that it was made with. It
    holds no function and no tensor of one: it can be saved, and shared between processes.

    - ``kind``: "jacobian", or "hessian" for the Jacobian of a gradient;
    - ``pattern``: which entries may be nonzero, a ``SparsityPattern`` of shape (m, n);
    - ``mode``: "rev" (VJPs), "fwd" (JVPs), "mixed" (some of both) or "dense" (one product for
      every row or column); ``reason`` says in a sentence why;
    - ``num_products``: how many products one evaluation takes;
    - ``notes``: where the pattern had to be pessimistic, and why a faster engine was left;
    - ``bytes``: what an evaluation holds, see ``Bytes``;
    - ``wrt``: the names of the module's tensors that the columns belong to, if it is for such;
    - ``lifted``: whether fixed linear maps (index movement, sums, scaling) were taken out of the
      differentiated part. The products are then those of what is left.
    """

    pattern: SparsityPattern
    colored: Coloring | None
    mode: str
    reason: str
    notes: tuple[str, ...]
    inputs: tuple[Leaf, ...]
    outputs: tuple[Leaf, ...]
    argnums: tuple[int, ...]
    chunk_size: int
    bytes_per_product: int
    key: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    user_pattern: bool = False
    of_one_point: bool = False
    lifted_products: int | None = None
    lift: Lift | None = field(default=None, repr=False)
    no_forward: str = ""
    kind: str = "jacobian"
    wrt: tuple[str, ...] = ()
    torch_version: str = torch.__version__

    @property
    def lifted(self) -> bool:
        """Whether fixed linear maps were taken out of the differentiated part."""
        return self.lifted_products is not None

    @property
    def num_products(self) -> int:
        """How many products one evaluation takes, summed over the factors of a lift."""
        if self.lifted_products is not None:
            return self.lifted_products
        return self.coloring.num_colors

    @cached_property
    def coloring(self) -> Coloring:
        """Of the whole Jacobian. A lifted plan makes it when the function itself has to run."""
        if self.colored is not None:
            return self.colored
        return choose(self.pattern, "auto", forward=self.no_forward).coloring

    @cached_property
    def kept(self) -> Kept:
        return Kept()

    @cached_property
    def assembly(self) -> Assembly:
        """Of products of the whole Jacobian."""
        return Assembly(self.pattern, self.coloring, self.kept)

    @cached_property
    def dtype(self) -> torch.dtype:
        """Of the values: what the dtypes of inputs and outputs promote to, real."""
        return values_dtype(self.inputs, self.outputs)

    @property
    def bytes(self) -> Bytes:
        """What an evaluation holds: values, one chunk of products, indices."""
        width = self.dtype.itemsize
        products = self.num_products
        if self.colored is None or self.colored.kind != "acyclic":
            products = min(self.chunk_size, products)
        pattern = self.pattern
        if self.lift is not None:
            kept = 0 if pattern.is_full else pattern.indices.nbytes + pattern.indptr.nbytes
            return Bytes(
                pattern.nnz * width,
                products * self.bytes_per_product,
                self.lift.index_bytes + kept,
            )
        m, n = pattern.shape
        split = self.coloring.split
        colored = (m if split.rows else 0) + (n if split.columns else 0)
        index = 4 if pattern.is_full else pattern.indices.itemsize
        places = 0 if pattern.is_full else 2 * pattern.nnz + m + 1
        return Bytes(
            pattern.nnz * width,
            products * self.bytes_per_product,
            (places + colored) * index,
        )

    def save(self, path: str | Path) -> None:
        """Write the plan to a file that ``Plan.load`` reads back: arrays and JSON, no pickle.

        Raises:
            OSError: the file cannot be written.
        """
        from .storage import save

        save(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan that ``save`` wrote. Nothing in the file is executed.

        Raises:
            RecordFormatError: the file is no plan, is damaged, or was written in another format
                or under another torch version.
            OSError: the file cannot be read.
        """
        from .storage import load

        return load(path)

    def __repr__(self) -> str:
        m, n = self.pattern.shape
        products = "product" if self.num_products == 1 else "products"
        side = {"fwd": n, "rev": m}.get(self.mode, min(m, n))
        lifted = ", lifted" if self.lifted else ""
        of = " of a Hessian" if self.kind == "hessian" else ""
        count = f"{draw.count(self.num_products)} {products}"
        lines = [
            f"Plan{of} {draw.count(m)} × {draw.count(n)}: {count} instead of "
            f"{draw.count(side)}, mode {self.mode}{lifted}",
            f"  {self.reason}",
        ]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join([*lines, repr(self.pattern)])
