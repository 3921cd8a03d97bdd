"""The pytest plugin: ``pytest --pullback``, ``pytest.mark.pullback``, fixture ``gradient_trace``.

It stands beside the package, not in it: pytest imports the plugins of every installed
distribution, and importing the package would import torch, in projects that have nothing to do
with either. Nothing of pullback is imported before a test has asked for it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import pullback

_OPTION = "--pullback"
_MARKER = "pullback"
_FIXTURE = "gradient_trace"
# Not autograd's; or a refusal of pullback's, which says all by itself.
_NOTHING_TO_ADD = ("unknown_error", "refused")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("pullback").addoption(
        _OPTION,
        action="store_true",
        help="run every test inside pullback.trace(), and say what errors of autograd mean",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"{_MARKER}: run the test inside pullback.trace(), and say what an error of autograd means",
    )


@pytest.fixture
def gradient_trace() -> Iterator[pullback.trace]:
    """The test, and the fixtures that it asks for later, run inside ``pullback.trace()``."""
    import pullback

    with pullback.trace() as block:
        yield block


# Wrappers of the old kind: one of the new kind would stop a pytest that does not know them.
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, None]:
    if not _is_traced(item):
        yield
        return
    import pullback

    with pullback.trace():
        yield


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, None]:
    outcome = yield
    asked = _is_traced(item) or _FIXTURE in getattr(item, "fixturenames", ())
    if not asked or call.excinfo is None:
        return
    report = outcome.get_result()
    told = _diagnosis(call.excinfo.value) if report.failed else ""
    if told:
        report.sections.append(("pullback", told))


def _is_traced(item: pytest.Item) -> bool:
    return bool(item.config.getoption(_OPTION)) or item.get_closest_marker(_MARKER) is not None


def _diagnosis(error: BaseException) -> str:
    import pullback

    try:
        verdict = pullback.diagnose(error)
    except Exception as failed:  # the report of the user's own error must not be lost for it
        return f"pullback.diagnose failed with {type(failed).__name__}: {failed}"
    return "" if verdict.code in _NOTHING_TO_ADD else str(verdict)
