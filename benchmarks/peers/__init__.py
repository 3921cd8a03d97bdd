"""What other programs are measured on: the same problems in torch and in JAX, each in its own
process. Nothing here imports torch and JAX together, and the library imports nothing from here."""
