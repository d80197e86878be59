"""The holdout, looks at it, and the sets that other searches tried: a line of JSON each."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from backtest.base import (
    ParameterError,
    PolicyError,
    parse_duration,
    to_plain,
    warn_caller,
)
from backtest.market import as_markets
from backtest.sweep import BaseTerms, Sets, check_sets
from backtest.tune.journal import append_line, read_lines

if TYPE_CHECKING:
    from backtest.market import Market, Markets
    from backtest.sweep import Evaluator

LOOKS, TRIED = "looks.jsonl", "trials.jsonl"
LEAST_BARS = 2
"""Least bars on either side of the split, as a run needs two."""

_SHARE = re.compile(r"\s*(\d+(?:\.\d*)?)\s*%\s*")
Line: TypeAlias = Mapping[str, Any]


def find_split(market: Market | Markets, holdout: str | float | None) -> int:
    """Return the first bar of the holdout; the number of bars if there is none."""
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


# ---------------------------------------------------------------------------------------- bars


def describe_bars_of(facts: Mapping[str, Any], start: str, stop: str) -> dict[str, Any]:
    """Return the bars that a line is about: prices by instrument, and a span as text in UTC."""
    data = facts["data"]
    parts = data.get("instruments") or {str(data["instrument"]): str(data["content_hash"])}
    return {"prices": parts, "synthetic": bool(data["synthetic"]), "start": start, "stop": stop}


def shares_bars(one: Line, other: Line) -> bool:
    """Return whether two lines are about some of the same bars.

    An instrument is the same if its prices are, or its name: data grow, and made-up prices of one
    name are not the same.
    """
    try:
        mine, theirs = dict(one["prices"]), dict(other["prices"])
        is_named = not (one["synthetic"] or other["synthetic"])
        is_same = bool({*mine.values()} & {*theirs.values()})
        is_same = is_same or (is_named and bool({*filter(None, mine)} & {*filter(None, theirs)}))
        return is_same and max(one["start"], other["start"]) < min(one["stop"], other["stop"])
    except (KeyError, TypeError, ValueError):
        return False


# --------------------------------------------------------------------------------------- looks


def describe_holdout(facts: Mapping[str, Any]) -> dict[str, Any]:
    return describe_bars_of(facts, facts["searched"], facts["data"]["end"])


def record_look(store: Path, facts: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Note that a set was looked at on the holdout; the same set again is the same look."""
    plain = {name: to_plain(value) for name, value in values.items()}
    about = {"study": facts["id"], "policy": facts["policy"]["name"], "values": plain}
    append_line(store / LOOKS, {**about, **describe_holdout(facts)})


def count_looks(store: Path, facts: Mapping[str, Any]) -> int:
    here = describe_holdout(facts)
    return sum(line is None or shares_bars(here, line) for line in read_lines(store / LOOKS))


# -------------------------------------------------------------------------- sets tried elsewhere


class OtherTrials(NamedTuple):
    """Number of sets that other searches tried on some of the same bars, and their policies."""

    n_sets: int = 0
    policies: tuple[str, ...] = ()


def record_tries(store: Path, facts: Mapping[str, Any], n_sets: int) -> None:
    about = {"study": facts["id"], "policy": facts["policy"]["name"], "sets": n_sets}
    here = describe_bars_of(facts, facts["data"]["start"], facts["searched"])
    append_line(store / TRIED, {**about, **here})


def find_other_trials(store: Path | None, facts: Mapping[str, Any]) -> OtherTrials:
    if store is None:
        return OtherTrials()
    here = describe_bars_of(facts, facts["data"]["start"], facts["searched"])
    lines = [line for line in read_lines(store / TRIED) if line and {"study", "sets"} <= {*line}]
    found = {line["study"]: line for line in lines if shares_bars(here, line)}
    found.pop(facts["id"], None)
    policies = {str(each.get("policy")) for each in found.values()}
    return OtherTrials(sum(each["sets"] for each in found.values()), tuple(sorted(policies)))


# ---------------------------------------------------------------- sets run again on the holdout


class Bench(NamedTuple):
    whole: Evaluator
    split: int

    @property
    def has_holdout(self) -> bool:
        return bool(self.split < self.whole.market.n_bars)

    def read(self, values: Mapping[str, Any]) -> Sets:
        return check_columns(self.whole.base, {name: [value] for name, value in values.items()})


def check_columns(base: BaseTerms, columns: Mapping[str, Any]) -> Sets:
    return check_sets(
        base.policy, base.account, base.venue, columns, signal=base.signal, names=base.names,
        overlay=base.overlay,
    )  # fmt: skip


def measure_holdout(bench: Bench, sets: Sets) -> dict[str, float]:
    rows = bench.whole.evaluate(sets, first=bench.split)
    if not rows.done.all():
        raise KeyboardInterrupt
    if rows.errors[0]:
        raise PolicyError(f"the set failed on the holdout: {rows.errors[0]}")
    return {name: float(column[0]) for name, column in rows.metrics.items()}
