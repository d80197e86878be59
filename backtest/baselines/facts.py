"""The facts of a baseline: its inputs, its code and its platform, and what of them changed."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from backtest import core
from backtest.search import walk_differences

ROOMS = (
    *("_compile", "account", "core", "engine", "indicators", "margin", "market", "policies"),
    *("results", "signals", "venue"),
)
"""The folders whose code computes a run."""
POLICY = ("text", "name", "settings", "source_hash", "by_instrument", "switches")
RUN = ("signal", "sampling", "calendar", "resumed_from")
LONGEST = 64
"""The length up to which lists are kept; longer ones are replaced by a hash."""
REPEATED = frozenset({"policy.text", "data.flows_after_the_end"})


class FactChange(NamedTuple):
    kind: str
    name: str
    was: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.name}: {shorten_value(self.was)} -> {shorten_value(self.now)}"


@functools.cache
def hash_rooms(rooms: tuple[str, ...]) -> str:
    root = Path(__file__).parents[1]
    files = sorted(path for room in rooms for path in (root / room).rglob("*.py"))
    texts = (file.read_bytes().replace(b"\r\n", b"\n") for file in files)
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


def drop_sources(data: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in data.items() if name != "source"}
    if "instruments" in kept:
        kept["instruments"] = {
            name: drop_sources(each) for name, each in data["instruments"].items()
        }
    return kept


def hash_data(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def shorten_lists(value: Any) -> Any:
    if not isinstance(value, (Mapping, list, tuple)):
        return value
    if len(value) > LONGEST:
        return f"{len(value)} entries, sha256:{hash_data(core.to_plain(value))}"
    if isinstance(value, Mapping):
        return {str(key): shorten_lists(item) for key, item in value.items()}
    return [shorten_lists(item) for item in value]


def list_changes(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[FactChange]:
    return [
        FactChange(re.split(r"[.\[]", name, maxsplit=1)[0], name, one, other)
        for name, one, other in walk_differences(was, now)
        if name not in REPEATED
    ]


def shorten_value(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text[:8] if re.fullmatch("[0-9a-f]{64}", text) else core.clip(text, 60)


WALK, JUDGED = "walk", "judged"
WINNERS = "winners"
SEARCH = ("space", "objective", "constraints", "trials", "seed", "sampler", "robust",
          "patience")  # fmt: skip

LIBRARIES = ("numpy", "numba", "llvmlite", "scipy", "pandas", "arch")
OVERRIDES = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NPY_DISABLE_CPU_FEATURES")


def list_host_changes(was: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    found = []
    for name in {**was, **now}:
        one, other = was.get(name, "none"), now.get(name, "none")
        if one != other:
            is_short = max(len(one), len(other)) <= 24
            found.append(f"{name} {one} -> {other}" if is_short else name)
    return found
