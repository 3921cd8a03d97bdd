"""The problems of the Jacobians and Hessians: numbers in NumPy, the functions in torch and in JAX.

``catalogue`` names them, ``numbers`` draws what both frameworks share, ``in_torch`` and ``in_jax``
hold the functions, ``by_hand`` derivatives that a person would write. No file imports both torch
and JAX.
"""
