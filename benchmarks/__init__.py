"""Timings of pullback beside torch and other programs: ``python -m benchmarks [name ...]``."""
