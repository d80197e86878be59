"""The provenance of a result: the code and the command that made it, and the time it took."""

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


class Checkout(NamedTuple):
    commit: str
    is_dirty: bool


_ANSWERS: dict[Path, tuple[float, Checkout | None]] = {}


def find_checkout(source: Path) -> Checkout | None:
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


class Making(NamedTuple):
    seconds: float | None
    code: Code
    earlier: tuple[Code, ...] = ()
    argv: tuple[str, ...] = ()

    @property
    def is_dirty(self) -> bool | None:
        states = (self.code, *self.earlier)
        known = [each for code in states for each in code.values() if each]
        if any(each.is_dirty for each in known):
            return True
        is_loose = any(code.get(PACKAGE) and None in code.values() for code in states)
        return None if is_loose or not known else False


UNKNOWN = Making(None, {})
COMMAND: ContextVar[tuple[str, ...]] = ContextVar("COMMAND", default=())

# ------------------------------------------------------------------------------------- in memory


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
    own = find_checkout(PACKAGE_FILE)
    found: dict[str, Checkout | None] = {PACKAGE: own}
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


def choose_making(earlier: Making | None, now: Making) -> Making:
    if earlier is None:
        return now
    is_better = not earlier.code or (bool(now.code) and earlier.is_dirty and not now.is_dirty)
    kept, other = (now, earlier) if is_better else (earlier, now)
    return kept._replace(argv=kept.argv or other.argv)


def encode_provenance(
    identity: str, making: Making, line: Mapping[str, Any] | None = None
) -> bytes:
    data = {"format": FORMAT, "id": identity, "made": making_to_json(making), **(line or {})}
    text = json.dumps(to_plain(data), indent=1, allow_nan=False, ensure_ascii=False)
    body = text.removesuffix("\n}").encode()
    return body + SEAL.format(hashlib.sha256(body).hexdigest()).encode()


def making_to_json(making: Making) -> dict[str, Any]:
    states = [code_to_json(each) for each in making.earlier]
    earlier = {"earlier": states} if states else {}
    command = {"argv": list(making.argv)} if making.argv else {}
    return {"seconds": making.seconds, "code": code_to_json(making.code), **earlier, **command}


def code_to_json(code: Code) -> dict[str, Any]:
    return {
        name: None if each is None else {"commit": each.commit, "dirty": each.is_dirty}
        for name, each in code.items()
    }


def decode_provenance(content: bytes, folder: str) -> dict[str, Any]:
    body = content[:-SEAL_LENGTH]
    if content[-SEAL_LENGTH:] != SEAL.format(hashlib.sha256(body).hexdigest()).encode():
        raise DataError(
            f"{folder}/{PROVENANCE}: was changed or truncated after saving; "
            "the result can be read without it"
        )
    data: dict[str, Any] = parse_json(content, f"{folder}/{PROVENANCE}")
    return data


def read_provenance(folder: Path, identity: str) -> Making | None:
    data = read_provenance_data(folder, identity)
    return making_from_json(data["made"]) if data else None


def find_changed_files(folder: Path, identity: str) -> list[str]:
    hashes = read_provenance_data(folder, identity).get("hashes", {})
    there = {name: folder / name for name in hashes if (folder / name).is_file()}
    return [name for name, path in there.items() if hash_file(path) != hashes[name]]


def read_provenance_data(folder: Path, identity: str) -> dict[str, Any]:
    path = folder / PROVENANCE
    try:
        data = decode_provenance(read_small(path), str(folder))
    except FileNotFoundError:
        return {}
    check_identity(data, identity, path)
    return data


def check_identity(data: Mapping[str, Any], identity: str, path: Path) -> None:
    if data.get("format") != FORMAT:
        raise DataError(f"{path}: format must be {FORMAT}, got {data.get('format')!r:.40}")
    if data["id"] != identity:
        raise DataError(
            f"{path}: must belong to the result {identity}, got one of {data['id']!r:.40}"
        )


def making_from_json(data: Mapping[str, Any]) -> Making:
    earlier = tuple(code_from_json(each) for each in data.get("earlier", ()))
    argv = tuple(map(str, data.get("argv", ())))
    return Making(data["seconds"], code_from_json(data["code"]), earlier, argv)


def code_from_json(data: Mapping[str, Any]) -> Code:
    return {
        name: None if each is None else Checkout(each["commit"], is_dirty=each["dirty"])
        for name, each in data.items()
    }


def write_provenance(
    draft: Path, target: Path, identity: str, making: Making, line: Mapping[str, Any] | None = None
) -> None:
    kept = choose_making(try_read_provenance(target, identity), making)
    hashes = {"hashes": {MANIFEST: hash_file(draft / MANIFEST)}}
    (draft / PROVENANCE).write_bytes(encode_provenance(identity, kept, {**hashes, **(line or {})}))


def attach_saved_making(made: object, folder: Path, identity: str) -> None:
    attach_making(made, try_read_provenance(folder, identity) or UNKNOWN)


def try_read_provenance(folder: Path, identity: str) -> Making | None:
    try:
        return read_provenance(folder, identity)
    except (DataError, OSError):
        return None  # lists and ``verify`` report the damage
