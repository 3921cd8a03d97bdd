"""Contracts about gradients, for tests: what must reach what, uncut and finite."""

from .._errors import GradientAssertionError as GradientAssertionError
from .cut import assert_no_cut as assert_no_cut
from .finite import assert_finite as assert_finite
from .reach import assert_reaches as assert_reaches
