"""Sources are cut into the right cells; a source that is not in order is refused with its line."""

from __future__ import annotations

import re

import pytest

import pullback as pb
from pullback.lessons.source import parse

GOOD = """\
# %% [markdown]
# # Title
#
# Text.

# %%
x = 1

# %% predict lands [markdown]
# Where?
#
# - a) here,
#   or near
# - b) there

# %% reveal lands
lesson.reveal("lands", a=x == 1, b=x == 2)

# %% exercise add [markdown]
# Add.


# %% solution add
def add(a, b):
    return a + b


# %% check add
lesson.check("add", add)
"""


def test_cells_have_their_role_key_text_and_line() -> None:
    source = parse(GOOD, "good")
    assert [(c.role, c.key) for c in source.cells] == [
        ("text", ""),
        ("code", ""),
        ("predict", "lands"),
        ("reveal", "lands"),
        ("exercise", "add"),
        ("solution", "add"),
        ("check", "add"),
    ]
    assert source.cells[0].text == "# Title\n\nText."
    assert source.cells[2].options == {"a": "here, or near", "b": "there"}
    assert source.cells[2].letters == "a or b"
    lines = GOOD.splitlines()
    for cell in source.cells:
        assert lines[cell.line - 1].removeprefix("# ") == cell.text.splitlines()[0]
    assert source.keys("predict") == ["lands"]
    assert source.cell("check", "add").text == 'lesson.check("add", add)'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# %% wonder\n", "lesson bad, line 1: 'wonder' is no kind of code; there is code, reveal, solution, check, yours, proof."),
        ("# %% proof x [markdown]\n# y\n", "lesson bad, line 1: 'proof x' is no kind of text; there is text, predict, exercise."),
        ("# %% code a b\n", "lesson bad, line 1: 'code a b' is no kind of code; there is code, reveal, solution, check, yours, proof."),
        ("# %% [raw]\n", "lesson bad, line 1: a cell's head is `# %% KIND KEY [markdown]`."),
        ("# %% predict [markdown]\n", "lesson bad, line 1: a predict cell needs a key: `# %% predict KEY`."),
        ("# %% [markdown]\n# a\nb\n", "lesson bad, line 3: a line of text begins with `# `."),
        ("# %% reveal x\n1\n", "lesson bad, line 2: reveal 'x' has no question."),
        ("# %% predict x [markdown]\n# - a) b\n# - b) c\n", "lesson bad, line 2: no reveal follows 'x'."),
        ("# %% predict x [markdown]\n# - a) b\n", "lesson bad, line 2: a prediction has options: `- a) ...`."),
        ("# %% predict x [markdown]\n# - a) b\n# - b) c\n# %% predict y [markdown]\n# - a) b\n# - b) c\n# %% reveal y\n1\n", "lesson bad, line 2: no reveal follows 'x'."),
        ("# %% exercise x [markdown]\n# b\n# %% solution x\nx = 1\n", "lesson bad, line 4: no check follows 'x'."),
        ("# %% exercise x [markdown]\n# b\n# %% solution y\nx = 1\n# %% check y\n1\n", "lesson bad, line 4: solution 'y' has no question."),
        ("# %% code x\n1\n# %% code x\n2\n", "lesson bad, line 4: there are two code cells 'x'."),
    ],
)  # fmt: skip
def test_a_source_that_is_not_in_order_is_refused(text: str, said: str) -> None:
    with pytest.raises(pb.ArgumentError, match=f"^{re.escape(said)}$"):
        parse(text, "bad")
