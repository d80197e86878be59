"""How a saved result was made: by which code, by which command, in how long.

The same experiment gives the same manifest and the same tables, byte for byte. The commit, whether
it was dirty, the command and the time it took differ from one run to the next. They stand in a file
of their own beside the manifest, which no id and no other file depends on. The first making is
kept; it is replaced only if it was of uncommitted code and the new one is not.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

from backtest.base.bounded_reads import parse_json, read_small
from backtest.base.errors import DataError
from backtest.base.git_state import Checkout, find_checkout
from backtest.base.json_values import to_plain
from backtest.base.result_folders import MANIFEST, hash_file

PROVENANCE = "provenance.json"
FORMAT = 1
PACKAGE, PACKAGE_FILE = "backtest", Path(__file__)
SEAL = ',\n "seal": "{}"\n}}\n'
SEAL_LENGTH = len(SEAL.format("")) + 64
KEPT = "_making"
"""Where a result in memory holds its making, beside its cached tables."""

P = ParamSpec("P")
T = TypeVar("T")

Code = Mapping[str, Checkout | None]
"""By the package's name and those of policies; None where the source is in no checkout."""


class Making(NamedTuple):
    """How a result was made.

    Attributes
    ----------
    seconds : float or None
        Wall time, in seconds; of a study that was resumed, of all its parts. None where nobody
        measured it.
    code : Code
        The checkouts it was made by; empty where that is not known.
    earlier : tuple of Code
        Of a study that was resumed: the other states of the code it was made by before.
    argv : tuple of str
        The words of the command line that made it, the program first; empty if made in Python.
    """

    seconds: float | None
    code: Code
    earlier: tuple[Code, ...] = ()
    argv: tuple[str, ...] = ()

    @property
    def is_dirty(self) -> bool | None:
        """Whether uncommitted code had a part in it; None where that is not known.

        Where the package is in a checkout, its own policies are too: one of no checkout is
        somebody's own, under no version control, and no commit holds it.
        """
        states = (self.code, *self.earlier)
        known = [each for code in states for each in code.values() if each]
        if any(each.is_dirty for each in known):
            return True
        is_loose = any(code.get(PACKAGE) and None in code.values() for code in states)
        return None if is_loose or not known else False


UNKNOWN = Making(None, {})
COMMAND: ContextVar[tuple[str, ...]] = ContextVar("COMMAND", default=())
"""The words of the command line that is at work."""

# ------------------------------------------------------------------------------------- in memory


def record_making(function: Callable[P, T]) -> Callable[P, T]:
    """Return a function that notes beside what it makes how long that took.

    ``function`` makes a result, a sweep or a comparison.
    """

    @functools.wraps(function)
    def clock(*args: P.args, **kwargs: P.kwargs) -> T:
        began = time.perf_counter()
        made = function(*args, **kwargs)
        seconds = round(time.perf_counter() - began, 6)
        attach_making(made, Making(seconds, {}, argv=COMMAND.get()))
        return made

    return clock


@contextmanager
def recording_command(argv: Sequence[str]) -> Iterator[None]:
    """Note the words of a command line beside every result that is made inside."""
    token = COMMAND.set(tuple(argv))
    try:
        yield
    finally:
        COMMAND.reset(token)


def attach_making(made: object, making: Making) -> None:
    """Note beside a result in memory how it was made."""
    vars(made)[KEPT] = making


def get_attached_making(made: object) -> Making | None:
    """Return what is noted beside a result in memory; None if nothing is."""
    kept: Making | None = vars(made).get(KEPT)
    return kept


def find_making(made: object, policies: Iterable[type]) -> Making:
    """Return how a result in memory was made; by the code of now where it was not loaded."""
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
    """Yield classes of policies, and of combined ones those they are made of."""
    for cls in policies:
        yield cls
        yield from find_policy_classes(part.policy for part in getattr(cls, "parts", ()))


def find_source_checkout(cls: type) -> Checkout | None:
    """Return the checkout of a class; None where it was typed into a session."""
    try:
        path = Path(inspect.getfile(cls))
    except (TypeError, OSError):
        return None
    return find_checkout(path.absolute()) if path.is_file() else None


# -------------------------------------------------------------------------------------- in a folder


def choose_making(earlier: Making | None, now: Making) -> Making:
    """Return which of two makings of the same result is kept: the first, a clean one before.

    A making without a command takes that of the other.

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
    """Return the making of a study that goes on with some code."""
    argv = (earlier.argv if earlier else ()) or COMMAND.get()
    if earlier is None or not earlier.code:
        return Making(None, code, argv=argv)
    others = [each for each in (*earlier.earlier, earlier.code) if each != code]
    return Making(earlier.seconds, code, tuple(others), argv)


def encode_provenance(
    identity: str, making: Making, line: Mapping[str, Any] | None = None
) -> bytes:
    """Return the bytes of the file, with a hash of itself."""
    data = {"format": FORMAT, "id": identity, "made": making_to_json(making), **(line or {})}
    text = json.dumps(to_plain(data), indent=1, allow_nan=False, ensure_ascii=False)
    body = text.removesuffix("\n}").encode()
    return body + SEAL.format(hashlib.sha256(body).hexdigest()).encode()


def making_to_json(making: Making) -> dict[str, Any]:
    """Return a making as data for JSON."""
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
    """Return the data of the file in a folder, as they were written.

    Raise a DataError if a byte of it was changed.
    """
    body = content[:-SEAL_LENGTH]
    if content[-SEAL_LENGTH:] != SEAL.format(hashlib.sha256(body).hexdigest()).encode():
        raise DataError(
            f"{PROVENANCE} must be as it was saved, was changed or truncated",
            where=f"{folder}/{PROVENANCE}",
            cure="delete it: the result is read without. Run the experiment again to have it anew",
        )
    data: dict[str, Any] = parse_json(content, f"{folder}/{PROVENANCE}")
    return data


def read_provenance(folder: Path, identity: str) -> Making | None:
    """Return how the result of a folder was made; None where nothing says so.

    Raise a DataError if the file was changed, or belongs to another result or format.
    """
    data = read_provenance_data(folder, identity)
    return making_from_json(data["made"]) if data else None


def find_changed_files(folder: Path, identity: str) -> list[str]:
    """Return the files of a result that have not the hash that its provenance knows."""
    hashes = read_provenance_data(folder, identity).get("hashes", {})
    there = {name: folder / name for name in hashes if (folder / name).is_file()}
    return [name for name, path in there.items() if hash_file(path) != hashes[name]]


def read_provenance_data(folder: Path, identity: str) -> dict[str, Any]:
    """Return what the file of a folder says; nothing where there is none."""
    path = folder / PROVENANCE
    try:
        data = decode_provenance(read_small(path), str(folder))
    except FileNotFoundError:
        return {}
    check_identity(data, identity, path)
    return data


def check_identity(data: Mapping[str, Any], identity: str, path: Path) -> None:
    """Refuse the file of another result, or of another format."""
    if data.get("format") != FORMAT:
        raise DataError(
            f"the format of {path.name} must be {FORMAT}, was {data.get('format')!r:.40}",
            where=str(path),
            cure="read it with the version that wrote it",
        )
    if data["id"] != identity:
        raise DataError(
            f"{path.name} must be of the result beside it, {identity}, is of {data['id']!r:.40}",
            where=str(path),
            cure="restore it, or delete it",
        )


def making_from_json(data: Mapping[str, Any]) -> Making:
    """Return the making that :func:`making_to_json` described."""
    earlier = tuple(code_from_json(each) for each in data.get("earlier", ()))
    argv = tuple(map(str, data.get("argv", ())))
    return Making(data["seconds"], code_from_json(data["code"]), earlier, argv)


def code_from_json(data: Mapping[str, Any]) -> Code:
    """Return the checkouts that :func:`code_to_json` described."""
    return {
        name: None if each is None else Checkout(each["commit"], is_dirty=each["dirty"])
        for name, each in data.items()
    }


def write_provenance(
    draft: Path, target: Path, identity: str, making: Making, line: Mapping[str, Any] | None = None
) -> None:
    """Write the file into the draft of a folder that is to replace another, or be new."""
    kept = choose_making(try_read_provenance(target, identity), making)
    hashes = {"hashes": {MANIFEST: hash_file(draft / MANIFEST)}}
    (draft / PROVENANCE).write_bytes(encode_provenance(identity, kept, {**hashes, **(line or {})}))


def attach_saved_making(made: object, folder: Path, identity: str) -> None:
    """Note beside a result that was loaded what its folder says of its making."""
    attach_making(made, try_read_provenance(folder, identity) or UNKNOWN)


def try_read_provenance(folder: Path, identity: str) -> Making | None:
    """Return how the result of a folder was made; None where that is not known, or damaged."""
    try:
        return read_provenance(folder, identity)
    except (DataError, OSError):
        return None  # a list and verify name it; here it is not used
