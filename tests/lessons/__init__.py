"""Lessons: they run, what they say is so, and their checks tell right answers from wrong ones."""
