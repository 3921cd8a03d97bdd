"""The explorer's server: its own page is answered, everything else is refused."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import pullback as pb
from pullback.commands import explore
from pullback.commands.server import Server
from tests.backward.pages import decoded


class Served:
    def __init__(self) -> None:
        self.x = torch.randn(3, requires_grad=True)
        self.y = self.x.exp() * self.x
        self.record = pb.record(self.y, torch.ones(3), inputs={"x": self.x})
        self.server = Server(self.record)
        self.origin = f"http://{self.server.host}"

    def ask(
        self, method: str, path: str, body: bytes = b"", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.server.host, timeout=20)
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        if "Content_Length" not in headers and body:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        found = answer.status, dict(answer.getheaders()), answer.read()
        connection.close()
        return found


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.stop()
    thread.join()
    made.server.close()


def test_the_page_is_at_its_token_alone(served: Served) -> None:
    status, headers, body = served.ask("GET", f"/{served.server.token}/")
    assert status == 200
    assert b'id="explorer"' in body
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"
    for path in ("/", "/x/", f"/{served.server.token[:-1]}/", f"/{served.server.token}/../etc"):
        assert served.ask("GET", path)[0] == 404, path


def test_tokens_differ_and_it_listens_to_this_machine_alone(served: Served) -> None:
    other = Server(served.record)
    try:
        assert other.token != served.server.token
        assert len(other.token) >= 32
        assert other.host.startswith("127.0.0.1:")
        assert other._http.server_address[0] == "127.0.0.1"
    finally:
        other.close()


def test_another_name_for_this_machine_is_refused(served: Served) -> None:
    """A site whose name resolves to 127.0.0.1 would else read the page."""
    status, _, body = served.ask("GET", f"/{served.server.token}/", Host="evil.example")
    assert status == 403
    assert body == b"this server answers under its own name only"


def answer(served: Served, body: Any, **headers: str) -> tuple[int, Any]:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"Origin": served.origin, **headers}
    found = served.ask("POST", f"/{served.server.token}/answer", text, **given)
    return found[0], json.loads(found[2]) if found[1]["Content-Type"].endswith("json") else found[2]


def test_questions_are_answered_by_torch(served: Served) -> None:
    v = [0.5, -1.0, 2.0]
    status, body = answer(served, {"v": [v]})
    assert status == 200
    deposit = served.record.document(editable=False)["leaves"][0]["deposit"]
    (wanted,) = torch.autograd.grad(served.y, served.x, torch.tensor(v))
    assert decoded(body["values"][str(deposit)]).tolist() == wanted.double().tolist()


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", None])
def test_questions_of_other_pages_are_refused(served: Served, origin: str | None) -> None:
    text = json.dumps({"v": [[1.0, 1.0, 1.0]]}).encode()
    headers = {} if origin is None else {"Origin": origin}
    status, _, body = served.ask("POST", f"/{served.server.token}/answer", text, **headers)
    assert (status, body) == (403, b"questions come from the page itself")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"{", "the question is not JSON"),
        (b"[" * 100_000, "the question is not JSON"),
        (b"\xff\xfe", "the question is not JSON"),
        ({"v": [[1.0]]}, "explore: `v` has [1] entries, but the outputs have [3]."),
        (b'{"v": [[1, 2, NaN]]}', "explore: `v` holds nan; its entries are finite numbers."),
        (
            b'{"v": [[1, 2, %b]]}' % (b"9" * 400),
            f"explore: `v` holds {'9' * 400}; its entries are finite numbers.",
        ),
    ],
)
def test_bad_questions_are_told(served: Served, body: Any, error: str) -> None:
    assert answer(served, body) == (400, {"error": error})


@pytest.mark.parametrize("length", ["-1", "x", "99999999999", "9" * 5000, "", "1_0", "\xb2"])
def test_lengths_that_cannot_be_are_refused(served: Served, length: str) -> None:
    status, body = answer(served, b"{}", Content_Length=length)
    assert (status, body) == (413, b"the question has no length, or is too long")


def test_the_door_leads_to_the_page_once(served: Served) -> None:
    """It stands in the command line of the browser, where every user of the machine reads it."""
    assert served.server.token not in served.server.door
    path = served.server.door.removeprefix(served.origin)
    assert served.ask("GET", path, Host="evil.example")[0] == 403
    status, headers, _ = served.ask("GET", path)
    assert (status, headers["Location"]) == (303, f"/{served.server.token}/")
    assert served.ask("GET", path)[0] == 404


def test_a_browser_is_told_the_door_and_not_the_token(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []
    monkeypatch.setattr(explore, "Server", lambda *_: served.server)
    monkeypatch.setattr(explore.webbrowser, "open", told.append)
    monkeypatch.setattr(served.server, "serve_forever", lambda: None)
    monkeypatch.setattr(served.server, "close", lambda: None)
    assert explore.run(explore.Request()) == 0
    assert told == [served.server.door]
    assert served.server.url in capsys.readouterr().out


def test_the_head_of_the_page_has_its_length_and_no_body(served: Served) -> None:
    path = f"/{served.server.token}/"
    status, headers, body = served.ask("HEAD", path)
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) == len(served.ask("GET", path)[2])
    assert served.ask("HEAD", "/x/")[0] == 404


def test_a_refused_connection_is_closed(served: Served) -> None:
    assert served.ask("GET", "/x/")[1]["Connection"] == "close"


def test_a_client_that_goes_away_leaves_nothing_on_the_terminal(
    served: Served, capfd: pytest.CaptureFixture[str]
) -> None:
    host, _, port = served.server.host.partition(":")
    head = f"GET /{served.server.token}/ HTTP/1.1\r\nHost: {served.server.host}\r\n\r\n"
    for _ in range(5):
        with socket.create_connection((host, int(port))) as client:
            at_once = struct.pack("ii", 1, 0)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
            client.sendall(head.encode())
    assert served.ask("GET", f"/{served.server.token}/")[0] == 200
    time.sleep(0.3)
    assert capfd.readouterr().err == ""


def test_other_methods_are_refused(served: Served) -> None:
    for method in ("PUT", "DELETE", "OPTIONS"):
        assert served.ask(method, f"/{served.server.token}/")[0] == 501


def test_a_taken_port_is_named(served: Served) -> None:
    port = int(served.server.host.rpartition(":")[2])
    with pytest.raises(pb.ArgumentError, match=f"^explore: --port {port} cannot be used \\("):
        Server(served.record, port)
    with pytest.raises(pb.ArgumentError, match="^explore: --port 99999999 cannot be used"):
        Server(served.record, 99999999)
