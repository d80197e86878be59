"""The holdout, the last part of the data, which a search never sees; and the record of looks."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.base import (
    DataError,
    ParameterError,
    parse_duration,
    to_plain,
    warn_caller,
)
from backtest.market import as_markets
from backtest.tune.journal import FORMAT, hash_outcome, read_json, write_json

if TYPE_CHECKING:
    from backtest.market import Market, Markets

LOOKS = "holdout-looks"
LEAST_BARS = 2
"""Least bars on either side of the split, as a run needs two."""

_SHARE = re.compile(r"\s*(\d+(?:\.\d*)?)\s*%\s*")


def find_split(market: Market | Markets, holdout: str | float | None) -> int:
    n = market.n_bars
    if holdout is None or (not isinstance(holdout, str) and holdout == 0):
        return n
    split = -1
    match = _SHARE.fullmatch(holdout) if isinstance(holdout, str) else None
    if match or isinstance(holdout, float):
        share = float(match[1]) / 100.0 if match else float(holdout)
        split = n - round(n * share) if 0.0 <= share < 1.0 else -1
    elif isinstance(holdout, str):
        with contextlib.suppress(ParameterError):
            begin = market.end - parse_duration(holdout)
            split = int(np.searchsorted(market.time, begin))
    if split != n and not LEAST_BARS <= split <= n - LEAST_BARS:
        raise ParameterError(
            "holdout must be a share such as '25%', a duration such as '90d' or 0 for none, that "
            f"leaves bars to search on, got {holdout!r} of {n} bars"
        )
    return split


def warn_of_unseen(market: Market | Markets, split: int) -> None:
    markets = as_markets(market)
    unseen = [
        name for name, (listed, _) in zip(markets, markets.spans, strict=True) if listed >= split
    ]
    if unseen:
        warn_caller(
            f"{', '.join(unseen)} is first listed in the holdout, so the search does not see it. "
            "Use a shorter holdout or other markets to include it"
        )


def record_look(store: Path, facts: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    look: dict[str, Any] = to_plain(
        {
            "format": FORMAT,
            "data": facts["data"],
            "holdout": facts["holdout"],
            "searched": facts["searched"],
            "policy": facts["policy"]["name"],
            "study": facts["id"],
            "values": values,
        }
    )
    path = store / LOOKS / name_look(facts, facts["id"], look["values"])
    if not path.exists():
        write_json(path, {**look, "seal": hash_outcome(look)})


def count_looks(store: Path, facts: Mapping[str, Any]) -> int:
    here = facts["searched"], facts["data"]["end"]
    total = 0
    for path in (store / LOOKS).glob("*.json"):
        try:
            look = read_json(path)
            there = look["searched"], look["data"]["end"]
            total += shares_bars(facts["data"], here, look["data"], there)
        except (DataError, KeyError, TypeError):  # damaged: counted by its name
            total += path.name.startswith(name_data(facts))
    return total


def find_damaged_looks(store: Path) -> Iterator[tuple[str, str]]:
    for path in sorted((store / LOOKS).glob("*.json")):
        try:
            look = read_json(path)
            is_sealed = look.get("seal", "") in ("", hash_outcome(look))
            is_whole = is_sealed and path.name == name_look(look, look["study"], look["values"])
        except (DataError, KeyError, TypeError, ValueError):
            is_whole = False
        if not is_whole:
            yield path.name, "was changed or truncated: a look at a holdout may be counted wrongly"


def name_look(facts: Mapping[str, Any], study: str, values: Any) -> str:
    text = json.dumps(to_plain([study, values]), sort_keys=True)
    return f"{name_data(facts)}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def shares_bars(
    data: Mapping[str, Any], span: tuple[str, str], other: Mapping[str, Any], there: tuple[str, str]
) -> bool:
    is_named = not (data["synthetic"] or other["synthetic"])
    mine, theirs = list_parts(data), list_parts(other)
    is_same = bool({*mine.values()} & {*theirs.values()})
    if not is_same and not (is_named and {*filter(None, mine)} & {*filter(None, theirs)}):
        return False
    return max(span[0], there[0]) < min(span[1], there[1])


def list_parts(data: Mapping[str, Any]) -> Mapping[str, str]:
    parts: Mapping[str, str] = data.get("instruments") or {
        str(data["instrument"]): str(data["content_hash"])
    }
    return parts


def name_data(facts: Mapping[str, Any]) -> str:
    return str(facts["data"]["content_hash"])[:16]
