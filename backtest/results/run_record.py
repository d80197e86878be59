"""What a run computes of its record: the path, the measures, and the account that only holds."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from backtest import core
from backtest.account.events import Event
from backtest.account.money import POSITION_TERMS, SIGNS, TERMS
from backtest.core import as_of
from backtest.core.code_names import is_frame, is_series, pd
from backtest.core.units import DAY, TOLERANCE
from backtest.indicators import find_day, forecast_liquidation, walk_covariances
from backtest.market import BY_BARS, Markets, read_dates, read_weights
from backtest.policies import Promise
from backtest.results import performance, run_options, tables
from backtest.results.attribution import find_periods
from backtest.results.measure_table import Measures, Samples, measure_run
from backtest.results.option_profit import EXPLAINED
from backtest.results.performance import max_drawdown
from backtest.results.promises import JUDGED, judge_promises
from backtest.results.run_data import RunData, find_causes, label_owners
from backtest.venue import Venue

BenchmarkLike: TypeAlias = "str | pd.DataFrame | Mapping[str, float] | pd.Series | None"


class Benchmark(NamedTuple):
    """What it is, and its simple returns by bar of the market, of shape (n_bars,)."""

    text: str
    moves: core.FloatArray


def read_benchmark(
    given: BenchmarkLike, markets: Markets, venues: Mapping[str, Venue], first: int
) -> Benchmark | None:
    if given is None or (isinstance(given, str) and markets.names == (given,)):
        return None
    if is_series(given):
        moves = read_prices(given, markets, first)
        return Benchmark(f"{given.name or 'series'} {hash_values(moves[first:])}", moves)
    if isinstance(given, str):
        if given not in markets:
            raise core.ParameterError(
                f"benchmark must be an instrument of the run, one of {', '.join(markets.names)}, "
                f"or a Series of prices, got {given!r}{core.did_you_mean(given, markets.names)}"
            )
        return Benchmark(given, follow_instrument(markets, venues, given))
    if not (isinstance(given, Mapping) or is_frame(given)):
        raise core.ParameterError(
            "benchmark must be the name of an instrument, weights by time and instrument or a "
            f"Series of prices by the opens of the bars, got {type(given).__name__}"
        )
    weights = read_weights(given, markets, argument="benchmark")
    text = f"index of given weights {hash_values(weights)}"
    return Benchmark(text, measure_moves(markets, venues, weights))


def index_traded(
    markets: Markets, venues: Mapping[str, Venue], signal: core.FloatArray, first: int
) -> Benchmark:
    weights = spread_weights(signal, markets)
    names = [name for name, row in zip(markets.names, weights[:, first:], strict=True) if row.any()]
    if len(names) == 1:
        return Benchmark(names[0], follow_instrument(markets, venues, names[0]))
    text = f"index of what is traded: {', '.join(names)}"
    return Benchmark(text, measure_moves(markets, venues, weights))


def spread_weights(signal: core.FloatArray, markets: Markets) -> core.FloatArray:
    """Return the weights of the index of what is traded, of shape (n_instruments, n_bars)."""
    size = np.abs(signal)
    total = size.sum(axis=0)
    if not total.any():
        return read_weights(None, markets)
    has_any = np.flatnonzero(total)
    last = np.searchsorted(has_any, np.arange(len(total)), side="right") - 1
    kept = np.where(markets.tradable(), size[:, has_any[np.maximum(last, 0)]], 0.0)
    sums = kept.sum(axis=0)
    return np.asarray(kept / np.where(sums > 0.0, sums, 1.0))


def measure_moves(
    markets: Markets, venues: Mapping[str, Venue], weights: core.FloatArray
) -> core.FloatArray:
    """Return the simple returns of the index's mark from close to close, of shape (n_bars,).

    Bar t holds the weights of bar t - 1, rebalanced at its open without costs; the first bar has no
    return. Gains are those of the value of a contract in the settlement currency.
    """
    inverse = [venues[name].contract.kind == "inverse" for name in markets.names]
    panel = markets.panel()
    held = np.concatenate((weights[:, :1], weights[:, :-1]), axis=1)
    following = np.roll(panel.open, -1, axis=1)
    following[:, -1] = np.nan
    following = np.where(np.isnan(following), panel.close, following)
    growth = 1.0 + add_gains(held, following, panel.open, inverse)
    opens = np.concatenate(([1.0], np.cumprod(growth[:-1])))
    close = opens * (1.0 + add_gains(held, panel.mark_close, panel.open, inverse))
    before = np.concatenate((close[:1], close[:-1]))
    return np.asarray((close - before) / before)


def follow_instrument(markets: Markets, venues: Mapping[str, Venue], name: str) -> core.FloatArray:
    marks = markets.panel().mark_close[markets.names.index(name)]
    value = tables.value_of(venues[name].contract, marks)
    before = np.concatenate((value[:1], value[:-1]))
    return np.nan_to_num((value - before) / np.abs(before))


def add_gains(
    held: core.FloatArray, price: core.FloatArray, begun: core.FloatArray, inverse: Sequence[bool]
) -> core.FloatArray:
    is_coin = np.array(inverse)[:, None]
    gains = np.where(is_coin, 1.0 - begun / price, price / begun - 1.0)
    return np.asarray(np.where(held != 0.0, held * gains, 0.0).sum(axis=0))


def read_prices(prices: pd.Series, markets: Markets, first: int) -> core.FloatArray:
    stamps = read_dates(prices.index, "benchmark", BY_BARS)
    values = pd.Series(core.to_numbers(prices, "benchmark"), index=stamps).reindex(markets.time)
    own = values.to_numpy()[first:]
    bad = np.flatnonzero(~((own > 0.0) & np.isfinite(own)))
    if len(bad):
        raise core.ParameterError(
            f"benchmark must have a positive price at each bar, {len(bad):,} of {len(own):,} have "
            f"none, the first at {core.format_time(int(markets.time[first + bad[0]]))} UTC; fill "
            "it: prices.reindex(markets.times, method='ffill')"
        )
    moves = values.to_numpy() / values.shift().to_numpy() - 1.0
    return np.where(np.isnan(moves), 0.0, moves)


def describe_benchmark(manifest: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
    beta, alpha = metrics["beta"], metrics["alpha"]
    return (
        f"{name_benchmark(manifest)}; beta {core.format_number(beta)} ± "
        f"{core.format_number(metrics['beta_error'])}, alpha {core.format_percent(alpha)} ± "
        f"{core.format_percent(metrics['alpha_error'])} per year (standard errors)"
    )


def name_benchmark(manifest: Mapping[str, Any]) -> str:
    return find_benchmark(manifest).partition(" sha256")[0]


def find_benchmark(manifest: Mapping[str, Any]) -> str:
    return str(manifest.get("benchmark", manifest["compared_with"]))


def hash_values(values: core.FloatArray) -> str:
    return f"sha256:{hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()}"


SHORT = 330.0
"""Days of a run under which its yearly figures are said to be extrapolated."""


FEW = 90.0
"""Days under which growth per year is not shown to people: 5 % in a week is over 1,100 % a year."""
EXTRAPOLATED = ("cagr", "calmar")
"""The measures that extrapolate growth to a year."""


def count_days_between(start: Any, end: Any) -> float:
    first, last = (core.to_nanoseconds(x) if isinstance(x, str) else x for x in (start, end))
    return float(last - first) / DAY


def shows_growth(days: float) -> bool:
    """Return whether growth per year may be shown to people; data and tables always have it."""
    return not 0.0 < days < FEW


def describe_short(start: Any, end: Any, of: str = "") -> str:
    """Return the sentence that yearly figures of few days are extrapolated, or nothing."""
    days = count_days_between(start, end)
    if not 0.0 < days < SHORT:
        return ""
    text = f"Yearly figures{of} are extrapolated from {days:,.1f} days."
    if not shows_growth(days):
        text += f" CAGR and Calmar{of} are not shown under {FEW:g} days."
    return text


HALF_LIFE = 30 * DAY
"""The half-life of the covariances behind risk shares, in ns."""


class Exposures(NamedTuple):
    """Notional over equity, and log returns of marks, both (n_bars, n_positions)."""

    weights: core.FloatArray
    returns: core.FloatArray


class Spread(NamedTuple):
    """The diversification ratio by bar, and each position's share in the variance."""

    ratio: core.FloatArray
    shares: core.FloatArray


class RunRecord(RunData):
    """Measures and tables of a run, made on first access; files and texts are made of them."""

    @cached_property
    def metrics(self) -> Mapping[str, float]:
        """The measures by name; an unknown name raises KeyError with the nearest one."""
        unit, equity = self.of_account("unit"), self.of_account("equity")
        measured = measure_run(self.tally, self.span, unit, float(equity[-1]), self.samples)
        if self.has_one_position and self.manifest.get("overlay") is None:
            return Measures(measured)
        ends, bars = np.flatnonzero(self.ends_sample), HALF_LIFE / self.interval
        spread = self._measure_spread(bars, ends, self._find_exposures(collateral=False)).ratio
        known = bool(np.any(np.isfinite(spread)))
        measured["mean_net_leverage"] = float(pd.Series(self.net_leverage).mean())
        for name in ("collateral_pnl", "conversion"):
            measured[name] = float(np.add.accumulate(self.of_account(name))[-1])
        if self.options is not None:
            measured |= run_options.measure_options(self, self.options)
        measured["diversification_ratio"] = float(np.nanmean(spread)) if known else math.nan
        # of the account's terms: the tally adds those of the collateral to price and slippage
        measured["price_pnl"] -= measured["collateral_pnl"]
        measured["slippage"] -= measured["conversion"]
        return Measures(measured)

    @property
    def diversity(self) -> Mapping[str, float]:
        """The measures of how several positions spread the risk; none of one position."""
        names = ("mean_net_leverage", "diversification_ratio")
        return {name: self.metrics[name] for name in names if not self.has_one_position}

    @property
    def samples(self) -> Samples:
        """Sampled returns of the account, risk-free, and of the unlevered market."""
        if self.benchmark is None:
            # the value of one contract at mark closes; without one before, from the first close on
            before = self.before.mark[:1]
            first = np.where(np.isnan(before), self.mark[:1], before)
            marks = np.concatenate((first, self.mark[self.ends_sample != 0.0]))
            value = tables.value_of(self.venue.contract, marks)
            market = np.diff(value) / np.abs(value[:-1])
        else:
            venue = self.venues.get(find_benchmark(self.manifest))
            side = -1.0 if venue is not None and venue.contract.kind == "inverse" else 1.0
            growth: Any = np.cumprod(1.0 + side * self.benchmark)
            market = side * performance.sampled_returns(growth, self.ends_sample, 1.0)
        return Samples(self._sampled, sample_risk_free(self), market)

    @cached_property
    def _sampled(self) -> core.FloatArray:
        return performance.sampled_returns(
            self.of_account("unit"), self.ends_sample, self.tally.first_unit
        )

    @cached_property
    def returns(self) -> pd.Series:
        """Simple returns per sampling period, indexed by the open of its last bar."""
        ends = self.time[self.ends_sample != 0.0]
        return pd.Series(self._sampled, index=core.utc_index(ends), name="return")

    def _find_exposures(self, *, collateral: bool) -> Exposures:
        """Return what the account holds by instrument, with ``collateral`` by its assets too."""
        marks, notionals = self.marks, self.notionals
        if collateral:
            marks = np.concatenate((marks, self.asset_marks), axis=1)
            amounts = tables.count_assets(
                self.state.held.amounts,
                self.entries,
                len(self.names),
                self.span.first,
                len(self.time),
            )
            notionals = np.concatenate((notionals, amounts * self.asset_marks), axis=1)

        weights = performance.divide(notionals, self.of_account("equity")[:, None])
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log(marks)
        returns = np.diff(logs, axis=0, prepend=logs[:1])
        return Exposures(weights, np.nan_to_num(returns, nan=0.0))

    def _measure_spread(self, half_life: float, rows: core.IntArray, held: Exposures) -> Spread:
        """Return how the positions spread the risk at some bars, in blocks of bounded memory."""
        weights = held.weights[rows]
        ratio = np.empty(len(rows))
        shares = np.empty(weights.shape)
        for block in walk_covariances(held.returns, max(half_life, 1.0), rows):
            span = slice(block.first, block.first + len(block.values))
            ratio[span] = performance.diversification_ratio(weights[span], block.values)
            shares[span] = performance.risk_shares(weights[span], block.values)
        return Spread(ratio, shares)

    @cached_property
    def bars(self) -> pd.DataFrame:
        """One row per bar of the account; of one instrument with the columns of its position."""
        found = {} if self.options is None else run_options.sum_greeks(self, self.options)
        names = ("options_value", "options_leverage", "net_delta") if found else ()
        account = tabulate_account(self, {name: found[name] for name in names})
        own = tabulate_position(self) if self.has_one_instrument else {}
        return pd.DataFrame(account | own, index=core.utc_index(self.time), copy=False)

    @cached_property
    def positions(self) -> pd.DataFrame:
        """One row per bar and instrument that has it, and per bar and option that is held.

        Columns: ``time``, ``instrument``, ``quantity`` in contracts, ``entry`` and ``mark`` as
        prices, signed ``notional`` and ``leverage``, ``profit`` (unrealized), ``price_pnl``,
        ``fees``, ``slippage``, ``impact``, ``funding``, ``liquidation_loss`` of the bar, ``margin``
        (isolated), ``liquidation_price`` (the others frozen), ``requirement_share`` (its part of
        the ``requirement`` of the bar, with those of its options; of an isolated position 0),
        ``option_value_share`` (the value of its options that is no backing), ``target``.

        Prices of an option are those of one contract in the settlement currency, its notional is
        its delta in money, the ``liquidation_price`` is that of its underlying, and it has no share
        and no target. Options have columns of their own, of instruments NaN but for ``delta``:
        ``value`` of the position, the Greeks in money (docs/options-runs.md), implied
        ``volatility``, ``days`` to expiry and ``surface_age`` in days.
        """
        held, names, options = self.record.held, np.array(self.names, dtype=object), self.options
        equity, bars = self.of_account("equity")[:, None], np.arange(len(self.time))[:, None]
        is_row = (bars >= self.spans[:, 0]) & (bars < self.spans[:, 1])
        is_held = held["quantity"] != 0.0
        is_shown = is_held | (options is not None)  # options fail with it where it is not held
        columns = {
            "quantity": held["quantity"],
            "entry": np.where(is_held, self._find_prices(held["entry"]), np.nan),
            "mark": self.marks,
            "notional": self.notionals,
            "leverage": performance.divide(self.notionals, equity),
            "profit": self.profits,
            **{each: held[each] for each in tables.SHOWN},
            "liquidation_price": np.where(is_shown, self.liquidation_prices, np.nan),
            "requirement_share": np.where(self.are_isolated, 0.0, self.closes.own),
            "option_value_share": self.closes.withheld,
            "target": held["target"],
        }
        if options is not None:
            of_options, own = run_options.list_columns(self, options), options.record
            names = np.append(names, options.names)
            is_row = np.hstack((is_row, (own.quantity != 0.0) | (own.price_pnl != 0.0)))
            blank = np.full(is_held.shape, np.nan), np.full(own.quantity.shape, np.nan)
            columns["delta"] = self.notionals
            columns = {
                name: np.hstack((columns.get(name, blank[0]), of_options.get(name, blank[1])))
                for name in {**columns, **of_options}
            }
        rows, who = np.nonzero(is_row)
        known = [*dict.fromkeys((*self.names, *names[is_row.any(axis=0)]))]
        found: dict[str, Any] = {"time": core.utc_index(self.time[rows])}
        found["instrument"] = pd.Categorical(names[who], known)
        return pd.DataFrame(found | {name: each[rows, who] for name, each in columns.items()})

    @cached_property
    def greeks(self) -> pd.DataFrame:
        """The Greeks of the options of the account at each close; no rows without options.

        Columns, in the settlement currency: ``options_value`` at marks; ``delta``, ``gamma``
        (change of delta per 1 %), ``vega`` (per point), ``theta`` (per day), ``vanna``, ``volga``
        and ``rho``, as :func:`backtest.options.greeks` with ``in_money=True``. As multiples of the
        equity: ``net_delta`` with the notionals of all instruments, ``options_leverage``, the sum
        over underlyings of the absolute delta of their options, and ``premium_decay``, what time
        alone takes in a day.
        """
        if self.options is None:
            nothing = ("options_value", *run_options.GREEKS, *run_options.OF_EQUITY)
            return pd.DataFrame({name: [] for name in nothing}, index=core.utc_index(self.time[:0]))
        found = run_options.sum_greeks(self, self.options)
        return pd.DataFrame(found, index=core.utc_index(self.time))

    @core.checked
    def explained(self, by: run_options.OptionSplit = "option") -> pd.DataFrame:
        """Return the price profit of the options, explained by their Greeks.

        ``by`` is ``"option"``: a row for each option that was held, and their ``total``; or
        ``"bar"``, ``"day"``, ``"week"``, ``"month"``, ``"quarter"`` or ``"year"``: of all by time.
        Columns: ``delta``, ``gamma``, ``vega``, ``theta``, ``vanna``, ``volga`` and ``rest``, which
        add up to ``price_pnl``. No rows of an account that held no options.

        Notes
        -----
        Of each option and bar, delta dF + gamma dF^2 / 2 + vega ds + theta dt + vanna dF ds +
        volga ds^2 / 2 + rest. Greeks are those at the start of the bar, F is the forward and s the
        contract's own implied volatility; of coin-settled options they are those of the value in
        coins. The start is the last close for what moved until the open, and the open after it.
        """
        if self.options is None:
            nothing: dict[str, Any] = {name: [] for name in (*EXPLAINED, "price_pnl")}
            return pd.DataFrame(nothing, dtype=np.float64)
        parts = {**self.options.parts, "price_pnl": self.options.record.price_pnl}
        if by == "option":
            names = pd.Index([*self.options.names], name="option")
            table = pd.DataFrame({name: each.sum(axis=0) for name, each in parts.items()}, names)
            table.loc["total"] = table.sum()
            return table
        index = core.utc_index(self.time) if by == "bar" else find_periods(self.time, by)
        table = pd.DataFrame({name: each.sum(axis=1) for name, each in parts.items()}, index)
        return table if by == "bar" else table.groupby(level=0).sum()

    @core.checked
    def hedging_error(self, by: run_options.HedgeSplit = "instrument") -> pd.DataFrame:
        """Return what options and their delta hedge earned, beside what their gamma predicts.

        ``by`` is ``"instrument"``: a row for each instrument that a policy ordered in contracts
        beside its options, as ``DeltaHedge`` does; or ``"bar"``: the money of all of them by bar.
        In the settlement currency: ``options`` and ``hedge``, their price profits, and their sum
        ``profit``; ``theory``, the sum of G S^2 (s^2 - s_h^2) dt / 2 over bars; ``error``, profit
        less theory. By instrument also ``deviation``, the standard deviation of the error (that of
        one bar times the root of the number of bars); ``expected_deviation``, that of hedges at
        each close under normal returns; ``volatility`` s of the mark closes;
        ``implied_volatility``, the mean of s_h weighted by gamma; ``costs`` of the hedge, which the
        profit does not contain; and the number of ``bars``.

        Notes
        -----
        G is the gamma at the start of a bar, s_h the contract's own implied volatility there, and s
        that of the instrument while options on it were held. Vega and the delay of the hedge
        by a bar are in the error. Boyle and Emanuel (1980); Bertsimas, Kogan and Lo (2000).
        """
        return run_options.tabulate_hedging(self, self.options, by)

    @cached_property
    def events(self) -> pd.DataFrame:
        """One row per event."""
        entries = self.entries[self.entries["kind"] != Event.CAUSED]
        kinds = entries["kind"]
        of_kinds = np.array([Event(each).kind.name for each in kinds.tolist()], dtype=object)
        parts = [(np.arange(len(entries)), of_kinds, entries["amount"])]
        for name, of in tables.COSTS.items():
            paid = entries["fee" if name == "liquidation_loss" else name]
            own = np.flatnonzero(np.isin(kinds, of) & (paid != 0.0))
            parts.append((own, np.full(len(own), name, dtype=object), paid[own]))
        rows = np.concatenate([own for own, _, _ in parts])
        order = np.argsort(rows, kind="stable")
        rows, amounts = rows[order], np.concatenate([paid for _, _, paid in parts])
        labels, owners = label_owners(self), entries["owner"][rows]
        names: Any = np.concatenate([name for _, name, _ in parts])[order]
        return pd.DataFrame(
            {
                "time": core.utc_index(self.time[entries["bar"][rows] - self.span.first]),
                "kind": pd.Categorical(names, categories=[*tables.NAMES]),
                "instrument": pd.Categorical(labels[owners], [*dict.fromkeys(labels)]),
                "price": tables.find_prices(entries, self.list_venues())[rows],
                "quantity": entries["quantity"][rows],
                "amount": amounts[order],
            }
        )

    @property
    def transfers(self) -> pd.Series:
        """Money that came in (positive) and went out, by the open of the bar: flows and top-ups."""
        moved = self.of_account("flows")
        rows = np.flatnonzero(moved)
        return pd.Series(moved[rows], index=core.utc_index(self.time[rows]), name="amount")

    def contagion(self) -> pd.DataFrame:
        """Return what brought down the cross pool: a row per cause of each liquidation.

        ``liquidation`` (its number), ``time``, ``cause`` (an instrument, ``collateral``, ``flows``
        or ``rules``), ``share`` of the fall of M - level R since the last high of the unit value
        (the shares of a liquidation add up to 1), ``quantity`` held, and ``profit``, what a
        position in profit had gained since its entry, else 0. Empty if the account has one
        position, which nothing else can bring down.
        """
        causes = find_causes(self)
        return pd.DataFrame({**causes, "time": core.utc_index(causes["time"])})

    @core.checked
    def risk(self, half_life: float | None = None, *, collateral: bool = False) -> pd.DataFrame:
        """Return the risk of the portfolio at each close.

        ``half_life`` is that of the covariances of mark returns, in bars, at least 1; default: 30
        days. With ``collateral`` it counts as positions too. By bar: ``gross_leverage``,
        ``net_leverage``, ``diversification_ratio``, and the share of each instrument in the
        variance, by its name. NaN without a position.
        """
        bars = max(HALF_LIFE / self.interval, 1.0) if half_life is None else half_life
        core.Range(1, math.inf).check("half_life", bars)
        names = list(self.names)
        if collateral:
            names += [each.name for each in self.account.collateral]
        held = self._find_exposures(collateral=collateral)
        spread = self._measure_spread(bars, np.arange(len(self.time)), held)
        table = {
            "gross_leverage": np.abs(held.weights).sum(axis=1),
            "net_leverage": held.weights.sum(axis=1),
            "diversification_ratio": spread.ratio,
            **{name: spread.shares[:, i] for i, name in enumerate(names)},
        }
        return pd.DataFrame(table, index=core.utc_index(self.time))

    @cached_property
    def promises(self) -> pd.DataFrame:
        """What the policy promises and what came, a row per promise; see :class:`bt.Promise`.

        Of several instruments what the overlay promises. Columns: those of the promise, ``value``,
        its 95 % interval from ``low`` to ``high`` and the ``n`` observations, ``verdict`` (kept,
        not kept, too early) and the ``n_needed`` to decide where it is too early. For
        liquidations the interval is the exact one of a count, where ``expected`` is its mean.
        """
        table = pd.DataFrame(judge_promises(self), columns=[*Promise._fields, *JUDGED])
        return table.set_index("name").rename_axis("promise")

    @property
    def margin_multipliers(self) -> pd.DataFrame:
        """The multiplier of the maintenance margin in force in each bar, by name.

        A column as ``venue.margin_multiplier`` gives the run without its margin rule.
        """
        return self._by_name(np.broadcast_to(self.quotes.multiplier, self.marks.shape))

    @property
    def exposures(self) -> pd.DataFrame:
        """Signed leverage of each instrument at each close, by name."""
        return self._by_name(performance.divide(self.notionals, self.of_account("equity")[:, None]))

    def capital(self) -> pd.DataFrame:
        """Return the capital that each instrument tied up, and what it earned on it.

        Indexed by ``instrument``, last ``account`` (interest, options, collateral) and ``total``.
        Columns: ``mean_margin`` and ``peak_margin``, the initial margin at closes in the settlement
        currency; ``margin_use``, the mean of margin over equity; ``profit`` after all costs;
        ``return_on_margin``, profit per year over mean margin; ``time_in_position``, the share of
        closes at which it was held; of several instruments ``risk_before`` and ``risk_after``, the
        mean share of the variance with equal weights in the directions held, and as held (those of
        :meth:`risk`). An isolated position ties up what it posted. Under a portfolio
        rule the initial margin is split as :meth:`positions` splits the requirement.

        Notes
        -----
        Means and profits add up to ``total``, whose ``margin_use`` and ``return_on_margin`` are the
        measures ``mean_margin_use`` and ``return_on_margin``.
        """
        record, equity = self.record, self.of_account("equity")
        whole, own = self.closes.initial, self.closes.posted
        margins = np.column_stack([own, whole - own.sum(axis=1), whole])
        gained = [name for name in SIGNS if name != "flows"]
        of_all = sum(SIGNS[name] * self.of_account(name).sum() for name in gained)
        profits = sum(SIGNS[name] * record.held[name].sum(axis=0) for name in POSITION_TERMS)
        is_held = (record.positions.quantity != 0.0).mean(axis=0)
        inverse = performance.divide(1.0, equity)
        columns = {
            "mean_margin": margins.mean(axis=0),
            "peak_margin": margins.max(axis=0),
            "margin_use": (margins * inverse[:, None]).mean(axis=0),
            "profit": np.append(profits, [of_all - np.sum(profits), of_all]),
        }
        index = pd.Index([*self.names, "account", "total"], name="instrument")
        table = pd.DataFrame(columns, index)
        rate = table["profit"] / table["mean_margin"] / self.span.years
        table["return_on_margin"] = rate.where(table["mean_margin"] > 0.0)
        table["time_in_position"] = [*is_held, np.nan, np.nan]
        if len(self.names) > 1:
            span = max(HALF_LIFE / self.interval, 1.0)
            held = self._find_exposures(collateral=False)
            equal = Exposures(np.sign(held.weights), held.returns)
            rows = np.arange(len(self.time))
            for name, exposures in (("risk_before", equal), ("risk_after", held)):
                spread = self._measure_spread(span, rows, exposures)
                shares = pd.DataFrame(spread.shares).mean()
                table[name] = [*shares, np.nan, shares.sum()]
        return table

    @property
    def quantities(self) -> pd.DataFrame:
        """Signed contracts of each instrument at each close, by name."""
        return self._by_name(self.of_positions("quantity"))

    def _by_name(self, values: core.FloatArray) -> pd.DataFrame:
        return pd.DataFrame(values, index=core.utc_index(self.time), columns=list(self.names))


def sample_risk_free(result: RunRecord) -> core.FloatArray:
    """Return the simple risk-free rate over each sampling period, of shape (n_samples,)."""
    return np.diff(accumulate_risk_free(result)[result.ends_sample != 0.0], prepend=0.0)


def accumulate_risk_free(result: RunRecord) -> core.FloatArray:
    """Return the sum of the risk-free rates of the bars so far, of shape (n_bars,)."""
    venue, time = result.venues[result.names[0]], result.time
    rate, year = as_of(venue.cash_rate, time, "Venue.cash_rate"), venue.day_count * DAY
    lengths = np.diff(time, prepend=time[:1]) if result.is_session else result.interval
    return np.cumsum(np.broadcast_to(rate * (lengths / year), time.shape))


def find_start(result: RunRecord) -> float:
    account = result.record.account
    gains = sum(sign * getattr(account, name)[0] for name, sign in SIGNS.items())
    return float(account.equity[0] - gains)


def find_first_decision(result: RunRecord) -> int | None:
    """Return the row of the first close at which a policy decided, None if none ever did."""
    is_decided = ~np.isnan(result.of_positions("target")).all(axis=1)
    return int(np.argmax(is_decided)) if is_decided.any() else None


def count_boundless(result: RunRecord) -> int:
    return int(np.isinf(result.of_positions("target")).any(axis=1).sum())


class Held(NamedTuple):
    name: str
    text: str
    total_return: float
    volatility: float
    sharpe: float
    max_drawdown: float


def measure_holding(result: RunRecord) -> Held:
    """Return the measures of the market itself, from the first close to the last.

    Of one instrument its mark price, of several the index that the measures compare with. Returns
    are sampled and annualized as the account's are, over the same risk-free rate.
    """
    name, text, unit = follow_market(result)
    returns = performance.sampled_returns(unit, result.ends_sample, 1.0)
    return Held(
        name=name,
        text=text,
        total_return=float(unit[-1]) - 1.0,
        **measure_spread(returns, sample_risk_free(result), result.span.periods),
        max_drawdown=max_drawdown(unit),
    )


def measure_spread(
    returns: core.FloatArray, risk_free: core.FloatArray | float, periods: float
) -> dict[str, float]:
    if len(returns) < 2:
        return {"volatility": math.nan, "sharpe": math.nan}
    excess = returns - risk_free
    deviation = float(np.std(excess, ddof=1))
    return {
        "volatility": float(np.std(returns, ddof=1)) * math.sqrt(periods),
        "sharpe": float(performance.annualize_ratios(np.mean(excess), deviation, periods)),
    }


def follow_market(result: RunRecord) -> tuple[str, str, core.FloatArray]:
    """Return name, description and unit value of the market or the benchmark by bar."""
    is_alone = result.has_one_instrument and result.benchmark is None
    if not (is_alone or result.has_one_position):
        unit = np.cumprod(1.0 + result.market_returns)
        text = f"the {name_benchmark(result.manifest)}, unlevered; price only, no costs"
        return "benchmark", text, unit / unit[0]
    is_inverse = result.venue.contract.kind == "inverse"
    priced = "in the quote currency, " if is_inverse else ""
    text = f"buy and hold: the mark price from the first close on; {priced}price only, no costs"
    return "1x", text, result.mark / result.mark[0]


def tabulate_account(
    run: RunData, options: Mapping[str, core.FloatArray]
) -> dict[str, core.FloatArray]:
    account, closes, equity = run.record.account, run.closes, run.record.account.equity
    needed, backing, initial = closes.requirement, closes.backing, closes.initial
    gross, profits = np.abs(run.notionals).sum(axis=1), run.unrealized
    ratio = performance.divide(needed, backing, math.inf)
    peak = np.maximum.accumulate(np.maximum(account.unit, run.first_peak))
    kept = np.array([1.0 - venue.profit_share() for venue in run.list_venues()])
    gains = np.where(run.are_isolated, 0.0, kept * np.maximum(run.profits, 0.0))
    counted = backing - gains.sum(axis=1)
    tied = initial - run.record.held["margin"][:, run.are_isolated].sum(axis=1)
    unrealized = profits.sum(axis=1)
    change = np.diff(unrealized, prepend=float(np.sum(run.before.unrealized)))
    realized = account.price_pnl - account.slippage - account.impact - change
    is_rounding = np.abs(realized) <= TOLERANCE * (gross + np.abs(account.price_pnl))
    is_broke = (initial > 0.0) & ~(equity > 0.0)
    return {
        "equity": equity,
        "gross_leverage": performance.divide(gross, equity),
        "net_leverage": run.net_leverage,
        "backing": backing,
        "requirement": needed,
        "margin_ratio": np.where(needed > 0.0, ratio, 0.0),
        "balance": closes.balance,
        "collateral": closes.collateral,
        "collateral_at_rate": closes.collateral_at_rate,
        **{name: getattr(account, name) for name in (*TERMS, "top_up", "cash", "reserve")},
        **options,
        "overlay": account.overlay,
        "unit": account.unit / run.first_unit,
        "drawdown": 1.0 - account.unit / peak,
        "initial_margin": initial,
        "available": np.maximum(counted - tied, 0.0),
        "margin_used": np.where(is_broke, np.inf, performance.divide(initial, equity)),
        "realized_pnl": np.where(is_rounding, 0.0, realized),
        "unrealized_pnl": unrealized,
    }


def tabulate_position(run: RunData) -> dict[str, core.FloatArray]:
    fields, venue, equity = run.record.of_one(), run.venue, run.record.account.equity
    quantity, cash = fields["quantity"], fields["cash"]
    value = tables.value_of(venue.contract, run.mark)
    is_held, is_isolated = quantity != 0.0, bool(run.are_isolated[0])
    needed = run.closes.own[:, 0] if is_isolated else run.closes.requirement
    with np.errstate(divide="ignore", invalid="ignore"):
        leverage = quantity * np.abs(value) / equity
        turns = np.where(is_held, np.abs(run.notionals[:, 0]) / run.closes.initial, 0.0)
    price = run.liquidation_prices[:, 0]
    day = find_day(run.interval, is_session=run.is_session)
    columns = {
        "close": run.close,
        "mark": run.mark,
        "position": quantity,
        "leverage": np.where(is_held, leverage, 0.0),
        "maintenance": needed,
        "liquidation_price": price,
        "liquidation_probability": forecast_liquidation(
            quantity, run.mark, price, run.volatilities[0][:, 0], day
        ),
        "entry": tables.price_of(venue.contract, fields["entry"]),
        "margin": fields["margin"],
        "target": fields["target"],
        "position_leverage": turns,
    }
    if is_isolated:
        backing = fields["margin"] + run.unrealized[:, 0]
        ratio = performance.divide(needed, backing, math.inf)
        columns["margin_ratio"] = np.where(is_held, ratio, 0.0)
        cash = fields["margin"] - quantity * fields["entry"]
    if venue.interest_on != "loan":
        return columns
    owned = np.where(is_held, quantity * value, 0.0)
    collateral = np.maximum(cash, 0.0) + np.maximum(owned, 0.0)
    debt = np.maximum(-cash, 0.0) + np.maximum(-owned, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        of_long, of_short = (collateral - needed) / debt, collateral / (debt + needed)
        ltv = np.where(debt > 0.0, debt / collateral, 0.0)
    health = np.where(debt > 0.0, np.where(owned < 0.0, of_short, of_long), np.inf)
    return {**columns, "health_factor": health, "ltv": ltv}
