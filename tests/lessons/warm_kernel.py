"""Kernels that start warm: forked from a process that has imported what every lesson imports.

``python warm_kernel.py serve SOCKET`` waits for connection files. As a kernel's command,
``python warm_kernel.py SOCKET CONNECTION_FILE`` hands its own over and lives as long as the kernel,
a process of its own with a fresh namespace.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def serve(address: str) -> None:
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # as kernels do
    for name in ("ipykernel.kernelapp", "matplotlib.pyplot", "pullback"):
        importlib.import_module(name)

    with socket.socket(socket.AF_UNIX) as door:
        door.bind(address)
        door.listen()
        print("ready", flush=True)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # kernels that end leave nothing behind
        while True:
            caller, _ = door.accept()
            if os.fork() == 0:
                door.close()
                _become_kernel(caller)
            caller.close()


def _become_kernel(caller: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    told = json.loads(caller.makefile().readline())
    os.chdir(told["folder"])
    os.environ.clear()
    os.environ.update(told["environment"])
    sys.argv = ["ipykernel_launcher", "-f", told["file"], *told["options"]]
    from ipykernel import kernelapp

    kernelapp.launch_new_instance()
    os._exit(0)  # which closes ``caller``: the one who waits there ends, too


def wait_for_kernel(address: str, file: str, *options: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "JPY_PARENT_PID"}
    told = {"folder": os.getcwd(), "environment": environment, "file": file, "options": options}
    with socket.socket(socket.AF_UNIX) as kernel:
        kernel.connect(address)
        kernel.sendall(json.dumps(told).encode() + b"\n")
        kernel.recv(1)  # nothing comes: it returns when the kernel has ended


@contextmanager
def kernels(folder: Path) -> Iterator[Path]:
    """A folder to name in ``JUPYTER_PATH``: its kernel ``python3`` starts warm."""
    address = str(folder / "kernels.sock")
    command = [sys.executable, __file__, address, "{connection_file}"]
    spec = folder / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    written = {"argv": command, "display_name": "Python 3", "language": "python"}
    spec.write_text(json.dumps(written), encoding="utf-8")
    command = [sys.executable, __file__, "serve", address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            yield folder
        finally:
            server.kill()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        wait_for_kernel(*sys.argv[1:])
