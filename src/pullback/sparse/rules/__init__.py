"""How a pattern goes through one ATen call: a file for each family of operators.

Every rule lists the arguments in which its operator is linear. A cotangent that stands anywhere
else makes the backward nonlinear, and no Jacobian can be put together from a few of its products.
"""

from . import movement as movement
from . import pointwise as pointwise
from . import reduction as reduction
from .base import RULES as RULES
from .base import Step as Step
