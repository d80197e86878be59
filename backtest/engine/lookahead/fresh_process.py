"""A fresh process that observes parts of a market, to find what is kept between calls."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from typing import Any, Self

from backtest.engine.lookahead.code_origin import CodeOrigin, NoSourceError, list_modules

ENVIRONMENT = dict(os.environ)
SECONDS = 60.0
"""How long a fresh process may take in all."""
CHILD = """
import pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
from backtest.engine.lookahead.fresh_worker import serve
serve()
"""


class FreshProcessError(Exception):
    """A fresh process did not answer or failed; the message has the reason."""


class FreshProcess:
    def __init__(self, origin: CodeOrigin, subject: Any, seconds: float = SECONDS) -> None:
        if not sys.executable:
            raise FreshProcessError("this program does not say where its Python is")
        self.seconds = seconds
        order = (
            list_modules(origin.owners),
            pickle_all(origin.owners),
            pickle_all(subject),
            origin.key,
        )
        own = {name: value for name, value in os.environ.items() if name.startswith("BACKTEST_")}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**ENVIRONMENT, **own},
            start_new_session=True,  # Ctrl-C is for the parent, which kills it
        )
        self._is_late = False
        self._timer = threading.Timer(seconds, self._kill)
        self._timer.daemon = True
        self._timer.start()
        try:
            self._send(sys.path)
            self._send(order)
        except FreshProcessError:  # it has ended already
            self.end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        self._timer.cancel()
        self._process.kill()
        self._process.communicate()

    def ask(self, kind: str, given: Any = None) -> Any:
        self._send((kind, given))
        try:
            is_done, answer = pickle.load(self._process.stdout)  # type: ignore[arg-type] # a pipe
        except (EOFError, pickle.UnpicklingError) as error:
            raise FreshProcessError(self._explain()) from error
        if not is_done:
            raise FreshProcessError(str(answer))
        return answer

    def _send(self, message: Any) -> None:
        try:
            pickle.dump(message, self._process.stdin)  # type: ignore[arg-type] # a pipe
            self._process.stdin.flush()  # type: ignore[union-attr] # a pipe
        except (BrokenPipeError, OSError) as error:
            raise FreshProcessError(self._explain()) from error

    def _explain(self) -> str:
        if self._is_late:
            return f"it did not answer within {self.seconds:g} s"
        return "it ended without an answer"

    def _kill(self) -> None:
        self._is_late = True
        self._process.kill()


def pickle_all(value: Any) -> bytes:
    """Pickle classes and functions by name, and values; raise NoSourceError if that fails."""
    try:
        return pickle.dumps(value)
    except Exception as error:
        raise NoSourceError(f"it cannot be sent to another process ({error})") from error
