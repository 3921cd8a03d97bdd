"""The pytest plugin, in runs of pytest of its own."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import pullback as pb

ROOT = Path(__file__).parents[1]
pytest_plugins = ["pytester"]

# Backward fails in autograd, for the write in place on line 4.
BROKEN = """\
import torch
def program():
    x = torch.zeros(2, requires_grad=True)
    y = x.exp(); y += 1
    y.sum().backward()
"""
TRACED = """
import pullback as pb
def traced():
    import torch
    x = torch.zeros(2, requires_grad=True)
    try:
        pb.assert_no_cut((x * 2).sum())
    except pb.GraphError:
        return False
    return True
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """An empty project, where a distribution with the entry points of this one is installed."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    points = declared["entry-points"]["pytest11"]
    installed = pytester.mkdir("installed")
    info = installed / "pullback-0.0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pullback\nVersion: 0.0.0\n")
    lines = [f"{name} = {value}" for name, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[pytest11]", *lines]) + "\n")
    monkeypatch.syspath_prepend(str(installed))
    monkeypatch.syspath_prepend(str(ROOT / "src"))
    monkeypatch.setenv("PYTHONPATH", f"{installed}:{ROOT / 'src'}")
    pytester.makepyfile(broken=BROKEN, helpers=TRACED)
    monkeypatch.syspath_prepend(str(pytester.path))
    return pytester


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """``pb.diagnose`` stands in for itself, and keeps what it was asked about."""
    asked: list[BaseException] = []

    def diagnose(error: BaseException) -> pb.Verdict:
        asked.append(error)
        if "inplace" not in str(error):
            return pb.Verdict("unknown_error", "It is none of autograd's.")
        return pb.Verdict("modified_in_place", "The told reason.", fix="The told fix.")

    monkeypatch.setattr(pb, "diagnose", diagnose)
    return asked


def test_without_the_option_nothing_is_traced_or_said(
    project: pytest.Pytester, stub: list[BaseException]
) -> None:
    project.makepyfile(
        """
        from broken import program
        from helpers import traced
        def test_error(): program()
        def test_trace(): assert not traced()
        """
    )
    result = project.runpytest_inprocess("-W", "error", "--strict-markers")
    result.assert_outcomes(failed=1, passed=1)
    assert stub == []
    assert "pullback -" not in result.stdout.str()


def test_the_option_traces_every_test_and_tells_errors(
    project: pytest.Pytester, stub: list[BaseException]
) -> None:
    project.makepyfile(
        """
        import unittest, pytest
        from broken import program
        from helpers import traced
        def test_error(): program()
        def test_other_error(): raise ValueError("of the user's own")
        def test_trace(): assert traced()
        @pytest.mark.xfail(strict=True)
        def test_expected(): program()
        class TestOld(unittest.TestCase):
            def test_trace(self): assert traced()
            def test_error(self): program()
        """
    )
    result = project.runpytest_inprocess("--pullback", "-W", "error")
    result.assert_outcomes(failed=3, passed=2, xfailed=1)
    told = result.stdout.str()
    assert told.count("- pullback -") == 2, told
    assert told.count("The told reason.") == 2
    assert told.count("The told fix.") == 2
    assert [type(error) for error in stub] == [RuntimeError, ValueError, RuntimeError]
    assert "none of autograd's" not in told


def test_nothing_stays_traced(project: pytest.Pytester, stub: list[BaseException]) -> None:
    project.makepyfile(
        """
        import pytest
        from broken import program
        from helpers import traced
        @pytest.mark.pullback
        def test_marked_error(): program()
        @pytest.mark.pullback
        def test_marked(): assert traced()
        def test_after(): assert not traced()
        def test_with_the_fixture(gradient_trace): assert traced()
        def test_after_the_fixture(): assert not traced()
        def test_error_with_the_fixture(gradient_trace): program()
        """
    )
    result = project.runpytest_inprocess("-W", "error", "--strict-markers")
    result.assert_outcomes(failed=2, passed=4)
    assert result.stdout.str().count("The told reason.") == 2
    assert len(stub) == 2


def test_a_broken_contract_points_to_the_line_of_the_test(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import torch, pullback as pb
        def test_contract():
            x, w = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
            loss = (x.detach() * w).sum()
            pb.assert_reaches(loss, {"x": x, "w": w})  # line 5
        """
    )
    result = project.runpytest_inprocess("--pullback")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*is missing at 1 of 2 tensors.", "*x: cut", "*test_*.py:4*x.detach()*", "*test_*.py:5: *"]
    )
    assert "testing/reach.py" not in result.stdout.str()


def test_a_diagnosis_that_fails_does_not_hide_the_error(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diagnose(error: BaseException) -> pb.Verdict:
        raise KeyError("a hole")

    monkeypatch.setattr(pb, "diagnose", diagnose)
    project.makepyfile("def test_error(): raise ValueError('the users')")
    result = project.runpytest_inprocess("--pullback")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*ValueError: the users*", "*diagnose failed with KeyError*"])


def test_what_the_section_says_of_a_write_in_place(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        from broken import program
        def test_error(): program()
        def test_of_the_users_own(): raise ValueError("none of autograd's")
        def test_refused():
            import torch, pullback as pb
            pb.record(torch.ones(2))
        """
    )
    result = project.runpytest_inprocess("--pullback", "-W", "error")
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(["*- pullback -*", "modified in place", "*broken.py:4*"])
    assert result.stdout.str().count("- pullback -") == 1


def test_it_can_be_left_out(project: pytest.Pytester) -> None:
    project.makepyfile(
        "def test_it(request): assert not hasattr(request.config.option, 'pullback')"
    )
    project.runpytest_inprocess("-p", "no:pullback").assert_outcomes(passed=1)
    refused = project.runpytest_inprocess("-p", "no:pullback", "--pullback")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR


def test_workers_trace_and_send_their_sections(project: pytest.Pytester) -> None:
    project.makepyfile(
        conftest="""
        import pullback as pb
        pb.diagnose = lambda error: pb.Verdict("modified_in_place", "The told reason.")
        """,
        test_in_workers="""
        from broken import program
        from helpers import traced
        def test_error(): program()
        def test_trace(): assert traced()
        """,
    )
    result = project.runpytest_subprocess("--pullback", "-n", "1", "-p", "xdist")
    result.assert_outcomes(failed=1, passed=1)
    assert result.stdout.str().count("The told reason.") == 1


def test_other_projects_do_not_import_torch(project: pytest.Pytester) -> None:
    """The plugin is imported by pytest in every project of the environment."""
    project.makepyfile(
        """
        import sys
        def test_modules(request):
            assert request.config.pluginmanager.has_plugin("pullback")
            assert "pullback_pytest" in sys.modules
            assert {"torch", "numpy", "pullback"} & set(sys.modules) == set()
        """
    )
    project.path.joinpath("broken.py").unlink()
    project.runpytest_subprocess().assert_outcomes(passed=1)


def test_importing_it_costs_what_pytest_costs(project: pytest.Pytester) -> None:
    """Beyond pytest itself it imports nothing at all."""
    code = (
        "import sys, pytest, typing, collections.abc; before = set(sys.modules); "
        "import pullback_pytest; print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['pullback_pytest']"
