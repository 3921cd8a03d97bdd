"""Functions of tensors for the solvers of SciPy: arrays in, arrays and sparse matrices out.

``residual`` serves ``least_squares``, ``root`` and ``NonlinearConstraint``, ``ode`` serves
``solve_ivp``, and ``objective`` serves ``minimize``. Each plans its sparse matrix once.
"""

from ._objective import Objective, objective
from ._residual import Ode, Residual, ode, residual

__all__ = ["Objective", "Ode", "Residual", "objective", "ode", "residual"]
