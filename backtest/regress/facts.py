"""What a run is made of, and what of it changed: data, policy, venue, account, engine."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from backtest.plain import to_plain

if TYPE_CHECKING:
    from backtest.result import Result

ENGINE = (
    "accounting.py",
    "bar.py",
    "brackets.py",
    "compiler.py",
    "engine.py",
    "feed.py",
    "join.py",
    "ledger.py",
    "machine.py",
    "margin.py",
    "measures/performance.py",
    "measures/summary.py",
    "measures/tally.py",
    "policy.py",
    "simulate.py",
    "units.py",
)
"""The files of the package that compute a run."""

RUN = ("signal", "sampling", "calendar", "resumed_from")
LONGEST = 64
"""Lists up to this long are kept; of longer ones their hash."""
UNTOLD = frozenset({"policy.text", "data.flows_after_the_end"})
"""Facts that say again what others say."""


class Change(NamedTuple):
    """A fact that differs from the baseline's: what it belongs to, its name, both values."""

    kind: str
    name: str
    was: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.name}: {shorten(self.was)} -> {shorten(self.now)}"


def gather_facts(result: Result) -> dict[str, Any]:
    """Return what a result is made of, as data."""
    manifest = result.manifest
    facts: dict[str, Any] = {
        "data": {name: value for name, value in manifest["data"].items() if name != "source"},
        "policy": dict(manifest["policy"]),
        "venue": manifest["venue"],
        "account": manifest["account"],
        "run": {name: manifest[name] for name in RUN},
        "engine": {
            "version": manifest["versions"]["leverage-backtest"],
            "source_hash": hash_engine(),
        },
    }
    plain: dict[str, Any] = to_plain(shorten_lists(facts))
    return plain


@functools.cache
def hash_engine() -> str:
    """Return a hash of the source of the engine."""
    root = Path(__file__).parent.parent
    texts = [(root / name).read_bytes().replace(b"\r\n", b"\n") for name in ENGINE]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


def hash_facts(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the hashes by which facts are told apart at a glance."""
    return {
        "data": str(facts["data"]["content_hash"]),
        "policy_source": str(facts["policy"]["source_hash"]),
        "venue": hash_data(facts["venue"]),
        "account": hash_data(facts["account"]),
        "engine": str(facts["engine"]["source_hash"]),
    }


def hash_data(value: Any) -> str:
    """Return a hash of plain data."""
    text = json.dumps(value, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def shorten_lists(value: Any) -> Any:
    """Return data with the hash of a list in place of one that is long, a series by time for one.

    Examples
    --------
    >>> shorten_lists({"fees": [1, 2]})
    {'fees': [1, 2]}
    """
    if isinstance(value, Mapping):
        shortened = {str(key): shorten_lists(item) for key, item in value.items()}
        return shortened if len(value) <= LONGEST else _summarise(value)
    if isinstance(value, (list, tuple)):
        return (
            [shorten_lists(item) for item in value] if len(value) <= LONGEST else _summarise(value)
        )
    return value


def _summarise(value: Any) -> str:
    return f"{len(value)} entries, sha256:{hash_data(to_plain(value))}"


def list_changes(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """Return what differs between two sets of facts, by its name in the manifest."""
    return [
        Change(name.partition(".")[0], name, one, other)
        for name, one, other in _walk(was, now, "")
        if name not in UNTOLD
    ]


def _walk(was: Any, now: Any, prefix: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield the leaves that differ, names joined by dots, places in lists in brackets."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for key in sorted({*was, *now}):
            name = f"{prefix}.{key}" if prefix else key
            yield from _walk(was.get(key), now.get(key), name)
    elif _is_list(was) and _is_list(now) and len(was) == len(now):
        for place, (one, other) in enumerate(zip(was, now, strict=True)):
            yield from _walk(one, other, f"{prefix}[{place}]")
    elif was != now:
        yield prefix, was, now


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def shorten(value: Any) -> str:
    """Return a value in a few letters; hashes by their first eight.

    Examples
    --------
    >>> shorten("a" * 64), shorten(None), shorten(0.0005)
    ('aaaaaaaa', 'none', '0.0005')
    """
    if value is None:
        return "none"
    text = str(value)
    is_hash = len(text) == 64 and set(text) <= set("0123456789abcdef")
    if is_hash:
        return text[:8]
    return text if len(text) <= 60 else f"{text[:57]}..."
