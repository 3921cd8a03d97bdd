"""How other programs are measured: ``torch.func`` here, JAX's in a process of their own.

Nothing here imports torch and JAX together, and the library imports nothing from here.
"""
