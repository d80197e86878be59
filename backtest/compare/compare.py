"""compare(): take several policies through one market, and test their differences."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from backtest.account.account import Account
from backtest.base.errors import BacktestError, ParameterError
from backtest.base.phrases import Phrase, Place
from backtest.base.provenance import record_making
from backtest.base.ranges import Range, check_range
from backtest.base.units import FloatArray, TimeLike
from backtest.compare.compared_accounts import level, sample_returns, tabulate_accounts
from backtest.compare.comparison import Comparison
from backtest.compare.comparison_manifest import find_cautions, write_manifest
from backtest.compare.equal_risk import Scaled, equalise
from backtest.compare.pairs import Rules, tabulate_pairs
from backtest.compare.shared_terms import (
    Entries,
    Entry,
    Setting,
    check_baseline,
    check_result,
    name_entries,
)
from backtest.engine.loop_driver import Progress
from backtest.engine.manifest import describe_data
from backtest.engine.result import Result
from backtest.engine.run import check_kinds, check_settings
from backtest.engine.run_warnings import warn_of_last_prices
from backtest.market.market import Market
from backtest.policy.policy import Policy
from backtest.venue.venue import Venue

MOST_DRAWS = 1_000_000


@record_making
def compare(  # noqa: PLR0913 - keywords, each with a default that is said
    market: Market,
    policies: Entries,
    *,
    venue: Venue,
    account: Account,
    signal: pd.Series[Any] | FloatArray | float | None = None,
    sampling: str = "1d",
    calendar: str = "365",
    start: TimeLike | None = None,
    baseline: str | None = None,
    equal_risk: bool = False,
    confidence: float = 0.95,
    draws: int = 1_999,
    seed: int = 0,
    compile: bool = True,  # noqa: A002 - the word users know
    progress: Progress | None = None,
) -> Comparison:
    """Take several policies through one market, and say which differences are more than noise.

    Parameters
    ----------
    market, venue, account, signal, sampling, calendar, start, compile
        As in :func:`backtest.run`, the same for all.
    policies : mapping of str to Policy or Result, or a sequence of them
        At least two. A result must have been made on this market under the same terms. In a
        sequence each goes by its title, or by its settings too where titles are alike.
    baseline : str, optional
        The policy the others are compared with; the first by default.
    equal_risk : bool
        Whether positions are scaled down, and all run again, until all have the volatility of the
        calmest one; see :mod:`backtest.compare.equal_risk`.
    confidence : float
        Of intervals and decisions, from 0.5 to below 1.
    draws, seed : int
        Resampled histories, at least 99, and the seed of them.
    progress : callable, optional
        Called with accounts run and accounts in all, then with histories drawn and in all.

    Returns
    -------
    Comparison

    Raises
    ------
    ParameterError
        If an argument is not allowed, or a result was made under other terms, naming them.
    PolicyError
        As :func:`backtest.run`, of any of the policies.

    Notes ----- Differences of log growth, Sharpe ratio, volatility and expected shortfall of
    sampled returns, by the stationary bootstrap: see
    :func:`backtest.measures.paired_bootstrap.compare_pairs`. An account that was ruined has a log
    growth of -inf and stands below all that were not, without a test: what came after its ruin
    tells nothing, and no resampling of one history says how likely it was.
    """
    named = name_entries(policies)
    base = check_baseline(baseline, tuple(named))
    rules = check_rules(confidence, draws, seed)
    setting = Setting(market, venue, account, signal, sampling, calendar, start, compile)
    check_setting(setting, named)
    warn_of_last_prices(market)
    tell = count_accounts(progress, len(named) * (2 if equal_risk else 1))
    results = {name: live(name, entry, setting, tell) for name, entry in named.items()}
    scaled = equalise(results, setting, tell) if equal_risk else None
    if scaled is not None:
        results = {name: each.result for name, each in scaled.items()}
    shared = {"data": describe_first(results, setting), **setting.describe()}
    done = compare_results(results, setting, base, rules, shared, scaled=scaled, progress=progress)
    for caution in done.manifest["warnings"]:
        warnings.warn(caution, stacklevel=3)
    return done


def describe_first(results: Mapping[str, Result], setting: Setting) -> dict[str, object]:
    """Return what the data of a comparison are: those that its first account was run on."""
    span = next(iter(results.values())).span
    return describe_data(setting.market, setting.account, span.start, span.closes)


def compare_results(
    results: Mapping[str, Result],
    setting: Setting,
    baseline: str,
    rules: Rules,
    shared: Mapping[str, Any],
    *,
    scaled: Mapping[str, Scaled] | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Return the comparison of accounts that were run under the same terms.

    Parameters
    ----------
    results : mapping of str to Result
        The accounts by name; of those at equal risk, the scaled ones.
    setting : Setting
        The market and the sampling.
    baseline : str
        The name of the account that the others are compared with.
    rules : Rules
        How differences are tested.
    shared : mapping
        What the manifest says of data, venue, account, signal, sampling and calendar.
    scaled : mapping of str to Scaled, optional
        How each account was scaled.
    progress : callable, optional
        As in :func:`compare`.
    """
    sampled = sample_returns(results, setting)
    table = tabulate_accounts(results, scaled)
    fallen = table["ruined"].to_numpy() != 0.0
    pairs, blocks = tabulate_pairs(level(sampled, scaled), tuple(results), fallen, rules, progress)
    facts = {
        "baseline": baseline,
        "equal_risk": scaled is not None,
        **rules._asdict(),
        "blocks": blocks,
        "warnings": find_cautions(len(sampled.free), scaled),
    }
    manifest = write_manifest(shared, results, scaled, sampled, facts)
    index = next(iter(results.values())).returns.index
    returns = pd.DataFrame(dict(zip(results, sampled.returns, strict=True)), index=index)
    free = pd.Series(sampled.free, index=index, name="risk_free")
    return Comparison(table, pairs, returns, free, manifest, results)


# ------------------------------------------------------------------------------------ at the door


def check_rules(confidence: float, draws: int, seed: int) -> Rules:
    """Return how differences are tested.

    Raises
    ------
    ParameterError
        If a number is out of its range, or so few draws cannot give so high a confidence.
    """
    level = check_range(
        "confidence",
        confidence,
        where=Place("confidence", of="bt.compare"),
        low=0.5,
        high=1.0,
        open_high=True,
    )
    n = int(
        Range(99, MOST_DRAWS).check(
            "draws", draws, where=Place("draws", of="bt.compare"), whole=True
        )
    )
    if (n + 1) * (1.0 - level) < 1.0 - 1e-9:
        raise ParameterError(
            f"draws must be {1.0 / (1.0 - level) - 1.0:,.0f} or more for a confidence of {level:g},"
            f" was {n}",
            where=Place("draws", of="bt.compare"),
            cure="draw more, or be less confident",
        )
    start = Range(0, 2**63 - 1).check(
        "seed", seed, where=Place("seed", of="bt.compare"), whole=True
    )
    return Rules(level, n, int(start))


def check_setting(setting: Setting, named: Mapping[str, Entry]) -> None:
    """Refuse terms that do not go together, and results that were made under others."""
    check_kinds(setting.market, Policy(), setting.venue, setting.account, None)
    check_settings(
        setting.market, setting.account, setting.venue, setting.sampling, setting.calendar
    )
    for name, entry in named.items():
        if isinstance(entry, Result):
            check_result(name, entry, setting)


def count_accounts(progress: Progress | None, total: int) -> Callable[[], None]:
    """Return what to call when an account is done."""
    done = iter(range(1, total + 1))

    def tell() -> None:
        now = next(done)
        if progress is not None:
            progress(now, total)

    return tell


def live(name: str, entry: Entry, setting: Setting, tell: Callable[[], None]) -> Result:
    """Return the account of a policy; a result as it is.

    Raises
    ------
    BacktestError
        If the policy is refused, with its name in the comparison.
    """
    try:
        result = entry if isinstance(entry, Result) else setting.live(entry)
    except BacktestError as error:
        place = Phrase("policy {}: {}", repr(name), error.where)
        raise type(error)(error.problem, where=place, cure=error.cure) from error
    tell()
    return result
