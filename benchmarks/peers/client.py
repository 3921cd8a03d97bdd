"""Our end of the pipe to a peer: find its environment, start it, ask it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import scipy.sparse

from ..problems.catalogue import Problem

ROOT = Path(__file__).parents[2]
VENV = ROOT / ".venv-bench"
PATIENCE = 300.0
INSTALL = "make peers"


class PeerError(RuntimeError):
    """The peer refused a problem, broke, or took too long."""


def _leave_room() -> None:
    """A peer that wants more than this is refused by the system, which else ends other programs."""
    most = int(0.75 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def interpreter() -> str | None:
    """A Python that can import jax and asdex: this one, or that of ``.venv-bench``."""
    for python in (Path(sys.executable), VENV / "bin" / "python"):
        if python.exists():
            tried = [str(python), "-c", "import jax, asdex"]
            if subprocess.run(tried, capture_output=True, check=False).returncode == 0:
                return str(python)
    return None


class JaxPeers:
    """asdex and sparsejac in a process of their own, on ``threads`` CPUs. A context manager."""

    def __init__(self, python: str, threads: int, patience: float = PATIENCE) -> None:
        self._command = [python, "-m", "benchmarks.peers.jax_worker", str(threads)]
        self._environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "OMP_NUM_THREADS": str(threads),
            "NUMBA_NUM_THREADS": str(threads),
        }
        self._patience = patience
        self._process: subprocess.Popen[str] | None = None
        self._problem: Problem | None = None
        self._lost = ""

    def __enter__(self) -> JaxPeers:
        return self

    def __exit__(self, *raised: object) -> None:
        self._stop()

    def versions(self) -> str:
        return ", ".join(f"{name} {version}" for name, version in self._ask("versions").items())

    def open(self, problem: Problem) -> None:
        self._problem, self._lost = problem, ""
        self._ask("open", **asdict(problem))

    def seconds(self, do: str, calls: int, **request: Any) -> float:
        """Of one call, after ``calls`` of them."""
        return float(self._ask(do, calls=calls, **request)["seconds"])

    def forward(self) -> None:
        self._ask("forward")

    def peak(self) -> int:
        """Bytes of the process's peak so far."""
        return int(self._ask("peak")["bytes"])

    def facts(self) -> dict[str, Any]:
        return self._ask("facts")

    def matrix(self, form: str) -> scipy.sparse.csr_array:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "matrix.npz"
            self._ask("matrix", form=form, path=str(path))
            with np.load(path) as parts:
                places = (parts["rows"], parts["cols"])
                return scipy.sparse.coo_array(
                    (parts["values"], places), shape=tuple(parts["shape"])
                ).tocsr()

    def _ask(self, do: str, **request: Any) -> dict[str, Any]:
        if self._lost:  # it would take as long, and as much memory, to end there again
            raise PeerError(self._lost)
        if self._process is None:
            self._start()
            if do not in ("open", "versions") and self._problem is not None:
                self._ask("open", **asdict(self._problem))
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        clock = Timer(self._patience, process.kill)
        clock.start()
        try:
            process.stdin.write(json.dumps({"do": do, **request}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            clock.cancel()
        if not line:
            code = process.wait()
            self._stop()
            self._lost = f"the process ended ({code}) or gave no answer in {self._patience:.0f} s"
            raise PeerError(self._lost)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer

    def _start(self) -> None:
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=_leave_room,
        )

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
