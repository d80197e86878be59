"""Make a result of what the loop wrote."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.account.ledger import FILL
from backtest.account.order_limits import ALL, ASKED, CAUSES, COUNT, CUT, DAYS, DISTANCE, HELD
from backtest.account.pool_liquidation import CAUSED
from backtest.base import BoolArray, FloatArray, IntArray, NoFillWarning, warn_caller
from backtest.engine.checks import warn_of_no_option, warn_of_outcome
from backtest.engine.inputs import has_order_fee, read_assets, start_account_state
from backtest.engine.manifest import write_manifest
from backtest.engine.record import Outcome
from backtest.engine.result import Result
from backtest.engine.run_data import Before, Quotes, find_stands, share_causes
from backtest.engine.run_options import read_options
from backtest.engine.run_record import begin_moves
from backtest.engine.run_setup import Setup
from backtest.features import NOTHING_SEEN, forecast_volatility
from backtest.market import label_names
from backtest.measures import RunSpan
from backtest.venue import compute_collateral_value

if TYPE_CHECKING:
    from backtest.market import Markets


WORDS = {
    "min_leverage": "the account's min_leverage",
    "max_leverage": "the account's max_leverage",
    "band": "the band",
    "unfilled": "limit orders that did not fill",
    "initial_margin": "initial margin",
    "venue_leverage": "the venue leverage",
    "wallet": "the wallet (isolated margin)",
    "participation": "max_participation",
    "lot": "lots",
    "min_notional": "the least notional",
    "max_gross_leverage": "the account's max_gross_leverage",
}
LEAST_SHARE = 0.05
"""Limits are mentioned if they moved the decisions that they touched by this share on average."""


def is_large(row: Mapping[str, Any], total: Mapping[str, Any]) -> bool:
    asked = max(abs(float(row["mean_asked"])), abs(float(total["mean_asked"])))
    return bool(row["mean_distance"] >= LEAST_SHARE * asked)


def list_cut_rows(names: Sequence[str], cuts: FloatArray) -> list[dict[str, Any]]:
    """Return the rows of the table of cuts from the sums of a run, those of all instruments first.

    ``cuts`` of shape (n + 1, causes, sums) have an instrument a row, and all of them in the last.
    """
    if len(names) == 1:
        return average_rows(cuts[0])
    rows = [{"instrument": "all", **row} for row in average_rows(cuts[-1])]
    for name, own in zip(names, cuts[:-1], strict=True):
        rows += [{"instrument": name, **row} for row in average_rows(own)]
    return rows


def average_rows(sums: FloatArray) -> list[dict[str, Any]]:
    total = sums[ALL, COUNT]
    found = []
    for cause, own in zip(CAUSES, sums, strict=True):
        n = int(own[COUNT])
        if not n and cause != "all":
            continue
        means = own[[ASKED, HELD, CUT, DISTANCE]] / n if n else np.full(4, math.nan)
        names = ("mean_asked", "mean_held", "mean_shortfall", "mean_distance")
        found.append(
            {
                "cause": cause,
                "decisions": n,
                "share": n / total if n else math.nan,
                **dict(zip(names, means.tolist(), strict=True)),
                "days": int(own[DAYS]),
            }
        )
    return found


def find_columns(setup: Setup) -> dict[str, FloatArray]:
    labels = label_names(setup.markets).values()
    return {
        f"{column} of {label}" if label else column: values
        for label, each in zip(labels, setup.observed, strict=False)
        for column, values in each.columns.items()
    }


def explain_no_fill(setup: Setup, outcome: Outcome, rows: Sequence[Mapping[str, Any]]) -> str:
    level, total = outcome.of_positions("target"), rows[0]
    asked, n = level[:-1], int(total["decisions"])
    if np.isnan(asked).all():
        return explain_nan(len(level), find_columns(setup))
    signal = setup.inputs.feed.signal
    if not signal[min(setup.first, len(signal) - 1) :].any():
        return f"the signal was 0 or NaN at all {len(level):,} closes, which asks for no position"
    if np.isinf(asked[~np.isnan(asked)]).all():
        return "its infinite leverage met limits that left no room for an order"
    if n == 0 and any(map(has_order_fee, setup.venues.values())):
        return "the equity was at most the fixed fee of an order, fees.per_order, at any decision"
    if n == 0:
        return "no decision met an open at which the account had equity"
    if total["mean_asked"] == 0.0:
        who = "policy or the overlay" if setup.overlay else "policy"
        return f"the {who} asked for a leverage of 0, or the signal was 0, at all {n:,} decisions"
    limits = [row for row in rows if row.get("instrument", "all") == "all" and row is not total]
    return explain_limit(setup, total, limits)


def explain_nan(n: int, columns: Mapping[str, FloatArray]) -> str:
    unknown = [name for name, column in columns.items() if not np.isfinite(column[:-1]).any()]
    if unknown:
        names = ", ".join(unknown)
        verb = "was" if len(unknown) == 1 else "were"
        return (
            f"{names} {verb} not known at any of {n:,} closes: the policy needs more bars to warm "
            "up, or shorter windows"
        )
    return (
        f"the policy returned NaN, which leaves the position as it is, at all {n:,} closes: look "
        "for NaN in its formula"
    )


def explain_limit(
    setup: Setup, total: Mapping[str, Any], limits: Sequence[Mapping[str, Any]]
) -> str:
    if not limits:
        return "no limit explains it: look at result.positions"
    worst = max(limits, key=lambda row: float(row["decisions"] * row["mean_distance"]))
    each = " per instrument" * any(label_names(setup.markets).values())
    of = f"{worst['decisions']:,} of {total['decisions']:,} decisions"
    asked = f"{of} ({total['mean_asked']:.3g}x{each} on average)"
    contracts = [each.contract for each in setup.venues.values()]
    bands = [setup.account.for_instrument(name).band for name in setup.markets.names]
    small = f"the capital of {setup.account.capital:g} is too small for them"
    reasons = {
        "band": f"the targets of {asked} lay within the band of {list_values(bands)} turns of "
        "equity around no position: narrow the band",
        "min_notional": f"the orders of {asked} were under the least notional of the venue, "
        f"{list_values([each.min_notional or 0.0 for each in contracts])}: {small}",
        "lot": f"the orders of {asked} were under one lot, "
        f"{list_values([each.lot for each in contracts])} contracts: {small}",
        "participation": f"max_participation left no volume for the orders of {of}: the bars have "
        "too little volume",
    }
    return reasons.get(worst["cause"], f"{WORDS[worst['cause']]} left no room for {of}")


def list_values(values: Sequence[float]) -> str:
    return " or ".join(f"{each:g}" for each in dict.fromkeys(values))


def count_unfilled(metrics: Mapping[str, FloatArray]) -> int:
    return int((np.asarray(metrics["turnover"]) == 0.0).sum())


def warn_of_unfilled(metrics: Mapping[str, FloatArray]) -> None:
    n, total = count_unfilled(metrics), len(metrics["turnover"])
    if n:
        warn_caller(
            f"{n:,} of {total:,} sets filled no order; a run of one of them says why", NoFillWarning
        )


# -------------------------------------------------------------------------------------- the result

QUOTES = (
    "close", "mark_close", "mark_low", "mark_high", "signal", "multiplier", "initial", "low",
    "high",
)  # fmt: skip


def finish(setup: Setup, outcome: Any, *, calendar: str) -> Result:
    markets, first = setup.markets, setup.first
    closes = markets.time[first:] + markets.interval
    span = RunSpan(int(markets.time[first]), closes, first, setup.periods)
    benchmark, assets = setup.find_benchmark(), read_assets(markets, setup.account)
    is_resumed = setup.resume is not None
    kept = setup._replace(resume=None, is_compiled=outcome.is_compiled)
    options = read_options(setup, outcome)
    if options is None:
        warn_of_no_option([*setup.policies.values(), setup.overlay])
    rows = list_cut_rows(markets.names, outcome.cuts)
    result = Result(
        policies=setup.policies,
        overlay=setup.overlay,
        venues=setup.venues,
        account=setup.account,
        manifest=write_manifest(
            setup,
            span,
            calendar=calendar,
            plain_because=outcome.plain_because,
            compared_with="" if benchmark is None else benchmark.text,
        ),
        names=markets.names,
        span=span,
        spans=np.clip(markets.spans - first, 0, None),
        interval=markets.interval,
        is_session=markets.sessions,
        tally=outcome.tally,
        state=outcome.state,
        memory=outcome.memory,
        started=setup.started,
        first_peak=find_peak(setup, assets["asset_open"][:, first]),
        record=outcome.record,
        entries=outcome.entries,
        quotes=Quotes(*(x if len(x) == 1 else x[first:] for x in map(setup.quote, QUOTES))),
        asset_marks=np.ascontiguousarray(assets["asset_mark_close"][:, first:].T),
        ends_sample=setup.inputs.clock.ends_sample[first:],
        before=find_before(setup),
        benchmark=None
        if benchmark is None
        else begin_moves(benchmark.moves, first, is_resumed=is_resumed),
        markets=markets,
        setup=kept,
        target_cut_rows=rows,
        no_fill=explain(kept, outcome, closes, rows),
        traded=outcome.traded,
        options=options,
    )
    if result.has_one_position or not np.any(outcome.entries[:, 1] == CAUSED):
        return result
    return dataclasses.replace(result, entries=share_causes(result))


def explain(
    setup: Setup, outcome: Outcome, closes: IntArray, rows: Sequence[Mapping[str, Any]]
) -> str:
    level, no_fill = outcome.of_positions("target"), ""
    setup.warn(outcome)
    has_fill = outcome.tally.money.traded > 0.0 or (outcome.entries[:, 1] == FILL).any()
    if not (has_fill or outcome.of_positions("quantity").any()):
        no_fill = explain_no_fill(setup, outcome, rows)
    infinite = np.isinf(level)
    is_boundless: BoolArray = np.asarray(infinite.any(axis=0))
    highest = np.where(infinite.any(axis=1), np.inf, 0.0) if infinite.any() else np.zeros(1)
    chosen = [
        name
        for name, boundless in zip(setup.markets.names, is_boundless, strict=True)
        if boundless or not is_boundless.any()
    ]
    kinds = ", ".join(dict.fromkeys(type(setup.policies[name]).__name__ for name in chosen))
    whose = f"{kinds} of {', '.join(chosen)}" if is_boundless.any() else kinds
    is_cash = not find_columns(setup) and not level.any()
    warn_of_outcome(whose, "" if is_cash else no_fill, highest, closes)
    return no_fill


def find_peak(setup: Setup, prices: FloatArray) -> float:
    account, resume = setup.account, setup.resume
    if resume is not None:
        return max(resume.first_peak, float(resume.of_account("unit").max()))
    backing = 0.0
    for each, price in zip(account.collateral, prices, strict=True):
        backing += each.amount * price
    return account.capital + account.reserve + backing


def find_before(setup: Setup) -> Before:
    resume, markets, n = setup.resume, setup.markets, len(setup.markets)
    if resume is None:
        trails = np.array([start_trail(markets, i, setup.first) for i in range(n)])
        state = start_account_state(setup.inputs, setup.account, setup.first, has_overlay=False)
        backing = compute_collateral_value(setup.inputs.terms.rules.collateral, state.held)
        stands = np.append(np.zeros(n + 2), setup.account.capital + backing)
        return Before(np.full(n, np.nan), np.zeros(n), np.zeros(n), stands, trails)
    return Before(
        mark=resume.marks[-1],
        signal=np.array(resume.state.signal, dtype=np.float64),
        unrealized=resume.last_unrealized,
        stands=np.zeros(n + 3)
        if resume.has_one_position
        else find_stands(resume, resume.record.n_bars),
        trails=resume.volatilities[1],
    )


def start_trail(markets: Markets, i: int, first: int) -> FloatArray:
    market = markets[markets.names[i]]
    seen = max(min(first, int(markets.spans[i, 1])) - int(markets.spans[i, 0]), 0)
    return forecast_volatility(
        NOTHING_SEEN,
        market.time[:seen],
        market.close[:seen],
        market.interval,
        is_session=market.sessions,
    )[1]
