"""The facts of a baseline: its inputs, its code and its platform, and what of them changed."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from backtest import _compile, core
from backtest.judgement.judgement import Judgement
from backtest.results import Result
from backtest.search import WalkForward, walk_differences

ROOMS = (
    "_compile",
    "account",
    "core",
    "engine",
    "indicators",
    "margin",
    "market",
    "policies",
    "results",
    "signals",
    "venue",
)
"""The folders whose code computes a run."""
SEARCH_ROOMS = ("search", "sweep")
"""Those whose code chooses the parameters of a walk."""
JUDGEMENT_ROOMS = ("judgement", "risk", "search", "sweep")
"""Those whose code judges a policy."""

POLICY = (
    "text",
    "name",
    "settings",
    "source_hash",
    "by_instrument",
    "switches",
)
RUN = ("signal", "sampling", "calendar", "resumed_from")
SEARCH = (
    "space",
    "objective",
    "constraints",
    "trials",
    "seed",
    "sampler",
    "robust",
    "patience",
)
JUDGEMENT = ("markets", "tune", "n_paths", "draws", "seed")
LONGEST = 64
"""The length up to which lists are kept; longer ones are replaced by a hash."""
REPEATED = frozenset({"policy.text", "data.flows_after_the_end"})
"""Facts that only say again what others say."""

WALK = "walk"
JUDGED = "judged"
WINNERS = "winners"

LIBRARIES = ("numpy", "numba", "llvmlite", "scipy", "pandas", "arch")
OVERRIDES = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NPY_DISABLE_CPU_FEATURES")
LONGEST_NAMED = 24
"""Letters up to which a fact of the platform is shown; of longer ones the name alone."""


def describe_run(account: Result) -> dict[str, Any]:
    """Return the inputs of a run and the hash of the code that computes it."""
    manifest = account.manifest
    policy = manifest["policy"]
    facts: dict[str, Any] = {
        "data": drop_sources(manifest["data"]),
        "policy": {name: policy[name] for name in POLICY if name in policy},
    }
    if manifest.get("overlay"):
        facts["overlay"] = manifest["overlay"]

    facts |= {
        "venue": manifest["venue"],
        "account": manifest["account"],
        "run": {name: manifest[name] for name in RUN},
        "engine": {
            "version": manifest["versions"]["leverage-backtest"],
            "source_hash": hash_rooms(ROOMS),
        },
    }
    plain: dict[str, Any] = core.to_plain(shorten_lists(facts))
    return plain


def describe_walk(walk: WalkForward) -> dict[str, Any]:
    """Return how a walk was searched, and the best set of each fold."""
    manifest = walk.manifest
    search = {name: manifest[name] for name in SEARCH if name in manifest}
    search |= {
        "folds": len(walk.folds),
        "spans": hash_data(manifest["spans"]),
        "source_hash": hash_rooms(SEARCH_ROOMS),
    }

    # The parameters stand between the times of the spans and the scores.
    spans = [name for name in manifest["spans"]["columns"] if name in walk.folds]
    winners = walk.folds.drop(columns=spans).loc[:, :"in_sample"].drop(columns="in_sample")
    return {
        WALK: shorten_lists(search),
        WINNERS: shorten_lists(winners.to_dict("records")),
    }


def describe_judgement(judgement: Judgement) -> dict[str, Any]:
    """Return what a policy was judged on, and the outcome."""
    facts = {name: judgement.settings[name] for name in JUDGEMENT}
    facts |= {
        "outcome": judgement.outcome,
        "data": judgement.manifest["data"]["content_hash"],
        "source_hash": hash_rooms(JUDGEMENT_ROOMS),
    }
    return {JUDGED: facts}


def describe_host() -> dict[str, str]:
    """Return the platform: what may change the last bits of a number."""
    processor, features = _compile.describe_processor()
    host = {
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu": processor,
        "cpu_features": " ".join(features),
        "libm": " ".join(platform.libc_ver()).strip() or platform.release(),
        "python": platform.python_version(),
    }

    for library in LIBRARIES:
        host[library] = core.find_version(library)
    for variable in OVERRIDES:
        if os.environ.get(variable):
            host[variable.lower()] = os.environ[variable]
    return host


class FactChange(NamedTuple):
    """A fact that differs; ``kind`` is the part of the inputs that it belongs to."""

    kind: str
    name: str
    was: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.name}: {shorten_value(self.was)} -> {shorten_value(self.now)}"


@functools.cache
def hash_rooms(rooms: tuple[str, ...]) -> str:
    """Return a hash of the sources in some folders of the package, for any line ends."""
    root = Path(__file__).parents[1]
    files: list[Path] = []
    for room in rooms:
        files += (root / room).rglob("*.py")

    texts = [file.read_bytes().replace(b"\r\n", b"\n") for file in sorted(files)]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


def drop_sources(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts of data without the paths of their files, which another machine has not."""
    facts = {name: value for name, value in data.items() if name != "source"}
    if "instruments" in facts:
        instruments = data["instruments"].items()
        facts["instruments"] = {name: drop_sources(part) for name, part in instruments}
    return facts


def hash_data(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def shorten_lists(value: Any) -> Any:
    """Return a value whose long lists are hashes, so that a reviewer can read it."""
    if not isinstance(value, (Mapping, list, tuple)):
        return value
    if len(value) > LONGEST:
        return f"{len(value)} entries, sha256:{hash_data(core.to_plain(value))}"
    if isinstance(value, Mapping):
        return {str(key): shorten_lists(item) for key, item in value.items()}
    return [shorten_lists(item) for item in value]


def list_changes(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[FactChange]:
    """Return the facts that differ, each by its dotted name."""
    changes = []
    for name, old_value, new_value in walk_differences(was, now):
        if name in REPEATED:
            continue
        kind = re.split(r"[.\[]", name, maxsplit=1)[0]
        changes.append(FactChange(kind, name, old_value, new_value))
    return changes


def shorten_value(value: Any) -> str:
    """Return a fact as a few words; a hash by its first letters."""
    text = "none" if value is None else str(value)
    if re.fullmatch("[0-9a-f]{64}", text):
        return text[:8]
    return core.clip(text, 60)


def list_host_changes(was: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return what differs between two platforms."""
    changes = []
    for name in {**was, **now}:
        old_value = was.get(name, "none")
        new_value = now.get(name, "none")
        if old_value == new_value:
            continue

        if max(len(old_value), len(new_value)) <= LONGEST_NAMED:
            changes.append(f"{name} {old_value} -> {new_value}")
        else:
            changes.append(name)
    return changes
