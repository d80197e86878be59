"""List a store by reading its folders, with an index of what was read before."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import operator
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from backtest.base import (
    DataError,
    ParameterError,
    did_you_mean,
    find_version,
    parse_duration,
    to_nanoseconds,
    write_file,
)
from backtest.base.saved_result import KINDS
from backtest.measures.measure_table import ABOUT
from backtest.store import entry as reading
from backtest.store.entry import Stamp, StoreEntry, read_entry, take_stamp
from backtest.store.find import find_folder, list_folders
from backtest.store.kinds import LEFTOVER, list_kinds

INDEX = ".index.json"
QUIET = 2_000_000_000
"""Nanoseconds without a change before an entry is cached: file time stamps are coarse."""
MOST_READS = 10
"""How often a folder is read that another process replaces meanwhile."""


class CachedEntry(NamedTuple):
    mark: str
    entry: StoreEntry
    is_stable: bool


def list_results(store: Path, *, use_index: bool = True) -> list[StoreEntry]:
    known = read_index(store) if use_index else {}
    notes = read_notes(store, known)
    settled = {name: note for name, note in notes.items() if note.is_stable}
    if use_index and settled != known:
        write_index(store, settled)
    return [note.entry for note in notes.values()]


def read_notes(store: Path, known: Mapping[str, CachedEntry]) -> dict[str, CachedEntry]:
    notes = {}
    now = time.time_ns()
    for name in list_folders(store):
        folder = store / name
        stamp = try_stamp(folder)
        mark = hash_stamp(stamp)
        note = known.get(name)
        if note is None or note.mark != mark:
            entry = read_stable_entry(folder, stamp)
            if entry.trouble and not folder.is_dir():
                continue  # deleted meanwhile
            note = CachedEntry(mark, entry, is_stable(entry, stamp, now))
        notes[name] = note
    return notes


def try_stamp(folder: Path) -> Stamp:
    try:
        return take_stamp(folder)
    except OSError:
        return ()


def read_stable_entry(folder: Path, stamp: Stamp = ()) -> StoreEntry:
    entry = read_entry(folder, stamp)
    for _ in range(MOST_READS):
        if not entry.trouble or entry.kind == LEFTOVER:
            break
        before, entry = entry, read_entry(folder)
        if entry == before:
            break
    return entry


def is_stable(entry: StoreEntry, stamp: Stamp, now: int) -> bool:
    newest = max((max(changed, written) for _, _, written, changed, _ in stamp), default=now)
    return entry.is_finished and entry.kind != LEFTOVER and now - newest > QUIET


def hash_stamp(stamp: Stamp) -> str:
    return hashlib.sha256(repr(stamp).encode()).hexdigest()[:32]


# ------------------------------------------------------------------------------------- the index


@functools.cache
def describe_reader() -> str:
    sources = b"".join(
        Path(each).read_bytes()
        for each in (
            str(reading.__file__),
            *sorted({kind.source for kind in KINDS.values()}),
        )
    )
    return f"{find_version('leverage-backtest')} {hashlib.sha256(sources).hexdigest()[:16]}"


def read_index(store: Path) -> dict[str, CachedEntry]:
    try:
        head, _, body = (store / INDEX).read_text(encoding="utf-8").partition("\n")
        if head != build_index_head(body):
            return {}
        notes: dict[str, Any] = json.loads(body)
    except (OSError, ValueError):
        return {}
    return {
        name: CachedEntry(mark, StoreEntry(**data), True) for name, (mark, data) in notes.items()
    }


def write_index(store: Path, notes: Mapping[str, CachedEntry]) -> None:
    body = json.dumps({name: [each.mark, each.entry.to_dict()] for name, each in notes.items()})
    with contextlib.suppress(OSError):  # a read-only store is listed without an index
        write_file(store / INDEX, f"{build_index_head(body)}\n{body}".encode())


def build_index_head(body: str) -> str:
    return f"{describe_reader()} {hashlib.sha256(body.encode()).hexdigest()}"


# ------------------------------------------------------------------------------------- one result


def read_usable(name: str, folder: Path) -> tuple[Path, StoreEntry]:
    place = find_folder(name, folder)
    entry = read_stable_entry(place)
    if entry.trouble:
        raise DataError(
            f"{place}: cannot read the result: {entry.trouble}; backtest results verify "
            f"{place.name} shows more"
        )
    return place, entry


OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le, ">=": operator.ge, "==": operator.eq,
    "!=": operator.ne, "<": operator.lt, ">": operator.gt,
}  # fmt: skip
BOUND = re.compile(r"\s*(\w+)\s*(<=|>=|==|!=|<|>)\s*(\S+)\s*")
FIELDS = ("saved", "name", "kind", "policy", "size", "seconds")


class Bound(NamedTuple):
    measure: str
    sign: str
    value: float

    def matches(self, entry: StoreEntry) -> bool:
        found = entry.metrics.get(self.measure, math.nan)
        return not math.isnan(found) and OPERATORS[self.sign](found, self.value)


class Filter(NamedTuple):
    """Conditions that select entries of a list; an entry must satisfy all.

    Attributes
    ----------
    kinds : tuple of str
        The kinds selected; empty for all.
    policy, text : str
        Substrings of the policy, and of name, policy, data or note; case is ignored.
    bounds : tuple of Bound
        Bounds on measures. An entry without the measure does not match.
    since, before : int or None
        Saved at or after, and before, in nanoseconds since 1970.
    """

    kinds: tuple[str, ...] = ()
    policy: str = ""
    text: str = ""
    bounds: tuple[Bound, ...] = ()
    since: int | None = None
    before: int | None = None

    def matches(self, entry: StoreEntry) -> bool:
        words = (entry.name, entry.policy, entry.instrument, entry.source, entry.note)
        return (
            not entry.trouble
            and (not self.kinds or entry.kind in self.kinds)
            and normalize_name(self.policy) in normalize_name(entry.policy)
            and any(self.text.casefold() in word.casefold() for word in words)
            and all(bound.matches(entry) for bound in self.bounds)
            and (self.since is None or entry.saved >= self.since)
            and (self.before is None or entry.saved < self.before)
        )


def normalize_name(text: str) -> str:
    return re.sub(r"[\s_-]", "", text).casefold()


def read_kinds(texts: Iterable[str]) -> tuple[str, ...]:
    found = tuple(texts)
    for each in found:
        if each not in list_kinds():
            raise ParameterError(
                f"kind must be one of {', '.join(list_kinds())}, got "
                f"{each!r}{did_you_mean(each, list_kinds())}"
            )
    return found


def read_bound(text: str) -> Bound:
    match, value = BOUND.fullmatch(text), math.nan
    with contextlib.suppress(ValueError):
        value = float(match[3]) if match else math.nan
    if match is None or math.isnan(value):
        raise ParameterError(
            "a bound must be a measure, a sign and a number, as 'max_drawdown<=0.4', got "
            f"{text!r:.80}"
        )
    return Bound(check_measure(match[1], where="a bound"), match[2], value)


def check_measure(name: str, *, where: str, others: Sequence[str] = ()) -> str:
    known = (*others, *ABOUT)
    also = f" or one of {', '.join(others)}" if others else ""
    if name not in known:
        raise ParameterError(
            f"{where} must be a measure (docs/metrics.md){also}, got "
            f"{name!r:.40}{did_you_mean(name, known)}"
        )
    return name


def read_time_or_age(text: str, now: int, *, where: str) -> int:
    """Return the time of a date, or of an age before ``now`` such as ``"7d"``, in nanoseconds."""
    with contextlib.suppress(ParameterError):
        return now - parse_duration(text)
    return to_nanoseconds(text, where)


def sort_entries(
    entries: Iterable[StoreEntry], by: str = "saved", *, is_reversed: bool = False
) -> list[StoreEntry]:
    check_measure(by, where="sort", others=FIELDS)
    named = sorted(entries, key=lambda each: each.name)
    if by == "seconds":
        sign = -1.0 if is_reversed else 1.0
        return sorted(
            named, key=lambda each: math.inf if each.seconds is None else sign * each.seconds
        )
    if by in FIELDS:
        falls = (by in ("saved", "size")) != is_reversed
        return sorted(named, key=lambda each: getattr(each, by), reverse=falls)
    return sort_by_measure(named, by, is_reversed=is_reversed)


def sort_by_measure(entries: list[StoreEntry], by: str, *, is_reversed: bool) -> list[StoreEntry]:
    is_ranked = ABOUT[by].better != 0
    sign = -1.0 if (ABOUT[by].better >= 0) != is_reversed else 1.0
    turn = -1 if is_reversed else 1

    def find_rank(each: StoreEntry) -> tuple[int, float]:
        value, ruined, days = (
            each.metrics.get(name, math.nan) for name in (by, "ruined", "ruin_time")
        )
        if is_ranked and ruined > 0.0:
            return turn, 0.0 if math.isnan(days) else -turn * days
        if not math.isnan(value):
            return -turn, sign * value
        return (0 if is_ranked and ruined == 0.0 else 2), 0.0

    return sorted(entries, key=find_rank)
