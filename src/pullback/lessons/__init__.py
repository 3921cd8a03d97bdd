"""Runnable lessons: predict, reveal, answer, and have the answer checked on several inputs."""

from .lesson import Lesson as Lesson
from .lesson import open_lesson as open_lesson
