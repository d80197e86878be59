"""A server on loopback that replays an archive made up from a seed, and misbehaves when told to."""

from __future__ import annotations

import contextlib
import hashlib
import io
import threading
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import numpy as np
import pandas as pd

MS = 1_000_000
DAY_MS = 86_400_000
HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,"
    "taker_buy_volume,taker_buy_quote_volume,ignore"
)


def epoch(text: str) -> int:
    return int(pd.Timestamp(text, tz="UTC").value) // MS


def klines(start: int, end: int, length: int, kind: str = "bars") -> np.ndarray:
    """Return rows (open time in ms, open, high, low, close, volume), the same for any segment."""
    opens = np.arange(start, end, length)
    place = opens / DAY_MS

    def price(when: np.ndarray) -> np.ndarray:
        shift = 3.0 if kind == "mark" else 0.0
        return 30_000 + 2_000 * np.sin(when / 9.0) + 300 * np.sin(when * 5.0) + shift

    first = price(place)
    last = price(place + length / DAY_MS)
    high = np.maximum(first, last) + 1.5
    low = np.minimum(first, last) - 1.5
    volume = np.zeros(opens.size) if kind == "mark" else 10 + 9 * np.sin(place * 40.0)
    return np.column_stack([opens, first, high, low, last, volume])


def kline_text(rows: np.ndarray, length: int, *, header: bool = True, factor: int = 1) -> bytes:
    """Return rows as the archive writes them; ``factor`` 1000 makes microseconds of stamps."""
    tail = ",0,1,0,0,0"
    lines = [
        f"{int(t) * factor},{o:.2f},{h:.2f},{lo:.2f},{c:.2f},{v:.3f},"
        f"{(int(t) + length) * factor - 1}{tail}"
        for t, o, h, lo, c, v in rows.tolist()
    ]
    return "\n".join([*([HEADER] if header else []), *lines, ""]).encode()


def settlements(start: int, end: int, hours: int = 8) -> np.ndarray:
    """Return rows (stamp in ms, some off the boundary; rate)."""
    step = hours * 3_600_000
    stamps = np.arange(-(-start // step) * step, end, step)
    rates = np.round(1e-4 + 5e-5 * np.sin(stamps / DAY_MS), 8)
    return np.column_stack([stamps + stamps // step % 7, rates])


def pack(name: str, text: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(zipfile.ZipInfo(name, (2024, 1, 1, 0, 0, 0)), text, zipfile.ZIP_DEFLATED)
    return stream.getvalue()


class Replay:
    """The files of an archive of hours of one symbol, and how they are handed out."""

    length = 3_600_000

    def __init__(self, symbol: str = "BTCUSDT") -> None:
        self.symbol = symbol
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[str]] = defaultdict(list)
        self.asked: Counter[str] = Counter()
        self.url = ""
        self._lock = threading.Lock()

    def path(self, kind: str, stamp: str) -> str:
        """Return where a month ("2024-01") or a day ("2024-01-05") is."""
        period = "daily" if stamp.count("-") == 2 else "monthly"
        place = {
            "bars": f"klines/{self.symbol}/1h/{self.symbol}-1h",
            "mark": f"markPriceKlines/{self.symbol}/1h/{self.symbol}-1h",
            "funding": f"fundingRate/{self.symbol}/{self.symbol}-fundingRate",
        }[kind]
        return f"data/futures/um/{period}/{place}-{stamp}.zip"

    def put(self, kind: str, stamp: str, text: bytes) -> str:
        """Publish a text as a file with its checksum; return its path."""
        path = self.path(kind, stamp)
        name = path.rpartition("/")[2]
        content = pack(name.removesuffix(".zip") + ".csv", text)
        self.files[path] = content
        digest = hashlib.sha256(content).hexdigest()
        self.files[f"{path}.CHECKSUM"] = f"{digest}  {name}\n".encode()
        return path

    def text(self, kind: str, stamp: str, **how: object) -> bytes:
        period = pd.Period(stamp)
        start = epoch(str(period.start_time.date()))
        end = epoch(str((period + 1).start_time.date()))
        if kind == "funding":
            rows = settlements(start, end).tolist()
            lines = [f"{int(stamp)},8,{rate:.8f}" for stamp, rate in rows]
            header = "calc_time,funding_interval_hours,last_funding_rate"
            return "\n".join([header, *lines, ""]).encode()
        return kline_text(klines(start, end, self.length, kind), self.length, **how)

    def publish(self, *stamps: str, kinds: tuple[str, ...] = ("bars", "mark", "funding")) -> Replay:
        for stamp in stamps:
            for kind in kinds:
                if kind != "funding" or stamp.count("-") == 1:
                    self.put(kind, stamp, self.text(kind, stamp))
        return self

    @contextlib.contextmanager
    def serve(self) -> Iterator[Replay]:
        server = Server(self)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def count(self, path: str) -> str | None:
        with self._lock:
            self.asked[path] += 1
            waiting = self.faults.get(path)
            return waiting.pop(0) if waiting else None


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, replay: Replay) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replay = replay

    def handle_error(self, request: object, client_address: object) -> None:
        pass


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        replay = self.server.replay
        path = urlsplit(self.path).path.lstrip("/")
        fault = replay.count(path)
        with contextlib.suppress(OSError):
            if fault is not None:
                self.misbehave(fault, replay.files.get(path, b""))
            elif path in replay.files:
                self.reply(200, replay.files[path])
            else:
                self.reply(404, b"<Error><Code>NoSuchKey</Code></Error>")

    def misbehave(self, fault: str, content: bytes) -> None:
        name, _, value = fault.partition(":")
        if name == "truncated":
            self.head(200, len(content))
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        elif name == "garbage":
            self.reply(200, content[:-40] + bytes(40))
        else:
            self.reply(int(name), b"no", {"Retry-After": value} if value else {})

    def reply(self, status: int, body: bytes, more: dict[str, str] | None = None) -> None:
        self.head(status, len(body), more)
        self.wfile.write(body)

    def head(self, status: int, size: int, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(size), **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass
