"""The fresh process: makes the user's modules again, and observes parts of a market it is sent."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import os
import pickle
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import IO, Any, NamedTuple

from backtest.base import find_lasting_folder
from backtest.engine.lookahead import fresh_check
from backtest.engine.lookahead.code_origin import (
    MAIN,
    ModuleOrigin,
    hash_code,
    hash_file,
    is_foreign,
)
from backtest.engine.lookahead.fresh_check import decide

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
REFUSED = (
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate",
    "os.chmod", "os.chown", "os.utime", "shutil.rmtree", "shutil.move", "subprocess.Popen",
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty",
    "socket.connect", "socket.bind", "sqlite3.connect",
)  # fmt: skip


class Order(NamedTuple):
    modules: dict[str, ModuleOrigin]
    owners: bytes
    subject: bytes
    key: str


def serve() -> None:
    fresh_check.IS_FRESH = True
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the user's code prints goes nowhere
    questions: IO[bytes] = sys.stdin.buffer
    order = Order(*pickle.load(questions))
    refuse_writing()
    subject = None
    while True:
        try:
            kind, given = pickle.load(questions)
            if kind == "make":
                subject = make(order)
                answer: Any = None
            elif kind == "observe":
                answer = subject(given)  # type: ignore[misc] # made first
            elif kind == "decide":
                answer = decide(*given)
            else:
                answer = list_files()
            told = (True, answer)
        except EOFError:
            return
        except Exception as error:
            told = (False, f"{type(error).__name__}: {error}")
        pickle.dump(told, answers)
        answers.flush()


def make(order: Order) -> Any:
    for name, origin in order.modules.items():
        make_module(name, origin)
    if hash_code(pickle.loads(order.owners)) != order.key:
        raise LookupError("the code or a constant that it uses differs from its source")
    return pickle.loads(order.subject)


def make_module(name: str, origin: ModuleOrigin) -> None:
    if name != MAIN:
        try:
            import_whole(name, origin.file)
        except Exception:
            sys.modules.pop(name, None)
        else:
            return
    spec = importlib.util.spec_from_loader(name, ScriptLoader(origin.text))
    load(spec, origin.file)


def import_whole(name: str, file: str) -> None:
    if importlib.util.find_spec(name) is not None:
        found = importlib.import_module(name)
        if Path(str(found.__file__)).resolve() == Path(file):
            return
    load(importlib.util.spec_from_file_location(name, file), file)


class ScriptLoader(importlib.abc.InspectLoader):
    def __init__(self, text: str) -> None:
        self.text = text

    def get_source(self, fullname: str) -> str:  # noqa: ARG002 - the signature of a loader
        return self.text


def load(spec: ModuleSpec | None, file: str) -> None:
    if spec is None or spec.loader is None:
        raise ImportError("it is no Python file")
    module = importlib.util.module_from_spec(spec)
    if file:
        module.__file__ = file
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)


def list_files() -> dict[str, str]:
    installed = [Path(each).resolve() for each in {sys.prefix, sys.base_prefix}]
    found = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and is_foreign(name) and not any(Path(file).is_relative_to(x) for x in installed):
            found[str(Path(file).resolve())] = hash_file(file)
    return found


def refuse_writing() -> None:
    allowed = str(find_lasting_folder() or "/nonexistent")

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        is_open = event == "open"
        if not (is_open or event in REFUSED):
            return
        place = arguments[0] if arguments else ""
        if is_open and (isinstance(place, int) or not int(arguments[2] or 0) & WRITING):
            return
        name = os.fsdecode(place) if isinstance(place, (str, bytes, os.PathLike)) else ""
        if name != os.devnull and not os.path.abspath(name).startswith(allowed + os.sep):  # noqa: PTH100 - Path.resolve opens files
            raise PermissionError(
                f"the check for lookahead does not let code write, start processes or connect "
                f"({event} {name})"
            )

    sys.dont_write_bytecode = True
    sys.addaudithook(watch)
