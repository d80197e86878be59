"""Identity of a study: everything that determines its numbers, its id, and differences."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from backtest.base import (
    BacktestError,
    ParameterError,
    find_version,
    from_plain,
    name_callable,
    to_plain,
    warn_caller,
)
from backtest.base.settings_result import LIBRARIES
from backtest.engine import describe_bars, describe_venue, hash_source
from backtest.market import Market, Markets
from backtest.sweep import BaseTerms
from backtest.tune.journal import FORMAT, STUDY, read_json

ASIDE = ("id", "format", "source", "policy_module", "versions")

LISTED = 8
"""Most differences that an error names."""


def describe_study(
    base: BaseTerms, market: Market | Markets, signal: str, **settings: Any
) -> dict[str, Any]:
    facts = {
        "data": describe_market(market),
        "policy": describe_policy(base),
        "venue": describe_venue(base.venue),
        "account": base.account.to_dict(),
        "signal": signal,
        **settings,
    }
    plain: dict[str, Any] = to_plain(facts)
    text = json.dumps(plain, sort_keys=True, allow_nan=False)
    libraries = (*LIBRARIES, "scipy", "scikit-optimize", "cmaes")
    versions = {name: find_version(name) for name in libraries}
    return {
        "format": FORMAT,
        "id": hashlib.sha256(text.encode()).hexdigest()[:16],
        **from_plain(plain),
        "source": repr(market),
        "policy_module": base.policy_class.__module__,
        "versions": {"python": platform.python_version(), **versions},
    }


def describe_market(market: Market | Markets) -> dict[str, Any]:
    found = describe_bars(market, market.start, market.time + market.interval)
    del found["source"]
    if isinstance(market, Markets):
        found["instruments"] = {name: each.content_hash for name, each in market.items()}
    return found


def describe_policy(base: BaseTerms) -> dict[str, Any]:
    cls = base.policy_class
    held = {} if isinstance(base.policy, type) else base.policy.settings()
    defaults = {
        name: each.default for name, each in cls.parameters().items() if each.default is not None
    }
    return {
        "name": cls.__name__,
        "title": cls.title(),
        "source_hash": hash_source(cls),
        "settings": defaults | held,
    }


def describe_objective(objective: Any) -> Any:
    if isinstance(objective, Mapping):
        return {name: float(weight) for name, weight in objective.items()}
    if not callable(objective):
        return str(objective)
    return name_callable(objective)


def name_folder(store: Path, facts: Mapping[str, Any]) -> Path:
    return store / f"{facts['policy']['title']}-study-{facts['id']}"


def check_resume(store: Path | None, facts: Mapping[str, Any], *, resume: bool) -> None:
    if store is None:
        if resume:
            raise ParameterError("resume needs the store that the study was started in, got None")
        return
    folder = name_folder(store, facts)
    if (folder / STUDY).is_file():
        begun = read_json(folder / STUDY)
        if resume:
            check_same(begun, facts, folder)
        else:
            raise ParameterError(
                f"{folder}: this study was already started; resume=True continues it, "
                "bt.Study.load loads it, another seed is another study"
            )
    elif resume:
        raise describe_missing(store, facts)


def check_same(begun: Mapping[str, Any], facts: Mapping[str, Any], folder: Path) -> None:
    differing = list(find_differences(begun, facts))
    if differing:
        raise describe_differences(differing, folder)
    versions = list(find_differences(begun.get("versions"), facts["versions"], "versions"))
    if versions:
        names = ", ".join(text.removeprefix("versions.") for text in versions)
        warn_caller(
            f"the study is resumed with other versions than it was started with: {names}; its "
            "numbers may match neither"
        )


def describe_missing(store: Path, facts: Mapping[str, Any]) -> ParameterError:
    others = dict(find_studies(store, facts["policy"]["title"]))
    if not others:
        name = facts["policy"]["name"]
        return ParameterError(f"{store}: there is no study of {name} to resume")
    gaps = {folder: list(find_differences(other, facts)) for folder, other in others.items()}
    nearest = min(gaps, key=lambda folder: len(gaps[folder]))
    return describe_differences(gaps[nearest], nearest)


def describe_differences(names: list[str], folder: Path) -> ParameterError:
    more = f"; and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ParameterError(
        f"{folder}: a study must be resumed with the same data, policy source and settings; these "
        f"differ: {'; '.join(names[:LISTED])}{more}; resume=False starts a new study"
    )


def find_studies(store: Path, title: str = "*") -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted(store.glob(f"{title}-study-*/{STUDY}")):
        try:
            yield path.parent, read_json(path)
        except BacktestError:
            continue  # not the study that was asked for


def find_differences(before: Any, after: Any, name: str = "") -> Iterator[str]:
    before, after = key_by_name(before), key_by_name(after)
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in {**before, **after}:
            if name or key not in ASIDE:
                inner = f"{name}.{key}" if name else str(key)
                yield from find_differences(before.get(key), after.get(key), inner)
    elif to_plain(before) != to_plain(after):
        yield f"{name} ({shorten(before)}, now {shorten(after)})"


def key_by_name(value: Any) -> Any:
    if not isinstance(value, (list, tuple)) or not value:
        return value
    if not all(isinstance(each, Mapping) and "name" in each for each in value):
        return value
    return {each["name"]: {k: v for k, v in each.items() if k != "name"} for each in value}


def shorten(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
