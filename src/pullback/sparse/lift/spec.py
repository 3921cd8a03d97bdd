"""How a lifted Jacobian is evaluated, without its function: positions in a graph, and arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..coloring import Coloring, Substitution
from ..pattern import SparsityPattern
from .factor import Terms
from .pairs import Pairs


@dataclass(frozen=True, eq=False)
class Factor:
    """One factor: the numbers, in the order of the graph's nodes, of the tensors that enter its
    differentiated part and of those that leave it; the coloring of that part; its assembly.

    ``pattern`` is that of the factor's matrix, (start elements, end elements). ``solving``, if
    given, puts its values together in the place of ``terms``.
    """

    entries: tuple[int, ...]
    exits: tuple[int, ...]
    coloring: Coloring
    mode: str
    terms: Terms
    pattern: SparsityPattern
    solving: Substitution | None = None


@dataclass(frozen=True, eq=False)
class Lift:
    """``J = G_1 G_2 ... G_K``; ``products[k]`` is the pattern of the first ``k + 2`` factors.
    ``pairs``, if given, multiplies two factors out.

    It holds for graphs of one ``key``, and while the floating point tensors in ``facts`` (name to
    digest) keep their content.
    """

    factors: tuple[Factor, ...]
    products: tuple[SparsityPattern, ...]
    key: str
    pairs: Pairs | None = None
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def num_products(self) -> int:
        return sum(f.coloring.num_colors for f in self.factors)

    @property
    def index_bytes(self) -> int:
        """Of the arrays that are kept beside the pattern of the whole."""
        if self.pairs is not None:
            return self.pairs.nbytes
        inner = [f.pattern for f in self.factors[:-1]] + list(self.products[:-1])
        if len(self.factors) > 1:
            inner.append(self.factors[-1].pattern)
        kept = sum(p.indices.nbytes + p.indptr.nbytes for p in inner)
        return kept + sum(f.terms.nbytes for f in self.factors)

    @property
    def assembly(self) -> str:
        """How the values follow from the products, in words."""
        if self.pairs is not None:
            return "each value is a sum of products of two entries"
        if len(self.factors) > 1:
            return f"{len(self.factors)} sparse factors are multiplied"
        terms = self.factors[0].terms
        counts = np.diff(terms.starts)
        most, constant = int(counts.max(initial=0)), int((counts == 0).sum())
        each = "one entry of a product" if most <= 1 else f"a sum of up to {most} entries"
        rest = f"; {constant:,} of {counts.size:,} are constant" if constant else ""
        return f"each value is {each}{rest}"

    @property
    def mode(self) -> str:
        modes = {f.mode for f in self.factors if f.coloring.num_colors}
        return modes.pop() if len(modes) == 1 else "mixed" if modes else "rev"
