"""Every check of a user's argument, and the wording of every refusal.

A check takes the public name of its caller first: the message starts with it, then names the
place in the argument, what is there, the rule, and what to write instead.
"""

from .builders import boolean_mask as boolean_mask
from .builders import cotangent_targets as cotangent_targets
from .builders import entry as entry
from .builders import one_tensor as one_tensor
from .builders import rows_of as rows_of
from .builders import usable_sum as usable_sum
from .cotangents import Offer as Offer
from .cotangents import batched_cotangents_for as batched_cotangents_for
from .cotangents import cotangents_for as cotangents_for
from .cotangents import missing_cotangents as missing_cotangents
from .cotangents import named_cotangent_missing as named_cotangent_missing
from .cotangents import named_cotangents as named_cotangents
from .cotangents import no_cotangent as no_cotangent
from .functions import HIDDEN_BACKWARD as HIDDEN_BACKWARD
from .functions import IN_PLACE_NOTE as IN_PLACE_NOTE
from .functions import NOT_ADJOINT as NOT_ADJOINT
from .functions import argnums_for as argnums_for
from .functions import compiled_region as compiled_region
from .functions import differentiable_outputs as differentiable_outputs
from .functions import differentiable_primals as differentiable_primals
from .functions import no_jvp as no_jvp
from .functions import output_and_aux as output_and_aux
from .functions import primals_are_a_tuple as primals_are_a_tuple
from .functions import refuse_outputs as refuse_outputs
from .functions import tangents_for as tangents_for
from .graphs import differentiable_inputs as differentiable_inputs
from .graphs import graph_is_freed as graph_is_freed
from .graphs import has_graph as has_graph
from .graphs import has_values as has_values
from .graphs import reentrant_checkpoint as reentrant_checkpoint
from .graphs import some_reached as some_reached
from .leaves import Leaves as Leaves
from .leaves import leaves_of as leaves_of
from .leaves import outside_transforms as outside_transforms
from .leaves import real_only as real_only
from .operands import numpy_dtype as numpy_dtype
from .operands import operand as operand
from .operands import real as real
from .options import chunk_size as chunk_size
from .options import flag as flag
from .options import known_name as known_name
from .options import one_of as one_of
from .words import article as article
from .words import axes as axes
from .words import can_carry_gradients as can_carry_gradients
from .words import dtype_text as dtype_text
from .words import first_line as first_line
from .words import layout as layout
from .words import listed as listed
from .words import shape_difference as shape_difference
from .words import shape_remedy as shape_remedy
from .words import shape_text as shape_text
