"""Compute from the record of a run of several positions how far limits cut its targets."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from backtest.account import balances, compute_cap_factor, ledger, orders, position
from backtest.account.portfolio_records import AT_OPEN, EARLY, NUMBERS, RESTING
from backtest.base import BoolArray, FloatArray, IntArray, make_array_twins
from backtest.base.units import DAY
from backtest.engine.limit_orders import find_unfilled
from backtest.engine.position_tables import count_assets
from backtest.engine.result_tables import value_of
from backtest.engine.run_options import measure_gaps, read_options
from backtest.engine.target_cuts import average_row
from backtest.venue import contract_value, requirement

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backtest.engine.record import Outcome
    from backtest.market import Markets
    from backtest.venue import Venue

CAUSES = (
    "min_leverage", "max_leverage", "max_gross_leverage", "band", "unfilled", "min_notional", "lot",
    "participation", "wallet", "initial_margin",
)  # fmt: skip
LEAST = 1e-4
"""A limit binds if it moves a target by more than this share of it."""
FORCED = (*ledger.STOP_KINDS, ledger.LIQUIDATED)


class RunSetup(Protocol):
    @property
    def markets(self) -> Markets:
        """The instruments."""

    @property
    def venues(self) -> Mapping[str, Venue]:
        """Their venues."""

    @property
    def inputs(self) -> Any:
        """The arrays of the loop."""

    @property
    def first(self) -> int:
        """The first bar."""


class PortfolioDecisions(NamedTuple):
    """The decisions that reached a fill, arrays of shape (n_decisions,)."""

    asked: FloatArray
    held: FloatArray
    cuts: dict[str, FloatArray]
    instrument: IntArray
    bar: IntArray


class AtOpens(NamedTuple):
    """Account before and after the fills of each bar from the second, of shape (n_bars - 1, n)."""

    before: FloatArray
    traded: FloatArray
    unit: FloatArray
    equity: FloatArray
    is_hit: BoolArray
    is_unfilled: BoolArray


def measure_portfolio_cuts(setup: RunSetup, outcome: Outcome) -> list[dict[str, Any]]:
    found = find_portfolio_decisions(setup, outcome)
    day = setup.markets.time[found.bar] // DAY
    rows = list_rows("all", found, day, np.ones(len(found.bar), dtype=np.bool_))
    if len(setup.markets) == 1:
        return [{key: each for key, each in row.items() if key != "instrument"} for row in rows]
    for i, name in enumerate(setup.markets.names):
        rows += list_rows(name, found, day, found.instrument == i)
    return rows


def list_rows(
    name: str, found: PortfolioDecisions, day: IntArray, chosen: BoolArray
) -> list[dict[str, Any]]:
    parts = [("all", found.asked - found.held, chosen)]
    parts += [(cause, cut, chosen & (cut != 0.0)) for cause, cut in found.cuts.items()]
    n = int(chosen.sum())
    return [
        {"instrument": name}
        | average_row(cause, cut[rows], found.asked[rows], found.held[rows], day[rows], n)
        for cause, cut, rows in parts
        if cause == "all" or rows.any()
    ]


def find_portfolio_decisions(setup: RunSetup, outcome: Outcome) -> PortfolioDecisions:
    terms, feed, first = setup.inputs.terms, setup.inputs.feed, setup.first
    n = outcome.record.n_bars
    at = read_portfolio_opens(setup, outcome)
    signal = feed.signal[first : first + n - 1]
    level = outcome.of_positions("target")[:-1]
    overlay = outcome.of_account("overlay")[:-1, None]
    scale = np.abs(signal) * np.where(overlay > 0.0, overlay, 0.0)
    least = dict(zip(NUMBERS, terms.numbers, strict=True))["min_leverage"]
    limit = feed.limit[np.minimum(np.arange(first + 1, first + n), len(feed.limit) - 1)]
    with np.errstate(all="ignore"):
        asked, bounded, reach = clip_leverage(least, limit, 1.0, level, scale)
        side = np.where(signal != 0.0, np.sign(signal), np.where(at.before < 0.0, -1.0, 1.0))
        held = (at.before + at.traded) * side * at.unit / at.equity
        is_asked = ~np.isnan(level) & ~np.isnan(overlay)
        has_target = (is_asked | (signal == 0.0)) & ~at.is_hit
        factor = find_cap_factors(terms.max_gross_leverage, at, reach, has_target)
        scaled = np.where(factor < 1.0, reach * factor, reach)
        cuts = {"min_leverage": asked - bounded, "max_leverage": bounded - reach}
        rest = split_rest(setup, at, scaled, held)
        rest["max_gross_leverage"] += np.where(np.isfinite(reach), reach - scaled, 0.0)
        cuts |= rest
    rows = is_asked | ((signal == 0.0) & (at.before != 0.0))
    rows &= np.isfinite(asked) & np.isfinite(held) & (at.equity > 0.0)
    rows &= ~(at.is_hit & (at.traded == 0.0))
    bar, instrument = np.nonzero(rows)
    return PortfolioDecisions(
        asked=asked[rows],
        held=held[rows],
        cuts={each: cuts[each][rows] for each in CAUSES},
        instrument=instrument,
        bar=first + 1 + bar,
    )


def find_cap_factors(
    cap: float, at: AtOpens, reach: FloatArray, has_target: BoolArray
) -> FloatArray:
    held = np.nan_to_num(np.abs(at.before * at.unit) / at.equity)
    wanted = np.where(has_target, reach, 0.0).sum(axis=1)
    rest = np.where(has_target, 0.0, held).sum(axis=1)
    sums = zip(np.where(np.isfinite(wanted), wanted, 0.0).tolist(), rest.tolist(), strict=True)
    return np.array([compute_cap_factor(cap, *each) for each in sums]).reshape(-1, 1)


def split_rest(
    setup: RunSetup, at: AtOpens, reach: FloatArray, held: FloatArray
) -> dict[str, FloatArray]:
    terms, first = setup.inputs.terms, setup.first
    numbers = dict(zip(NUMBERS, terms.numbers, strict=True))
    volume = setup.inputs.feed.volume[first : first + len(reach)]
    left = np.where(np.isfinite(reach - held), reach - held, 0.0)
    is_still, money = at.traded == 0.0, np.abs(left) * at.equity
    lot, least = numbers["lot"], numbers["min_notional"]
    wanted = reach * at.equity / at.unit
    whole = bind_orders().truncate(SimpleNamespace(lot=lot), wanted)
    order = np.abs(whole * at.unit - held * at.equity)  # in whole lots, if nothing else binds
    is_least = (money < least) | ((order > 1e-6 * lot * at.unit) & (order < least))
    gross = np.nansum(np.abs((at.before + at.traded) * at.unit), axis=1, keepdims=True)
    slowest = numbers["participation"] * volume * (1.0 - LEAST) - lot
    has_infinite = np.isinf(reach).any(axis=1, keepdims=True)
    binds = {
        "max_gross_leverage": (gross >= terms.max_gross_leverage * at.equity * (1.0 - LEAST))
        & has_infinite,
        "unfilled": at.is_unfilled,
        "band": is_still & (reach != 0.0) & (np.abs(left) <= numbers["band"] * (1.0 + LEAST)),
        "min_notional": is_still & is_least,
        "lot": money <= lot * at.unit * (1.0 + LEAST),
        "participation": np.isfinite(slowest) & (np.abs(at.traded) >= slowest),
        "wallet": np.array([each.is_isolated is not None for each in terms.instruments]),
        "initial_margin": np.ones(1, dtype=np.bool_),
    }
    slack = LEAST + terms.offsets / (1.0 - terms.offsets)  # a limit price buys more than a close
    is_open = np.abs(left) > slack * np.maximum(np.abs(reach), np.abs(held))
    found = {}
    for cause, does_bind in binds.items():
        found[cause] = np.where(is_open & does_bind, left, 0.0)
        is_open = is_open & ~does_bind
    return found


def read_portfolio_opens(setup: RunSetup, outcome: Outcome) -> AtOpens:
    first, n = setup.first, outcome.record.n_bars
    feed, names, mode = setup.inputs.feed, setup.markets.names, setup.inputs.terms.fill
    before_fill, venues = slice(first, first + n - 1), [setup.venues[name] for name in names]
    at_decision = mode in (EARLY, RESTING)
    bars = before_fill if at_decision else slice(first + 1, first + n)
    fills = (feed.open if mode == AT_OPEN else feed.close)[bars]
    assets_fill = (feed.asset_open if mode == AT_OPEN else feed.asset_close)[:, bars]
    marks = feed.mark_close[before_fill]
    value = np.stack([value_of(each, fills[:, i]) for i, each in enumerate(venues)], axis=1)
    last = np.stack([value_of(each, marks[:, i]) for i, each in enumerate(venues)], axis=1)
    before = outcome.of_positions("quantity")[:-1]
    equity = outcome.of_account("equity")[:-1]
    if not at_decision:
        paid = pay_at_opens(setup, before, n)
        paid = paid if mode == AT_OPEN else outcome.of_account("funding")[1:]
        equity = equity + outcome.of_account("flows")[1:]
        equity = equity - outcome.of_account("interest")[1:] - paid
    if mode != RESTING:
        equity = equity + np.where(before != 0.0, before * (value - last), 0.0).sum(axis=1)
        moved = assets_fill - feed.asset_mark_close[:, before_fill]
        assets = count_assets(outcome.state.held.amounts, outcome.entries, len(names), first, n)
        equity = equity + (assets[:-1] * moved.T).sum(axis=1)
    if mode == AT_OPEN:
        equity = equity + measure_gaps(read_options(setup, outcome), n)[1:]
    forced = sum_by_instrument(outcome.entries, FORCED, first, before.shape[1], n, counts=True)
    is_cross = np.array([each.is_isolated is None for each in setup.inputs.terms.instruments])
    liquidated = sum_by_instrument(
        outcome.entries, (ledger.LIQUIDATED,), first, before.shape[1], n, counts=True
    )
    has_failed = (liquidated[1:] * is_cross).any(axis=1, keepdims=True) & is_cross
    return AtOpens(
        before=before,
        traded=sum_by_instrument(outcome.entries, (ledger.FILL,), first, before.shape[1], n)[1:],
        unit=np.abs(value),
        equity=equity[:, None],
        is_hit=((forced[1:] != 0.0) | has_failed) & (mode != EARLY),
        is_unfilled=find_unfilled(outcome.entries, first, before.shape[1], n)[1:],
    )


def pay_at_opens(setup: RunSetup, before: FloatArray, n_bars: int) -> FloatArray:
    """Return the funding paid at the open of each bar but the first, of shape (n_bars - 1,)."""
    feed, first = setup.inputs.feed, setup.first
    paid = np.zeros(n_bars)
    rows = np.flatnonzero((feed.funding_is_open == 1) & (feed.funding_bar > first))
    for i, name in enumerate(setup.markets.names):
        own = rows[feed.funding_instrument[rows] == i]
        bar = feed.funding_bar[own]
        price = feed.funding_price[own]
        known = np.where(np.isnan(price), feed.mark_open[bar, i], price)
        value = np.abs(value_of(setup.venues[name], known))
        amount = before[bar - first - 1, i] * value * feed.funding_rate[own]
        paid += np.bincount(bar - first, weights=amount, minlength=n_bars)
    return paid[1:]


def sum_by_instrument(
    entries: FloatArray,
    kinds: tuple[int, ...],
    first: int,
    n: int,
    n_bars: int,
    *,
    counts: bool = False,
) -> FloatArray:
    """Return the contracts of entries of some kinds, or their number, of shape (n_bars, n)."""
    chosen = entries[np.isin(entries[:, 1], kinds) & (entries[:, 8] >= 0.0) & (entries[:, 8] < n)]
    cell = (chosen[:, 0].astype(np.int64) - first) * n + chosen[:, 8].astype(np.int64)
    amounts = np.ones(len(chosen)) if counts else chosen[:, 3]
    total = np.bincount(cell, weights=amounts, minlength=n_bars * n).astype(np.float64)
    return total.reshape(n_bars, n)


@functools.cache
def bind_orders() -> Any:
    return make_array_twins(contract_value, requirement, position, balances, orders)


def clip_leverage(
    least: FloatArray | float, most: FloatArray, equity: FloatArray | float,
    leverage: FloatArray, scale: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray]:  # fmt: skip
    asked, over, within = (
        bind_orders().compute_target(
            SimpleNamespace(min_leverage=low, has_limits=True), SimpleNamespace(limit=high),
            equity, leverage, scale,
        )
        for low, high in ((-np.inf, np.inf), (least, np.inf), (least, most))
    )  # fmt: skip
    return asked, over, within
