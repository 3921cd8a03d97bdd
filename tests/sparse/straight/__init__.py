"""Straight lines of calls."""
