"""Colorings: which rows or columns may share a product, and how to read entries back."""

from .api import color as color
from .recover import Sources as Sources
from .recover import grouped as grouped
from .recover import recover as recover
from .recover import seeds as seeds
from .recover import sources as sources
from .result import Coloring as Coloring
from .result import Split as Split
from .substitution import Substitution as Substitution
from .substitution import substitution as substitution
