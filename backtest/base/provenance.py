"""The provenance of a result: the code and the command that made it, and the time it took."""

from __future__ import annotations

import functools
import inspect
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

from backtest.base.errors import DataError
from backtest.base.result_folders import read_json_file, write_json_file

PROVENANCE = "provenance.json"
PACKAGE, PACKAGE_FILE = "backtest", Path(__file__)
KEPT = "_making"

P = ParamSpec("P")
T = TypeVar("T")


GIT_TIMEOUT = 2.0
"""Seconds to wait for git."""
GIT = ("git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "core.quotepath=false")
BRANCH = "# branch.oid "


class Checkout(NamedTuple):
    commit: str
    is_dirty: bool


def find_checkout(source: Path) -> Checkout | None:
    """Return what git says of a file; None if it is in no checkout, or git does not answer."""
    status = run_git(source.parent, "status", "--porcelain=v2", "--branch", "--untracked-files=no")
    if status is None:
        return None
    lines = status.splitlines()
    oid = next((each.removeprefix(BRANCH) for each in lines if each.startswith(BRANCH)), "")
    commit = "" if oid == "(initial)" else oid
    if run_git(source.parent, "ls-files", "--error-unmatch", "--", source.name) is None:
        is_ignored = run_git(source.parent, "check-ignore", "-q", "--", source.name) is not None
        return None if is_ignored else Checkout(commit, is_dirty=True)
    return Checkout(commit, is_dirty=any(not each.startswith("#") for each in lines))


def run_git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            [*GIT, "-C", str(folder), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GIT_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None


class Making(NamedTuple):
    """What made a result: seconds, checkouts by the name of their code, and the command line."""

    seconds: float | None
    code: Mapping[str, Checkout | None]
    argv: tuple[str, ...] = ()

    @property
    def is_dirty(self) -> bool | None:
        known = [each for each in self.code.values() if each]
        if any(each.is_dirty for each in known):
            return True
        is_loose = self.code.get(PACKAGE) and None in self.code.values()
        return None if is_loose or not known else False


COMMAND: ContextVar[tuple[str, ...]] = ContextVar("COMMAND", default=())


def record_making(function: Callable[P, T]) -> Callable[P, T]:
    @functools.wraps(function)
    def clock(*args: P.args, **kwargs: P.kwargs) -> T:
        began = time.perf_counter()
        made = function(*args, **kwargs)
        seconds = round(time.perf_counter() - began, 6)
        if get_attached_making(made) is None:  # otherwise it was loaded from a store
            attach_making(made, Making(seconds, {}, argv=COMMAND.get()))
        return made

    return clock


@contextmanager
def recording_command(argv: Sequence[str]) -> Iterator[None]:
    token = COMMAND.set(tuple(argv))
    try:
        yield
    finally:
        COMMAND.reset(token)


def attach_making(made: object, making: Making) -> None:
    vars(made)[KEPT] = making


def get_attached_making(made: object) -> Making | None:
    kept: Making | None = vars(made).get(KEPT)
    return kept


def find_making(made: object, policies: Iterable[type]) -> Making:
    kept = get_attached_making(made) or Making(None, {}, argv=COMMAND.get())
    is_loaded = KEPT in vars(made) and kept.seconds is None
    return kept if kept.code or is_loaded else kept._replace(code=find_code(policies))


def find_code(policies: Iterable[type]) -> dict[str, Checkout | None]:
    found: dict[str, Checkout | None] = {PACKAGE: find_checkout(PACKAGE_FILE)}
    return found | {
        each.__name__: find_source_checkout(each) for each in find_policy_classes(policies)
    }


def find_policy_classes(policies: Iterable[type]) -> Iterator[type]:
    for cls in policies:
        yield cls
        yield from find_policy_classes(part.policy for part in getattr(cls, "parts", ()))


def find_source_checkout(cls: type) -> Checkout | None:
    try:
        path = Path(inspect.getfile(cls))
    except (TypeError, OSError):
        return None
    return find_checkout(path.absolute()) if path.is_file() else None


# -------------------------------------------------------------------------------------- in a folder


def write_provenance(folder: Path, identity: str, making: Making) -> None:
    write_json_file({"id": identity, "made": making_to_json(making)}, folder / PROVENANCE)


def making_to_json(making: Making) -> dict[str, Any]:
    code = {
        name: None if each is None else {"commit": each.commit, "dirty": each.is_dirty}
        for name, each in making.code.items()
    }
    return {"seconds": making.seconds, "code": code, "argv": list(making.argv)}


def read_provenance(folder: Path, identity: str) -> Making | None:
    path = folder / PROVENANCE
    if not os.path.lexists(path):
        return None
    data = read_json_file(path)
    try:
        found, made = data["id"], data["made"]
        code = {
            name: None if each is None else Checkout(each["commit"], is_dirty=each["dirty"])
            for name, each in made["code"].items()
        }
        making = Making(made["seconds"], code, tuple(map(str, made["argv"])))
    except (TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{path}: must hold id, seconds, code and argv; the result can be read without it"
        ) from error
    if found != identity:
        raise DataError(f"{path}: must belong to the result {identity}, got one of {found!r:.40}")
    return making


def attach_saved_making(made: object, folder: Path, identity: str) -> None:
    try:
        making = read_provenance(folder, identity)
    except DataError:  # lists and ``verify`` report the damage
        making = None
    attach_making(made, making or Making(None, {}))
