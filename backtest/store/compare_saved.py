"""Compare saved runs with the tests that :func:`backtest.compare` applies to new ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from backtest.account import Account
from backtest.base import FloatArray, ParameterError, format_duration, to_plain, utc_index
from backtest.compare import (
    Comparison,
    SharedTerms,
    check_baseline,
    check_rules,
    compare_results,
    describe_result,
    find_overlay,
    find_settings,
    find_title,
    list_differences,
    name_uniquely,
)
from backtest.engine import Result
from backtest.market import Market
from backtest.venue import Venue

LISTED = 8
SHOWN_ID = 8


def name_saved(results: Sequence[Any]) -> list[str]:
    plain = [(find_title(each), repr(sorted(find_settings(each).items()))) for each in results]
    if len(set(plain)) == len(plain):
        return list(name_uniquely(results))
    return [f"{find_title(each)} {each.manifest['id'][:SHOWN_ID]}" for each in results]


def compare_saved(
    results: Mapping[str, Result],
    *,
    baseline: str | None = None,
    confidence: float = 0.95,
    draws: int = 1_999,
    seed: int = 0,
) -> Comparison:
    if len(results) < 2:
        raise ParameterError(f"a comparison needs two runs or more, got {len(results)}")
    base = check_baseline(baseline, tuple(results))
    rules = check_rules(confidence, draws, seed)
    check_alike(results)
    first = next(iter(results.values()))
    shared = {name: each for name, each in first.manifest.items() if name != "overlay"}
    if overlay := find_overlay(first):
        shared["overlay"] = overlay
    return compare_results(results, rebuild_setting(first), base, rules, shared)


def check_alike(results: Mapping[str, Result]) -> None:
    name, first = next(iter(results.items()))
    terms = to_plain(describe_result(first))
    for other, result in results.items():
        if result.manifest["resumed_from"] is not None:
            raise terms_error(other, "begins in the middle: it was resumed from another run")
        found = list_differences(terms, to_plain(describe_result(result)))
        if found:
            more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
            what = f"{', '.join(found[:LISTED])}{more}".replace("market", "market data")
            raise terms_error(other, f"differs from {name} in {what}")


def terms_error(name: str, what: str) -> ParameterError:
    return ParameterError(
        f"runs must share market, time, signal, venue and account to be compared, {name!r} {what}"
    )


def rebuild_setting(result: Result) -> SharedTerms:
    venue: Any
    close: FloatArray
    if result.is_of_fast_loop:
        close, venue = np.asarray(result.close), Venue.from_dict(result.manifest["venue"])
    else:
        close = np.asarray(np.cumprod(1.0 + result.market_returns), dtype=np.float64)
        venue = dict(result.venues)
    frame = pd.DataFrame(
        dict.fromkeys(("open", "high", "low", "close"), close),
        index=utc_index(result.time),
    )
    market = Market.from_frames(
        frame, interval=format_duration(result.interval), sessions=result.is_session
    )
    manifest = result.manifest
    return SharedTerms(
        market,
        venue,
        Account.from_dict(manifest["account"]),
        None,
        manifest["sampling"],
        manifest["calendar"],
    )
