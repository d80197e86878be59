"""What made a result: its id, seconds, commits, command line, and the versions of libraries."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

from backtest.core.code_versions import find_version
from backtest.core.errors import DataError
from backtest.core.json_values import read_json_file

PROVENANCE = "provenance.json"


PACKAGE = "backtest"
PACKAGE_FILE = Path(__file__)
KEPT = "_making"
"""The attribute of a result that says what made it."""
GIT = ("git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C")
DIRTY = "-dirty"
"""Ends a commit whose tracked files were changed."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


def find_commit(source: Path) -> str | None:
    """Return the commit of a file, ``-dirty`` after changes; None if git does not know it."""
    is_tracked = ("ls-files", "--error-unmatch", "--", source.name)
    describe = ("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    try:
        ask_git(source.parent, is_tracked)  # raises if it is not
        return ask_git(source.parent, describe).strip()
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def ask_git(folder: Path, words: Sequence[str]) -> str:
    return subprocess.check_output(
        [*GIT, str(folder), *words],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=2,
    )


class Making(NamedTuple):
    """What made a result: seconds, commits by the name of their code, and the command line."""

    seconds: float | None
    code: Mapping[str, str | None]
    argv: tuple[str, ...] = ()

    @property
    def is_dirty(self) -> bool | None:
        """Whether code was changed after its commit; None if git does not know all of it."""
        commits = [commit for commit in self.code.values() if commit]
        if any(commit.endswith(DIRTY) for commit in commits):
            return True
        has_loose_files = self.code.get(PACKAGE) and None in self.code.values()
        if has_loose_files or not commits:
            return None
        return False


COMMAND: ContextVar[tuple[str, ...]] = ContextVar("COMMAND", default=())


def record_making(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Return a function whose result knows the seconds and the command that made it."""

    @functools.wraps(function)
    def clock(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        began = time.perf_counter()
        made = function(*args, **kwargs)
        seconds = round(time.perf_counter() - began, 6)
        if vars(made).get(KEPT) is None:  # otherwise it was loaded from a store
            vars(made)[KEPT] = Making(seconds, {}, argv=COMMAND.get())
        return made

    return clock


@contextmanager
def recording_command(argv: Sequence[str]) -> Iterator[None]:
    token = COMMAND.set(tuple(argv))
    try:
        yield
    finally:
        COMMAND.reset(token)


def read_making(made: object) -> Making:
    """Return what made a result as it knows it; one that does not is of the command that runs."""
    making: Making | None = vars(made).get(KEPT)
    return making or Making(None, {}, argv=COMMAND.get())


def find_making(made: object, policies: Iterable[type]) -> Making:
    """Return what made a result, with the commits of the package and of its policies."""
    making = read_making(made)
    is_loaded = KEPT in vars(made) and making.seconds is None
    if making.code or is_loaded:
        return making

    commits = {PACKAGE: find_commit(PACKAGE_FILE)}
    waiting = list(policies)
    for policy in waiting:
        waiting += [part.policy for part in getattr(policy, "parts", ())]
        try:
            source = Path(inspect.getfile(policy)).absolute()
            commits[policy.__name__] = find_commit(source)
        except (TypeError, OSError):  # of no file
            commits[policy.__name__] = None
    return making._replace(code=commits)


def read_provenance(folder: Path, identity: str) -> Making | None:
    """Return what made a saved result; None if its folder does not say it."""
    path = folder / PROVENANCE
    if not os.path.lexists(path):
        return None

    data = read_json_file(path)
    try:
        owner = data["id"]
        made = data["made"]
        code = {name: commit and str(commit) for name, commit in made["code"].items()}
        making = Making(made["seconds"], code, tuple(map(str, made["argv"])))
    except (TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{path}: must hold id, seconds, code and argv; the result can be read without it"
        ) from error

    if owner != identity:
        raise DataError(f"{path}: must belong to the result {identity}, got one of {owner!r:.40}")
    return making


LIBRARIES = (
    "leverage-backtest", "numpy", "numba", "llvmlite", "pandas", "pyarrow", "scipy", "arch",
)  # fmt: skip


def compute_id(manifest: Mapping[str, Any]) -> str:
    """Return the id of all that the numbers depend on; where the data came from is not of it."""
    data = {key: value for key, value in manifest["data"].items() if key != "source"}
    text = json.dumps({**manifest, "data": data}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def find_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        versions[name] = find_version(name)
    return versions
