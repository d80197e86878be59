"""compare(): run several policies on one market, and test their differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest.account import Account
from backtest.base import (
    BacktestError,
    ParameterError,
    Range,
    TimeLike,
    check_range,
    checked_only,
    compute_id,
    find_version,
    find_versions,
    record_making,
    to_plain,
    warn_caller,
)
from backtest.compare.compared_accounts import (
    NEAR,
    ScaledAccount,
    equalize_risk,
    remove_residual_risk,
    sample_returns,
    tabulate_accounts,
)
from backtest.compare.comparison import Comparison
from backtest.compare.pairs import LEAST_SAMPLES, BootstrapRules, tabulate_pairs
from backtest.compare.separate_accounts import (
    SeparateAccounts,
    describe_separate,
    refuse_options,
    run_separate,
)
from backtest.compare.shared_terms import (
    Compared,
    ComparedPolicies,
    SharedTerms,
    check_baseline,
    check_result,
    name_entries,
)
from backtest.engine import (
    Progress,
    Result,
    check_terms,
    describe_data,
    end_expired,
    warn_of_last_prices,
    widen_market,
)
from backtest.market import Market, Markets, as_markets, with_clock
from backtest.measures import is_lost
from backtest.policy import Policy
from backtest.sweep import read_accounts, resolve_signals
from backtest.venue import Venue

if TYPE_CHECKING:
    from backtest.engine import Result
    from backtest.measures import Sampled

MOST_DRAWS = 1_000_000


@record_making
@checked_only("progress")
def compare(  # noqa: PLR0913 - keywords, each with a default that is said
    market: Market | Markets | Mapping[str, Market],
    policies: ComparedPolicies,
    *,
    venue: Venue | Mapping[str, Venue],
    account: Account,
    accounts: str = "shared",
    signal: Any = None,
    overlay: Policy | None = None,
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
    decide: str | None = None,
    detail: Any = None,
) -> Comparison:
    """Run several policies on one market, and test which differences are more than noise.

    Parameters
    ----------
    market, venue, account, signal, overlay, sampling, calendar, start, compile, decide, detail
        As in :func:`backtest.run`, the same for all.
    policies : mapping of str to Policy or Result, or a sequence of them
        At least two. A result must have been made on this market under the same terms. In a
        sequence the title of each policy is its name, with the settings that differ if titles
        repeat.
    accounts : str
        ``"shared"``: of several markets, one account holds all. ``"separate"``: every policy is run
        in each market, in an account of its own; see docs/compare.md.
    baseline : str, optional
        The policy that the others are compared with; the first by default.
    equal_risk : bool
        Whether to scale positions down, and run all again, until all have the volatility of the
        calmest one; see :mod:`backtest.compare.compared_accounts`.
    confidence : float
        The confidence of intervals and decisions, from 0.5 to below 1.
    draws, seed : int
        The number of resampled histories, at least 99, and their seed.
    progress : callable, optional
        Called with accounts run and accounts in total, then with histories drawn and in total.

    Returns
    -------
    Comparison

    Raises
    ------
    ParameterError
        If an argument is not allowed, or a result was made under other terms, naming them.
    PolicyError
        As :func:`backtest.run`, of any of the policies.

    Notes
    -----
    Differences of log growth, Sharpe ratio, volatility and expected shortfall of sampled returns
    are tested by the stationary bootstrap: see
    :func:`backtest.measures.differences.compare_pairs`. A ruined account has a log growth of
    -inf and ranks below all that were not ruined, without a test: returns after the ruin carry no
    information, and resampling one history cannot estimate how likely ruin was.
    """
    market = with_clock(market, decide, detail)
    is_separate, market = read_accounts(accounts, market, venue)
    named = name_entries(policies)
    if is_separate:
        refuse_options(overlay=overlay, equal_risk=equal_risk)
    else:
        market, signal = widen_market(
            market, signal, policy=None, venue=venue, account=account, overlay=overlay
        )
    signal = resolve_signals(signal, market, is_separate=is_separate)
    setting = SharedTerms(
        market, venue, account, signal, sampling, calendar, start, compile, overlay
    )
    base = check_baseline(baseline, tuple(named))
    rules = check_rules(confidence, draws, seed)
    names = setting.market.names if is_separate else ()
    for own in map(setting.take_market, names) if is_separate else (setting,):
        check_setting(own, named)
    warn_of_last_prices(as_markets(market))
    on_done = count_accounts(progress, len(named) * (2 if equal_risk else 1))
    results: dict[str, Any] = {
        name: run_entry(name, entry, setting, on_done, is_separate=is_separate)
        for name, entry in named.items()
    }
    scaled = None
    if equal_risk:
        scaled = equalize_risk(results, setting, on_done)
        results = {name: each.result for name, each in scaled.items()}
    shared = describe_shared(results, setting, is_separate=is_separate)
    done = compare_results(results, setting, base, rules, shared, scaled=scaled, progress=progress)
    for caution in done.manifest["warnings"]:
        warn_caller(caution)
    return done


def describe_shared(
    results: Mapping[str, Any], setting: SharedTerms, *, is_separate: bool
) -> dict[str, Any]:
    if not is_separate:
        span = next(iter(results.values())).span
        data = describe_data(setting.market, setting.account, span.start, span.closes)
        return {"data": data, **setting.describe()}
    market, first = setting.market, setting.first
    closes = market.time[first:] + market.interval
    data = describe_data(market, setting.account, int(market.time[first]), closes)
    return {"data": data, **describe_separate(setting)}


def compare_results(
    results: Mapping[str, Any],
    setting: SharedTerms,
    baseline: str,
    rules: BootstrapRules,
    shared: Mapping[str, Any],
    *,
    scaled: Mapping[str, ScaledAccount] | None = None,
    progress: Progress | None = None,
) -> Comparison:
    sampled = sample_returns(results, setting)
    table = tabulate_accounts(results, scaled)
    fallen = table["ruined"].to_numpy() != 0.0
    lost = np.array([is_lost(result.metrics) for result in results.values()])
    pairs, blocks = tabulate_pairs(
        remove_residual_risk(sampled, scaled), tuple(results), fallen, lost, rules, progress
    )
    facts = {
        "baseline": baseline,
        "equal_risk": scaled is not None,
        **rules._asdict(),
        "blocks": blocks,
        "warnings": find_cautions(len(sampled.free), scaled),
    }
    manifest = build_manifest(shared, results, scaled, sampled, facts)
    index = next(iter(results.values())).returns.index
    returns = pd.DataFrame(dict(zip(results, sampled.returns, strict=True)), index=index)
    free = pd.Series(sampled.free, index=index, name="risk_free")
    return Comparison(table, pairs, returns, free, manifest, results)


# ------------------------------------------------------------------------------------- arguments


def check_rules(confidence: float, draws: int, seed: int) -> BootstrapRules:
    level = check_range("confidence", confidence, low=0.5, high=1.0, open_high=True)
    n = int(Range(99, MOST_DRAWS).check("draws", draws, whole=True))
    if (n + 1) * (1.0 - level) < 1.0 - 1e-9:
        raise ParameterError(
            f"draws must be {1.0 / (1.0 - level) - 1.0:,.0f} or more for a confidence of {level:g},"
            f" got {n}"
        )
    start = Range(0, 2**63 - 1).check("seed", seed, whole=True)
    return BootstrapRules(level, n, int(start))


def check_setting(setting: SharedTerms, named: Mapping[str, Compared]) -> None:
    market, venue, account = setting.market, setting.venue, setting.account
    terms = (setting.sampling, setting.calendar)
    check_terms(end_expired(market, venue), Policy(), venue, account, *terms)
    for name, entry in named.items():
        if isinstance(entry, Result):
            check_result(name, entry, setting)


def count_accounts(progress: Progress | None, total: int) -> Callable[[], None]:
    done = iter(range(1, total + 1))
    return lambda: None if progress is None else progress(next(done), total)


def run_entry(
    name: str,
    entry: Compared,
    setting: SharedTerms,
    on_done: Callable[[], None],
    *,
    is_separate: bool,
) -> Result | SeparateAccounts:
    result: Result | SeparateAccounts
    try:
        if is_separate:
            result = run_separate(setting, entry)
        else:
            result = entry if isinstance(entry, Result) else setting.run(entry)
    except BacktestError as error:
        raise type(error)(f"policies[{name!r}]: {error}") from error
    on_done()
    return result


SHARED = ("venue", "account", "signal", "sampling", "calendar")


def find_cautions(n: int, scaled: Mapping[str, ScaledAccount] | None) -> list[str]:
    found = []
    if n < LEAST_SAMPLES:
        found.append(
            f"{n} returns are too few for intervals, which need {LEAST_SAMPLES}: give a longer "
            "market, or a shorter sampling"
        )
    for name, each in (scaled or {}).items():
        if not each.distance <= NEAR:
            got = float(each.result.metrics["volatility"])
            how = (
                f"was scaled to a volatility of {got:.4g}, not"
                if got
                else "held nothing, and cannot be scaled"
            )
            found.append(f"{name} {how} to {each.target:.4g}: its risk is not equal")
    return found


def build_manifest(
    shared: Mapping[str, Any],
    results: Mapping[str, Result],
    scaled: Mapping[str, ScaledAccount] | None,
    sampled: Sampled,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    manifest: dict[str, Any] = to_plain(
        {
            "kind": "comparison",
            "data": shared["data"],
            "policies": {
                name: {
                    "text": result.manifest["policy"]["text"],
                    "source_hash": result.manifest["policy"]["source_hash"],
                    "result": result.manifest["id"],
                    "scale": 1.0 if scaled is None else scaled[name].scale,
                    "rest": 1.0 if scaled is None else scaled[name].rest,
                }
                for name, result in results.items()
            },
            **{name: shared[name] for name in SHARED},
            **{name: shared[name] for name in ("overlay", "accounts") if name in shared},
            "samples": {
                "n": sampled.returns.shape[1],
                "per_year": sampled.per_year,
                "periods": sampled.periods,
            },
            **facts,
            "versions": {**find_versions(), "arch": find_version("arch")},
        }
    )
    return {"id": compute_id(manifest), **manifest}
