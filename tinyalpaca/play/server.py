"""The server behind `tinyalpaca play`: the standard library's, bound to this machine only.

Every user of a machine can reach its loopback. So each address begins with a random token, and
requests without it are refused. The page uses no outside resource, and its policy forbids any.
"""

from __future__ import annotations

import json
import secrets
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tinyalpaca.generation.token_page import with_view
from tinyalpaca.play.session import Session

LOOPBACK = "127.0.0.1"
LONGEST_REQUEST = 1 << 20  # bytes
PATIENCE = 60  # seconds that a request may be silent, or its answer unread
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",  # addresses hold the token
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class PlayServer(ThreadingHTTPServer):
    """Answers the page of one session.

    Args:
        session: whose model writes.
        port: 0 takes a free one.

    Attributes:
        address: where the page is, token included.

    Raises:
        OSError: the port is taken.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, session: Session, port: int = 0) -> None:
        super().__init__((LOOPBACK, port), Handler)
        self.session = session
        self.token: str = secrets.token_urlsafe(24)
        self.hosts: set[str] = {f"{name}:{self.server_port}" for name in (LOOPBACK, "localhost")}
        self.address: str = f"http://{LOOPBACK}:{self.server_port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore that a browser has closed the connection, and tell of anything else."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One request: GET the page or the curves, POST what is to be written."""

    close_connection: bool

    server: PlayServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "tinyalpaca", ""  # in each answer, also to who is refused
    timeout = PATIENCE  # of the socket

    def do_GET(self) -> None:
        """The page, or the curves of a run."""
        what = self._asked()
        if what == "":
            page = with_view("tinyalpaca.play", "page.html")
            self._send(page.encode(), "text/html; charset=utf-8")
        elif what == "curves":
            self._send(json.dumps(self.server.session.curves()).encode(), "application/json")
        elif what is not None:
            self._refuse(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        """Write a text: a line of JSON for each token, as it comes."""
        what = self._asked()
        if what is None:
            return
        length = self.headers.get("Content-Length", "")
        if what != "write":
            self._refuse(HTTPStatus.NOT_FOUND)
        elif not length.isdecimal() or int(length) > LONGEST_REQUEST:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            self._write(self.rfile.read(int(length)))

    def _write(self, body: bytes) -> None:
        self.close_connection = True  # the end of the text is the end of the answer
        self._begin(HTTPStatus.OK, "application/x-ndjson")
        try:
            asked = json.loads(body)
            if not isinstance(asked, dict):
                raise ValueError("a request is a JSON object")
            for part in self.server.session.write(asked):
                self._line(part)
        except (ConnectionError, TimeoutError):  # the page has stopped reading
            return
        except (ValueError, OSError, RuntimeError) as error:
            self._line({"error": str(error)})

    def _asked(self) -> str | None:
        """The path that is requested, or None if the request is refused.

        Another site's name may resolve to our address (DNS rebinding), so the host is checked too.
        """
        token, _, what = self.path.removeprefix("/").partition("/")
        known = secrets.compare_digest(token.encode(), self.server.token.encode())
        if known and self.headers.get("Host") in self.server.hosts:
            return what
        self._refuse(HTTPStatus.FORBIDDEN)
        return None

    def _line(self, part: dict[str, Any]) -> None:
        self.wfile.write(json.dumps(part).encode() + b"\n")
        self.wfile.flush()

    def _refuse(self, status: HTTPStatus) -> None:
        self.close_connection = True
        self._send(f"{status.phrase}\n".encode(), "text/plain; charset=utf-8", status)

    def _send(self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._begin(status, kind, len(body))
        self.wfile.write(body)

    def _begin(self, status: HTTPStatus, kind: str, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if length is None or self.close_connection:
            self.send_header("Connection", "close")
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is logged, because addresses contain the token."""
