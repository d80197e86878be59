"""Run a fuzzed command in this process, off the network and for a short time."""

import contextlib
import io
import re
import shlex
import signal
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import backtest
from backtest.base.errors import DataError
from backtest.cli import main

LONGEST = 300
"""Seconds after which a case counts as hung: those that run are over in one."""


class Case(NamedTuple):
    """A command, and the files that lie in the folder where it is typed."""

    words: list[str]
    files: dict[str, bytes]

    @property
    def command(self) -> str:
        """What is typed."""
        return shlex.join(["backtest", *self.words])


class Outcome(NamedTuple):
    """What a command did: its exit code, and what it printed."""

    code: int
    out: str
    err: str


class HungError(BaseException):
    """A case that took too long."""


def refuse(*_: object, **__: object) -> Any:
    """Stand in for what would reach for a network."""
    raise DataError("a fuzzer must stay on this machine", where="fuzzing", cure="none is needed")


def resolve(host: str, *rest: Any, **how: Any) -> Any:
    """Look a host up without asking a name server."""
    if not re.fullmatch(r"[0-9.]+|::1|localhost", str(host)):
        raise socket.gaierror(-2, "Name or service not known")
    return LOOK_UP(host, *rest, **how)


LOOK_UP, TUNE, SIMULATE = socket.getaddrinfo, backtest.tune, backtest.simulate_paths


def tune_shortly(*given: Any, **how: Any) -> Any:
    """Search with a small budget, whatever was asked for; a budget that is refused stays so."""
    trials, seconds = how.get("trials"), how.get("seconds")
    if isinstance(trials, int) and trials > 4:
        how["trials"] = 4
    if isinstance(seconds, (int, float)) and 0.05 < seconds < float("inf"):
        how["seconds"] = 0.05
    if trials is None and seconds is None:
        how["trials"] = 4
    return TUNE(*given, **how)


def simulate_few(*given: Any, **how: Any) -> Any:
    """Simulate a few paths a few hours far; numbers that are refused stay so."""
    if isinstance(how.get("paths", 10_000), int) and 50 < how.get("paths", 10_000) <= 10**7:
        how["paths"] = 50
    return SIMULATE(*given, **how)


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Keep a command off the network, and let it neither wait nor search for long."""
    with contextlib.ExitStack() as stack:
        for name, stand_in in (
            ("backtest.market.fetch.fetch_market", refuse),
            ("backtest.sweep.cluster.connect.connect", refuse),
            ("socket.getaddrinfo", resolve),
            ("backtest.tune", tune_shortly),
            ("backtest.simulate_paths", simulate_few),
        ):
            stack.enter_context(mock.patch(name, stand_in))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("default")
        warnings.simplefilter("error", RuntimeWarning)
        yield


def expire(number: int, frame: object) -> None:
    """End a case that hangs."""
    raise HungError


def run(case: Case) -> Outcome:
    """Run a case in this process, in the folder where its files lie."""
    for name, content in case.files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(content)
    out, err = io.StringIO(), io.StringIO()
    before = signal.signal(signal.SIGALRM, expire)
    signal.alarm(LONGEST)
    try:
        with (
            bounded(),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            mock.patch("sys.stdin", io.StringIO("")),
        ):
            code = main(list(case.words))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return Outcome(code, out.getvalue(), err.getvalue())
