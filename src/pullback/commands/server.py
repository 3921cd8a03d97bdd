"""A page of a record for this machine alone: its address holds a token that no other page knows.

The server listens on 127.0.0.1, answers only addresses that begin with the token, only under the
name it was given (another name that resolves here is another site's), and takes questions only
from its own page. The address that opens a browser stands in that browser's command line, which
every user of the machine can read: it holds a second token, good for one request.
"""

from __future__ import annotations

import json
import secrets
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .. import _checks
from .._errors import PullbackError
from ..backward import views
from ..backward.questions import answered
from ..backward.record import BackwardRecord
from ..draw.explorer import to_html

_HOST = "127.0.0.1"
_LARGEST_QUESTION = 16 << 20
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


class Server:
    """The page of ``record`` at ``url`` while ``serve_forever`` runs; ``door`` leads there once."""

    def __init__(self, record: BackwardRecord, port: int = 0) -> None:
        self.token = secrets.token_urlsafe(24)
        try:
            self._http = _Quiet((_HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise _checks.port_taken("explore", port, str(error)) from None
        self.host = f"{_HOST}:{self._http.server_port}"
        self.url = f"http://{self.host}/{self.token}/"
        options = {"live": {"url": f"/{self.token}/answer"}}
        page = to_html(record.document(), views.full_page(record), options)
        app = _App(record, page, self.token, self.host)
        self.door = f"http://{self.host}{app.door}"
        self._http.app = app

    def serve_forever(self) -> None:
        self._http.serve_forever(poll_interval=0.1)

    def close(self) -> None:
        self._http.server_close()

    def stop(self) -> None:
        """End ``serve_forever`` from another thread."""
        self._http.shutdown()


class _Quiet(ThreadingHTTPServer):
    """A client that goes away, or is too slow, is no news for the terminal."""

    app: _App

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _App:
    def __init__(self, record: BackwardRecord, page: str, token: str, host: str) -> None:
        self.page, self.token, self.host = page, token, host
        self.door = f"/{secrets.token_urlsafe(24)}"
        self._opened = False
        self._record = record
        self._lock = threading.Lock()  # one pass at a time: the hooks are on one graph

    def open(self, path: str) -> bool:
        """Whether ``path`` is the door, and nobody went through it before."""
        if not _equal(path, self.door):
            return False
        with self._lock:
            first, self._opened = not self._opened, True
        return first

    def answer(self, body: bytes) -> tuple[int, dict[str, Any]]:
        try:
            question = json.loads(body)
        except (ValueError, RecursionError):
            return 400, {"error": "the question is not JSON"}
        try:
            with self._lock:
                return 200, answered(self._record, question)
        except PullbackError as error:
            return 400, {"error": str(error)}
        except RuntimeError as error:
            return 500, {"error": _checks.first_line(error)}


class _Handler(BaseHTTPRequestHandler):
    server_version = "pullback"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = 30

    @property
    def _app(self) -> _App:
        app: _App = self.server.app  # type: ignore[attr-defined]
        return app

    def do_GET(self) -> None:
        if self._host_is_right() and self._app.open(self.path):
            self._send(303, "text/plain", b"", Location=f"/{self._app.token}/")
        elif self._allowed("/"):
            self._send(200, "text/html; charset=utf-8", self._app.page.encode())

    def do_HEAD(self) -> None:
        if self._allowed("/"):
            self._send(200, "text/html; charset=utf-8", self._app.page.encode())

    def do_POST(self) -> None:
        if not self._allowed("/answer"):
            return
        origin = self.headers.get("Origin")
        if origin != f"http://{self._app.host}":
            self._refuse(403, "questions come from the page itself")
            return
        length = self._length()
        if length is None:
            self._refuse(413, "the question has no length, or is too long")
            return
        status, body = self._app.answer(self.rfile.read(length))
        text = json.dumps(body, allow_nan=False).encode()
        self._send(status, "application/json", text)

    def _length(self) -> int | None:
        text = self.headers.get("Content-Length", "")
        plain = text.isascii() and text.isdigit() and len(text) <= 9
        return int(text) if plain and int(text) <= _LARGEST_QUESTION else None

    def _host_is_right(self) -> bool:
        return self.headers.get("Host") == self._app.host

    def _allowed(self, rest: str) -> bool:
        if not self._host_is_right():
            self._refuse(403, "this server answers under its own name only")
            return False
        if not _equal(self.path, f"/{self._app.token}{rest}"):
            self._refuse(404, "there is nothing at this address; use the one that was printed")
            return False
        return True

    def _refuse(self, status: int, text: str) -> None:
        self.close_connection = True
        self._send(status, "text/plain; charset=utf-8", text.encode())

    def _send(self, status: int, kind: str, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None: ...


def _equal(path: str, secret: str) -> bool:
    return secrets.compare_digest(path.encode("utf-8", "replace"), secret.encode())
