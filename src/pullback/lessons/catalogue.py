"""The lessons there are: number, title, one line, minutes; and where their sources lie."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

from .._checks import lessons as checks
from .source import Source, parse


@dataclass(frozen=True)
class Entry:
    """One lesson; ``slug`` is the name of its source and of its notebook, without the ending."""

    number: int
    slug: str
    title: str
    line: str
    minutes: int


ENTRIES = (
    Entry(
        1, "01_tensor_outputs", "From one number to many", "What a gradient is when out has 20.", 10
    ),
    Entry(
        2, "02_why_v", "Why backward needs v", "What v asks for, and what backward(v) computes.", 12
    ),
    Entry(
        3, "03_leaves", "Leaves, and where gradients land", "Why .grad is on inp, not on out.", 10
    ),
    Entry(
        4, "04_accumulation", "Accumulation and zeroing", "Why the second call doubles .grad.", 10
    ),
    Entry(
        5, "05_retain_graph", "retain_graph and freed graphs", "What a second backward needs.", 10
    ),
    Entry(
        6, "06_weighing", "Weighing outputs", "The exercise, solved; its questions, computed.", 15
    ),
    Entry(
        7, "07_rows", "Rows of J and whole Jacobians", "v J three ways, and all three equal.", 15
    ),
    Entry(8, "08_jvp", "Jacobian-vector products", "What they are, and when to prefer them.", 12),
    Entry(9, "09_sparse", "Sparse Jacobians and coloring", "Many rows of J from few products.", 15),
    Entry(
        10, "10_sensitivity", "Sensitivity of a real model", "What an output rests on, and why.", 15
    ),
    Entry(11, "11_broken", "None, in-place, NaN", "Break it, read the verdict, repair it.", 15),
    Entry(
        12, "12_custom_function", "Your own Function", "Write its backward; prove the adjoint.", 15
    ),
    Entry(13, "13_build_it", "Build it yourself", "A reverse-mode engine in about 80 lines.", 25),
)


def lessons() -> tuple[Entry, ...]:
    """The lessons whose source is here, in order."""
    return tuple(entry for entry in ENTRIES if _file(entry.slug).is_file())


def entry_of(number: int) -> Entry:
    found = [entry for entry in lessons() if entry.number == number]
    if not found:
        raise checks.no_such_lesson(number, [entry.number for entry in lessons()])
    return found[0]


@cache
def source_of(number: int) -> Source:
    """The cells of a lesson."""
    slug = entry_of(number).slug
    return parse(_file(slug).read_text(encoding="utf-8"), slug)


def _file(slug: str) -> resources.abc.Traversable:
    return resources.files(__package__) / "sources" / f"{slug}.py"
