"""The HTTP server: read-only, on loopback, for requests that name this host only."""

from __future__ import annotations

import ipaddress
import socket
import socketserver
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from backtest.base import ParameterError
from backtest.report.serve.site import Answer, Site, answer_message

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
PATIENCE = 30
"""Seconds that a connection may be idle, and that a request may take to arrive."""
MOST_CLIENTS = 32
"""Most connections at the same time; each has a thread."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, root: Path, host: str, port: int) -> None:
        self.site = Site(root)
        self._slots = threading.BoundedSemaphore(MOST_CLIENTS)
        self._reading: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        self.host = host
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            self.address_family = found[0][0]
            super().__init__((str(found[0][4][0]), port), Handler)
        except (OSError, UnicodeError) as error:
            raise address_error(host, port, error) from error

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._slots.acquire(blocking=False):
            refuse_connection(request)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # the system has no thread for it
            self._slots.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.note_reading(request, None)
            self._slots.release()

    def note_reading(self, line: socket.socket, since: float | None) -> None:
        with self._lock:
            self._reading.pop(line, None)
            if since is not None:
                self._reading[line] = since

    def service_actions(self) -> None:
        self.end_late(time.monotonic())

    def end_late(self, now: float) -> None:
        with self._lock:
            late = [line for line, since in self._reading.items() if now - since > PATIENCE]
        for line in late:
            with suppress(OSError):  # it is closed already
                line.shutdown(socket.SHUT_RDWR)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    @property
    def url(self) -> str:
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{name}:{self.server_port}/"

    @property
    def near_url(self) -> str:
        return self.url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")

    def allows(self, header: str) -> bool:
        name = read_host(header)
        if is_local(name):
            return True
        if is_local(self.host):
            return False
        return name in {self.host.lower(), socket.gethostname().lower()} or is_numeric(name)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the library's
        error = sys.exception()
        if not isinstance(error, (ConnectionError, TimeoutError)):
            sys.stderr.write(f"error: {type(error).__name__}: {error}\n")


def refuse_connection(line: socket.socket) -> None:
    answer = answer_message(
        503, "Busy", f"{MOST_CLIENTS} connections are open already.", "Try again soon."
    )
    head = [
        "HTTP/1.1 503 Service Unavailable",
        *(f"{name}: {value}" for name, value in HEADERS.items()),
        f"Content-Security-Policy: {answer.policy}",
        f"Content-Type: {answer.kind}",
        f"Content-Length: {len(answer.body)}",
        "Retry-After: 1",
        "Connection: close",
    ]
    with suppress(OSError):  # it is closed, or does not read
        line.setblocking(False)
        line.send("\r\n".join([*head, "", ""]).encode("latin-1") + answer.body)
        line.recv(65_536)  # unread input would cut the answer off


def address_error(host: str, port: int, error: Exception) -> ParameterError:
    reason = getattr(error, "strerror", None) or str(error)
    return ParameterError(
        f"an address must be free and of this machine to be served at, {host}:{port} is not: "
        f"{reason}",
        where=f"--host {host} --port {port}",
        cure="choose another --port (0 takes a free one), or end the server that holds it",
    )


def read_host(header: str) -> str:
    try:
        parts = urlsplit(f"//{header}")
        parts.port  # noqa: B018 - raises unless it is a number
    except ValueError:
        return ""
    is_plain = parts.netloc == header and "@" not in header and not parts.path
    return (parts.hostname or "").rstrip(".") if is_plain else ""


def is_numeric(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(name: str) -> bool:
    return is_numeric(name) and ipaddress.ip_address(name).is_loopback


def is_local(host: str) -> bool:
    return host.lower() in LOOPBACK or is_loopback(host)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE
    server_version = "backtest"
    sys_version = ""
    server: Server

    def handle_one_request(self) -> None:
        self.server.note_reading(self.connection, time.monotonic())
        super().handle_one_request()

    def parse_request(self) -> bool:
        is_one = super().parse_request()
        self.server.note_reading(self.connection, None)
        return is_one

    def do_GET(self) -> None:
        self.respond(self.find_answer())

    do_HEAD = do_GET  # noqa: N815 - the library's name; respond leaves the body out

    def find_answer(self) -> Answer:
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not self.server.allows(hosts[0].strip()):
            self.close_connection = True
            return answer_message(421, "Not this server", "The request names another host.",
                       "Open the address that backtest serve has printed.")  # fmt: skip
        if self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
            self.close_connection = True
            return answer_message(413, "Too much", "A request to read has no content.")
        try:
            return self.server.site.answer(self.path)
        except Exception as error:  # the page shows no internals
            sys.stderr.write(f"error: {type(error).__name__}: {error}\n")
            return answer_message(500, "Something went wrong", "This page could not be made.",
                       f"The reason: {type(error).__name__}. More is where the server "
                       "was started.")  # fmt: skip

    def respond(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Security-Policy", answer.policy)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        if answer.status == 405:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def send_error(
        self,
        code: int,
        message: str | None = None,
        explain: str | None = None,  # noqa: ARG002 - the signature of the library
    ) -> None:
        self.close_connection = True
        self.request_version = "HTTP/1.1"  # the default before parsing, 0.9, has no status line
        is_method = code == 501
        heading = "Reading only" if is_method else "No request"
        text = "Only GET and HEAD are answered." if is_method else f"{message or 'It is not one'}."
        self.respond(answer_message(405 if is_method else code, heading, text))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Log nothing."""
