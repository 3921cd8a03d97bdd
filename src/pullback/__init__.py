"""pullback: what a tensor's backward pass computes, weighs and explains."""

from .backward.provenance import trace as trace
from .backward.record import BackwardRecord as BackwardRecord
from .backward.recorder import record as record
