"""How a pattern goes through one ATen call: a file for each family of operators.

Every rule lists the arguments in which its operator is linear. A cotangent that stands anywhere
else makes the backward nonlinear, and no Jacobian can be put together from a few of its products.
"""

from . import accumulation as accumulation
from . import attention as attention
from . import contraction as contraction
from . import convolution as convolution
from . import fourier as fourier
from . import indexing as indexing
from . import linalg as linalg
from . import losses as losses
from . import movement as movement
from . import normalization as normalization
from . import pointwise as pointwise
from . import pooling as pooling
from . import recurrent as recurrent
from . import reduction as reduction
from . import resampling as resampling
from . import scan as scan
from . import softmax as softmax
from .base import RULES as RULES
from .base import Step as Step
