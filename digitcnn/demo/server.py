"""Server: the demonstration's page and its JSON, from the standard library alone.

Gradio would do the same with dozens of packages, seconds of imports and calls home. This serves
the files of ``page/`` and five addresses below ``/api/``, on the loopback interface
only, and answers nobody but a page that it served: another host name (DNS rebinding), another
origin and a request that is too large are refused, and a client that takes too long is left.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import socket
import socketserver
import time
import traceback
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from ..files import DigitcnnError

if TYPE_CHECKING:
    from .session import Answers

ADDRESS = "127.0.0.1"
PORT, TRIES = 8765, 20
LIMIT = 25_000_000  # bytes of a picture file
PATIENCE = 10.0  # seconds in which a client has to have sent its request
DRAWN = 12  # samples at once
ASSETS = Path(__file__).resolve().parent / "page"
FILES = {  # nothing else is served, so no path can lead elsewhere
    "/": ("index.html", "text/html; charset=utf-8"),
    "/demo.css": ("demo.css", "text/css; charset=utf-8"),
    "/demo.js": ("demo.js", "text/javascript; charset=utf-8"),
    "/board.js": ("board.js", "text/javascript; charset=utf-8"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data: blob:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Connection": "close",
}


class Refused(Exception):
    """A request that is not answered: status and sentence."""


class Server(ThreadingHTTPServer):
    """Serves what `answers` has; before it is set, everything is loading."""

    daemon_threads = True
    request_queue_size = 128  # a page of a class room's worth of requests at once
    answers: Answers | None = None

    def server_bind(self) -> None:
        """Bind without asking the network for this machine's name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://{ADDRESS}:{self.server_port}/"


def listen(port: int | None = None) -> Server:
    """A server on `port`, or on the first free one from `PORT`. Raises `DigitcnnError`."""
    ports = range(PORT, PORT + TRIES) if port is None else [port]
    for candidate in ports:
        with contextlib.suppress(OSError, OverflowError):
            return Server((ADDRESS, candidate), Handler)
    raise DigitcnnError(
        f"No port from {PORT} to {PORT + TRIES - 1} is free: choose one with --port."
        if port is None
        else f"Port {port} is in use or not allowed: choose another from 1024 to 65535, or none."
    )


class Timed(io.RawIOBase):
    """What a client sends, for `PATIENCE` seconds in all, so that no drip keeps a thread."""

    def __init__(self, connection: socket.socket):
        self._connection, self._until = connection, time.monotonic() + PATIENCE

    def readable(self) -> bool:
        """It is there to be read."""
        return True

    def readinto(self, buffer: memoryview) -> int:
        """Receive into `buffer`; raises TimeoutError when the time is over."""
        self._connection.settimeout(max(self._until - time.monotonic(), 1e-3))
        try:
            return self._connection.recv_into(buffer)
        finally:
            self._connection.settimeout(PATIENCE)  # an answer has its own time


class Handler(BaseHTTPRequestHandler):
    """One request: a file of the page, or JSON; an error is a sentence."""

    server: Server

    def setup(self) -> None:
        """Read from a client that has little time."""
        super().setup()
        self.rfile = io.BufferedReader(Timed(self.connection))

    def do_GET(self) -> None:
        """Send a file of the page, or what the answers say."""
        routes = {"state": self._state, "samples": self._samples, "map": self._map}
        routes["examples"] = lambda query: self._answers().part("examples")
        self._answer({f"/api/{name}": route for name, route in routes.items()})

    def do_POST(self) -> None:
        """Receive a picture file, and send both models' answers; ``prepare`` is auto or none."""
        self._answer({"/api/picture": self._picture})

    def _answer(self, routes: dict) -> None:
        try:
            self._check_sender()
            address = urlsplit(self.path)
            if self.command == "GET" and address.path in FILES:
                name, kind = FILES[address.path]
                return self._send(HTTPStatus.OK, (ASSETS / name).read_bytes(), kind)
            if address.path not in routes:
                raise Refused(HTTPStatus.NOT_FOUND, "There is nothing at this address.")
            found = routes[address.path](dict(parse_qsl(address.query)))
            self._send_json(HTTPStatus.OK, found)
        except Refused as refusal:
            self.send_error(*refusal.args)
        except DigitcnnError as error:
            self.send_error(HTTPStatus.BAD_REQUEST, str(error))
        except (ConnectionError, TimeoutError):  # the browser has gone
            self.close_connection = True
        except Exception:
            traceback.print_exc()
            sentence = "The demonstration failed here: the terminal says why."
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR, sentence)

    def _check_sender(self) -> None:
        """Refuse a name that is not this machine's own, and another site's page."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        with contextlib.suppress(ValueError):
            own = urlsplit(f"//{host}").hostname in (ADDRESS, "localhost")
            if own and origin in (None, f"http://{host}"):
                return
        raise Refused(HTTPStatus.FORBIDDEN, f"This page is at {self.server.url} only.")

    def _answers(self) -> Answers:
        if self.server.answers is None:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "Still loading: try again in a moment.")
        return self.server.answers

    def _state(self, query: dict) -> dict:
        answers = self.server.answers
        return {"parts": answers.state() if answers else {}, "limit": LIMIT}

    def _samples(self, query: dict) -> dict:
        """``data``, and if given ``digit`` and ``wrong`` (the model), filter the draw."""
        digit, name = query.get("digit"), query.get("data", "")
        if digit not in (None, *"0123456789"):
            raise DigitcnnError("There is no such class: choose one of 0 to 9.")
        digit = None if digit is None else int(digit)
        return self._answers().draw(name, digit, query.get("wrong"), DRAWN)

    def _map(self, query: dict) -> dict:
        """The map of a ``model`` and ``data``."""
        from ..sources import checked

        model, name = (checked(query.get(key, "")) for key in ("model", "data"))
        return self._answers().part(f"map {model} {name}")

    def _picture(self, query: dict) -> dict:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "The request does not say how long it is.")
        if len(length) > 12 or int(length) > LIMIT:
            raise Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"The file is too large: give one of at most {LIMIT // 1_000_000} MB.",
            )
        content, answers = self.rfile.read(int(length)), self._answers()
        from .. import pictures

        return answers.picture(pictures.read(content), query.get("prepare", "auto"))

    def _send_json(self, status: int, value: dict) -> None:
        text = json.dumps(value, default=_plain, allow_nan=False)
        self._send(status, text.encode(), "application/json")

    def _send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        about = {"Content-Type": kind, "Content-Length": str(len(content))}
        for name, value in (HEADERS | about).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """An error as JSON; also for requests that are no HTTP."""
        sentence = message if message and message.endswith(".") else "This is no request for here."
        self.close_connection = True
        with contextlib.suppress(ConnectionError, TimeoutError):
            self._send_json(code, {"error": sentence})

    def version_string(self) -> str:
        """Tell nobody which software this is."""
        return "digitcnn"

    def log_message(self, *arguments: object) -> None:
        """Leave the terminal to the sentences that matter."""


def _plain(value: object) -> object:
    """An image uint8 (3, H, W) as a PNG in a data address; another array as nested lists."""
    if value.ndim != 3:
        return value.tolist()
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(value.transpose(1, 2, 0)).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
