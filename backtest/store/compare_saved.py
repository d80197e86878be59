"""Compare saved runs, as backtest.compare compares those it makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from backtest.account.account import Account
from backtest.base.errors import ParameterError
from backtest.base.json_values import to_plain
from backtest.base.units import format_duration, utc_index
from backtest.compare import Comparison, SharedTerms, list_differences
from backtest.compare.compare import check_rules, compare_results
from backtest.compare.shared_terms import (
    check_baseline,
    describe_result,
    find_settings,
    find_title,
    name_uniquely,
)
from backtest.engine.result import Result
from backtest.market.market import Market
from backtest.venue.venue import Venue

LISTED = 8
SHOWN_ID = 8


def name_saved(results: Sequence[Result]) -> list[str]:
    """Return what saved runs go by: their policies' titles, with the settings that differ.

    Runs of one policy with the same settings, such as those of its source before and after an
    edit, are told apart by their ids.
    """
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
    """Return the comparison of saved runs: that of their policies on the same market, to the bit.

    Parameters
    ----------
    results : mapping of str to Result
        At least two, by what they go by.
    baseline, confidence, draws, seed
        As in :func:`backtest.compare`.
    """
    if len(results) < 2:
        raise ParameterError(
            f"a comparison needs two runs or more, was given {len(results)}",
            where="backtest results compare",
            cure="name two runs; backtest results list --kind run shows them",
        )
    base = check_baseline(baseline, tuple(results), where="backtest results compare, baseline")
    rules = check_rules(confidence, draws, seed)
    check_alike(results)
    first = next(iter(results.values()))
    return compare_results(results, rebuild_setting(first), base, rules, first.manifest)


def check_alike(results: Mapping[str, Result]) -> None:
    """Refuse runs of different data, signal, venue, account or sampling."""
    (name, first), *rest = results.items()
    terms = to_plain(describe_result(first))
    for other, result in results.items():
        if result.manifest["resumed_from"] is not None:
            raise terms_error(other, "begins in the middle: it was resumed from another run")
    for other, result in rest:
        found = list_differences(terms, to_plain(describe_result(result)))
        if found:
            more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
            what = f"{', '.join(found[:LISTED])}{more}".replace("market", "market data")
            raise terms_error(other, f"differs from {name} in {what}")


def terms_error(name: str, what: str) -> ParameterError:
    """Return the error of a run that cannot be compared."""
    return ParameterError(
        f"runs must share market, time, signal, venue and account to be compared, {name!r} {what}",
        where="backtest results compare",
        cure="run it again under the same terms, or compare runs that have them",
    )


def rebuild_setting(result: Result) -> SharedTerms:
    """Return the terms of a run with a market of its bars' times, which sampling depends on.

    Its prices are the closes: nothing is run on it.
    """
    close = np.asarray(result.close)
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
        Venue.from_dict(manifest["venue"]),
        Account.from_dict(manifest["account"]),
        None,
        manifest["sampling"],
        manifest["calendar"],
    )
