"""pullback: what a tensor's backward pass computes, weighs and explains."""

from . import cotangents as cotangents
from ._errors import ArgumentError as ArgumentError
from ._errors import CotangentError as CotangentError
from ._errors import GraphError as GraphError
from ._errors import PullbackError as PullbackError
from ._errors import RecordFormatError as RecordFormatError
from ._errors import TreeError as TreeError
from ._errors import UnsupportedError as UnsupportedError
from ._operator import JacobianOperator as JacobianOperator
from ._products import VJP as VJP
from ._products import jvp as jvp
from ._products import vjp as vjp
from ._sensitivity import Sensitivity as Sensitivity
from ._sensitivity import sensitivity as sensitivity
from .backward.explain import Explanation as Explanation
from .backward.explain import explain as explain
from .backward.provenance import trace as trace
from .backward.record import BackwardRecord as BackwardRecord
from .backward.recorder import record as record
