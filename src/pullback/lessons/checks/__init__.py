"""Judges of the exercises, one module per lesson; each names its own in ``EXERCISES``."""
