"""The provenance of a result: the code and the command that made it, and the time it took.

The same experiment gives the same manifest and the same tables, byte for byte. The commit, whether
it was dirty, the command and the wall time differ from one run to the next. They are stored in a
separate file beside the manifest, on which no id and no other file depends. The first record is
kept; it is replaced only if its code was uncommitted and the new record's code is not.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

from backtest.base.errors import DataError
from backtest.base.json_values import parse_json, read_small, to_plain
from backtest.base.result_folders import MANIFEST, hash_file

PROVENANCE = "provenance.json"
FORMAT = 1
PACKAGE, PACKAGE_FILE = "backtest", Path(__file__)
SEAL = ',\n "seal": "{}"\n}}\n'
SEAL_LENGTH = len(SEAL.format("")) + 64
KEPT = "_making"
"""The attribute of a result in memory that holds its provenance."""

P = ParamSpec("P")
T = TypeVar("T")


GIT_TIMEOUT = 2.0
"""Seconds to wait for git; after a timeout it is not called again for that file."""
GIT_FRESH = 5.0
"""Seconds for which an answer is cached: many results saved in a row call git once."""
GIT = ("git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "core.quotepath=false")
BRANCH = "# branch.oid "
GIT_PLACES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY",
              "GIT_COMMON_DIR", "GIT_NAMESPACE")  # fmt: skip
"""Environment variables that git sets for hooks, and that would point to another repository."""


class Checkout(NamedTuple):
    """The state of a checkout.

    ``commit`` is the full hash, empty before the first commit. ``is_dirty`` is True if a tracked
    file differs from the commit, or if the source file is not tracked.
    """

    commit: str
    is_dirty: bool


_ANSWERS: dict[Path, tuple[float, Checkout | None]] = {}
"""The cached answers, with the times until which they hold."""


def find_checkout(source: Path) -> Checkout | None:
    """Return the state of the checkout that contains a source file.

    None where there is no git, no checkout, the file is one that git ignores (installed inside
    another project), or git does not answer within two seconds.
    """
    known = _ANSWERS.get(source)
    if known is not None and time.monotonic() < known[0]:
        return known[1]
    try:
        found, until = ask_git(source), time.monotonic() + GIT_FRESH
    except subprocess.TimeoutExpired:
        found, until = None, float("inf")
    _ANSWERS[source] = until, found
    return found


def ask_git(source: Path) -> Checkout | None:
    """Return the state of a checkout without the cache.

    Raise subprocess.TimeoutExpired if it takes too long.
    """
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
    """Return the output of a git command; None if it fails or git is missing."""
    kept = {name: value for name, value in os.environ.items() if name not in GIT_PLACES}
    try:
        done = subprocess.run(
            [*GIT, "-C", str(folder), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=kept,
            timeout=GIT_TIMEOUT,
            check=False,
        )
    except OSError:
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None


Code = Mapping[str, Checkout | None]
"""Checkouts by the names of the package and of policies; None if the source is in none."""


class Making(NamedTuple):
    """How a result was made.

    ``seconds`` is the wall time (of all parts of a resumed study), None if not measured. ``code``
    has the checkouts, empty if unknown; ``earlier`` has those of the earlier parts of a resumed
    study where they differ. ``argv`` is the command line, empty for a result made in Python.
    """

    seconds: float | None
    code: Code
    earlier: tuple[Code, ...] = ()
    argv: tuple[str, ...] = ()

    @property
    def is_dirty(self) -> bool | None:
        """Whether uncommitted code was used; None if unknown.

        If the package is in a checkout, its own policies are too. A policy outside any checkout
        is then the user's own, without version control, so the state is unknown.
        """
        states = (self.code, *self.earlier)
        known = [each for code in states for each in code.values() if each]
        if any(each.is_dirty for each in known):
            return True
        is_loose = any(code.get(PACKAGE) and None in code.values() for code in states)
        return None if is_loose or not known else False


UNKNOWN = Making(None, {})
COMMAND: ContextVar[tuple[str, ...]] = ContextVar("COMMAND", default=())
"""The words of the command line that is running."""

# ------------------------------------------------------------------------------------- in memory


def record_making(function: Callable[P, T]) -> Callable[P, T]:
    """Wrap a function that makes a result, sweep or comparison, to attach its provenance."""

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
    """Record a command line with every result that is made inside the block."""
    token = COMMAND.set(tuple(argv))
    try:
        yield
    finally:
        COMMAND.reset(token)


def attach_making(made: object, making: Making) -> None:
    """Attach its provenance to a result in memory."""
    vars(made)[KEPT] = making


def get_attached_making(made: object) -> Making | None:
    """Return the provenance attached to a result in memory; None if there is none."""
    kept: Making | None = vars(made).get(KEPT)
    return kept


def find_making(made: object, policies: Iterable[type]) -> Making:
    """Return the provenance of a result in memory, with the current code if it was not loaded."""
    kept = get_attached_making(made) or Making(None, {}, argv=COMMAND.get())
    is_loaded = KEPT in vars(made) and kept.seconds is None
    return kept if kept.code or is_loaded else kept._replace(code=find_code(policies))


def find_code(policies: Iterable[type]) -> dict[str, Checkout | None]:
    """Return the checkouts of this package and of the sources of policies."""
    own = find_checkout(PACKAGE_FILE)
    found: dict[str, Checkout | None] = {PACKAGE: own}
    return found | {
        each.__name__: find_source_checkout(each) for each in find_policy_classes(policies)
    }


def find_policy_classes(policies: Iterable[type]) -> Iterator[type]:
    """Yield classes of policies and, for combined ones, those of their parts."""
    for cls in policies:
        yield cls
        yield from find_policy_classes(part.policy for part in getattr(cls, "parts", ()))


def find_source_checkout(cls: type) -> Checkout | None:
    """Return the checkout of a class; None if it was defined interactively."""
    try:
        path = Path(inspect.getfile(cls))
    except (TypeError, OSError):
        return None
    return find_checkout(path.absolute()) if path.is_file() else None


# -------------------------------------------------------------------------------------- in a folder


def choose_making(earlier: Making | None, now: Making) -> Making:
    """Return the record to keep of two for the same result: the first, unless only it is dirty.

    A record without a command takes that of the other.

    Examples
    --------
    >>> dirty, clean = ({"backtest": Checkout("0a1b", is_dirty=x)} for x in (True, False))
    >>> choose_making(Making(1.0, dirty), Making(2.0, clean)).seconds
    2.0
    >>> choose_making(Making(1.0, clean), Making(2.0, clean)).seconds
    1.0
    """
    if earlier is None:
        return now
    is_better = not earlier.code or (bool(now.code) and earlier.is_dirty and not now.is_dirty)
    kept, other = (now, earlier) if is_better else (earlier, now)
    return kept._replace(argv=kept.argv or other.argv)


def continue_making(earlier: Making | None, code: Code) -> Making:
    """Return the provenance of a study that is resumed with some code."""
    argv = (earlier.argv if earlier else ()) or COMMAND.get()
    if earlier is None or not earlier.code:
        return Making(None, code, argv=argv)
    others = [each for each in (*earlier.earlier, earlier.code) if each != code]
    return Making(earlier.seconds, code, tuple(others), argv)


def encode_provenance(
    identity: str, making: Making, line: Mapping[str, Any] | None = None
) -> bytes:
    """Return the content of the file, sealed with its hash; ``line`` is what a list shows."""
    data = {"format": FORMAT, "id": identity, "made": making_to_json(making), **(line or {})}
    text = json.dumps(to_plain(data), indent=1, allow_nan=False, ensure_ascii=False)
    body = text.removesuffix("\n}").encode()
    return body + SEAL.format(hashlib.sha256(body).hexdigest()).encode()


def making_to_json(making: Making) -> dict[str, Any]:
    """Return a record as data for JSON."""
    states = [code_to_json(each) for each in making.earlier]
    earlier = {"earlier": states} if states else {}
    command = {"argv": list(making.argv)} if making.argv else {}
    return {"seconds": making.seconds, "code": code_to_json(making.code), **earlier, **command}


def code_to_json(code: Code) -> dict[str, Any]:
    """Return checkouts as data for JSON."""
    return {
        name: None if each is None else {"commit": each.commit, "dirty": each.is_dirty}
        for name, each in code.items()
    }


def decode_provenance(content: bytes, folder: str) -> dict[str, Any]:
    """Return the data of the file after checking its seal.

    Raise a DataError if a byte of it was changed.
    """
    body = content[:-SEAL_LENGTH]
    if content[-SEAL_LENGTH:] != SEAL.format(hashlib.sha256(body).hexdigest()).encode():
        raise DataError(
            f"{PROVENANCE} was changed or truncated after saving",
            where=f"{folder}/{PROVENANCE}",
            cure="delete it: the result can be read without it; or run the experiment again",
        )
    data: dict[str, Any] = parse_json(content, f"{folder}/{PROVENANCE}")
    return data


def read_provenance(folder: Path, identity: str) -> Making | None:
    """Return the provenance of a saved result; None if it has no such file.

    Raise a DataError if the file was changed, or belongs to another result or format.
    """
    data = read_provenance_data(folder, identity)
    return making_from_json(data["made"]) if data else None


def find_changed_files(folder: Path, identity: str) -> list[str]:
    """Return the files of a result whose hash differs from the one in its provenance."""
    hashes = read_provenance_data(folder, identity).get("hashes", {})
    there = {name: folder / name for name in hashes if (folder / name).is_file()}
    return [name for name, path in there.items() if hash_file(path) != hashes[name]]


def read_provenance_data(folder: Path, identity: str) -> dict[str, Any]:
    """Return the data of a result's provenance file; empty if there is none."""
    path = folder / PROVENANCE
    try:
        data = decode_provenance(read_small(path), str(folder))
    except FileNotFoundError:
        return {}
    check_identity(data, identity, path)
    return data


def check_identity(data: Mapping[str, Any], identity: str, path: Path) -> None:
    """Check that the file belongs to this result and has the current format."""
    if data.get("format") != FORMAT:
        raise DataError(
            f"the format of {path.name} must be {FORMAT}, got {data.get('format')!r:.40}",
            where=str(path),
            cure="read it with the version that wrote it",
        )
    if data["id"] != identity:
        raise DataError(
            f"{path.name} must belong to the result {identity}, got one of {data['id']!r:.40}",
            where=str(path),
            cure="restore it, or delete it",
        )


def making_from_json(data: Mapping[str, Any]) -> Making:
    """Return the record that :func:`making_to_json` wrote."""
    earlier = tuple(code_from_json(each) for each in data.get("earlier", ()))
    argv = tuple(map(str, data.get("argv", ())))
    return Making(data["seconds"], code_from_json(data["code"]), earlier, argv)


def code_from_json(data: Mapping[str, Any]) -> Code:
    """Return the checkouts that :func:`code_to_json` wrote."""
    return {
        name: None if each is None else Checkout(each["commit"], is_dirty=each["dirty"])
        for name, each in data.items()
    }


def write_provenance(
    draft: Path, target: Path, identity: str, making: Making, line: Mapping[str, Any] | None = None
) -> None:
    """Write the file into the draft of a folder, keeping an earlier record of the target."""
    kept = choose_making(try_read_provenance(target, identity), making)
    hashes = {"hashes": {MANIFEST: hash_file(draft / MANIFEST)}}
    (draft / PROVENANCE).write_bytes(encode_provenance(identity, kept, {**hashes, **(line or {})}))


def attach_saved_making(made: object, folder: Path, identity: str) -> None:
    """Attach the saved provenance to a result that was loaded."""
    attach_making(made, try_read_provenance(folder, identity) or UNKNOWN)


def try_read_provenance(folder: Path, identity: str) -> Making | None:
    """Return the provenance of a saved result; None if it is missing or damaged."""
    try:
        return read_provenance(folder, identity)
    except (DataError, OSError):
        return None  # lists and ``verify`` report the damage
