"""What a run computes of its record: the path, the measures, and the account that only holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from backtest import core
from backtest.account.events import Event
from backtest.account.money import POSITION_TERMS, SIGNS
from backtest.core import as_of
from backtest.core.code_names import pd
from backtest.core.units import DAY
from backtest.indicators import walk_covariances
from backtest.policies import Promise
from backtest.results import performance, run_options, tables
from backtest.results.attribution import find_periods
from backtest.results.bar_table import tabulate_account, tabulate_position
from backtest.results.benchmark import find_benchmark, name_benchmark
from backtest.results.measure_table import Measures, Samples, measure_run
from backtest.results.option_profit import EXPLAINED
from backtest.results.performance import max_drawdown
from backtest.results.promises import JUDGED, judge_promises
from backtest.results.run_data import RunData, RunOptions, find_causes, label_owners
from backtest.results.tables import DUST

SHORT = 330.0
"""Days of a run under which its yearly figures are said to be extrapolated."""


FEW = 90.0
"""Days under which growth per year is not shown to people: 5 % in a week is over 1,100 % a year."""
EXTRAPOLATED = ("cagr", "calmar")
"""The measures that extrapolate growth to a year."""
OF_RUINED = ("sharpe", "sortino", "sharpe_error", "probabilistic_sharpe", "calmar")
"""Measures that a ruined account does not show: most of their returns are zeros after the ruin."""


def find_currency(result: RunData) -> str:
    """Return the settlement currency that venues name; empty where none does, or they differ.

    A spot leg whose venue names none settles as the others: an account has one currency.
    """
    currencies = set[str]()
    for venue in result.venues.values():
        if venue.contract.settles:
            currencies.add(venue.contract.settles)
    if len(currencies) != 1:
        return ""
    return currencies.pop()


def count_days_between(start: Any, end: Any) -> float:
    """Return the days between two times, as texts or in ns."""
    if isinstance(start, str):
        start = core.to_nanoseconds(start)
    if isinstance(end, str):
        end = core.to_nanoseconds(end)
    return float(end - start) / DAY


def shows_growth(days: float) -> bool:
    """Return whether growth per year may be shown to people; data and tables always have it."""
    return not 0.0 < days < FEW


def describe_short(start: Any, end: Any, of: str = "") -> str:
    """Return the sentence that yearly figures of few days are extrapolated, or nothing."""
    days = count_days_between(start, end)
    if not 0.0 < days < SHORT:
        return ""
    sentences = [f"Yearly figures{of} are extrapolated from {days:,.4g} days."]
    if not shows_growth(days):
        sentences.append(f"CAGR and Calmar{of} are not shown under {FEW:g} days.")
    return " ".join(sentences)


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


class EventRows(NamedTuple):
    """Rows of the table of events: the rows of their entries in the log, kinds and amounts."""

    rows: core.IntArray
    kind: Any
    amount: core.FloatArray


class RunRecord(RunData):
    """Measures and tables of a run, made on first access; files and texts are made of them."""

    @cached_property
    def metrics(self) -> Mapping[str, float]:
        """The measures by name; an unknown name raises KeyError with the nearest one."""
        final_equity = float(self.of_account("equity")[-1])
        unit = self.of_account("unit")
        metrics = measure_run(
            self.tally,
            self.span,
            unit,
            final_equity,
            self.samples,
        )
        if self.has_one_position and self.manifest.get("overlay") is None:
            return Measures(metrics)

        metrics["mean_net_leverage"] = float(pd.Series(self.net_leverage).mean())
        for name in ("collateral_pnl", "conversion"):
            metrics[name] = float(np.add.accumulate(self.of_account(name))[-1])
        if self.options is not None:
            metrics |= run_options.measure_options(self, self.options)
        metrics["diversification_ratio"] = self._measure_diversification()

        # Of the account's terms: the tally adds those of the collateral to price and slippage.
        metrics["price_pnl"] -= metrics["collateral_pnl"]
        metrics["slippage"] -= metrics["conversion"]
        return Measures(metrics)

    def _measure_diversification(self) -> float:
        """Return the mean diversification ratio at the ends of samples; NaN without a position."""
        ends = np.flatnonzero(self.ends_sample)
        exposures = self._find_exposures(collateral=False)
        spread = self._measure_spread(HALF_LIFE / self.interval, ends, exposures)
        if not np.isfinite(spread.ratio).any():
            return math.nan
        return float(np.nanmean(spread.ratio))

    @property
    def diversity(self) -> Mapping[str, float]:
        """The measures of how several positions spread the risk; none of one position."""
        if self.has_one_position:
            return {}
        names = ("mean_net_leverage", "diversification_ratio")
        return {name: self.metrics[name] for name in names}

    @property
    def samples(self) -> Samples:
        """Sampled returns of the account, risk-free, and of the unlevered market."""
        if self.benchmark is None:
            market = self._sample_market()
        else:
            market = self._sample_benchmark(self.benchmark)
        return Samples(self._sampled, sample_risk_free(self), market)

    def _sample_market(self) -> core.FloatArray:
        """Return the sampled returns of one contract at mark closes."""
        # Without a close before the run, from its first close on.
        before = self.before.mark[:1]
        first = np.where(np.isnan(before), self.mark[:1], before)
        ends = self.mark[self.ends_sample != 0.0]
        marks = np.concatenate((first, ends))
        value = tables.value_of(self.venue.contract, marks)
        return np.asarray(np.diff(value) / np.abs(value[:-1]))

    def _sample_benchmark(self, moves: core.FloatArray) -> core.FloatArray:
        """Return the sampled returns of the benchmark, whose returns by bar are given.

        The value of an inverse contract is negative, so its returns compound with that sign.
        """
        venue = self.venues.get(find_benchmark(self.manifest))
        is_inverse = venue is not None and venue.contract.kind == "inverse"
        side = -1.0 if is_inverse else 1.0
        growth: Any = np.cumprod(1.0 + side * moves)
        return side * performance.sampled_returns(growth, self.ends_sample, 1.0)

    @cached_property
    def _sampled(self) -> core.FloatArray:
        return performance.sampled_returns(
            self.of_account("unit"),
            self.ends_sample,
            self.tally.first_unit,
        )

    @cached_property
    def returns(self) -> pd.Series:
        """Simple returns per sampling period, indexed by the open of its last bar."""
        ends = self.time[self.ends_sample != 0.0]
        return pd.Series(self._sampled, index=core.utc_index(ends), name="return")

    def _find_exposures(self, *, collateral: bool) -> Exposures:
        """Return what the account holds by instrument, with ``collateral`` by its assets too."""
        marks = self.marks
        notionals = self.notionals
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

    def _measure_spread(
        self,
        half_life: float,
        rows: core.IntArray,
        held: Exposures,
    ) -> Spread:
        """Return how the positions spread the risk at some bars, in blocks of bounded memory.

        ``half_life`` of the covariances is in bars, and ``rows`` are the bars, which rise.
        """
        weights = held.weights[rows]
        ratio = np.empty(len(rows))
        shares = np.empty(weights.shape)

        for block in walk_covariances(held.returns, max(half_life, 1.0), rows):
            # The places in ``rows`` of the bars of the block.
            span = slice(block.first, block.first + len(block.values))
            weights_of_block = weights[span]
            ratio[span] = performance.diversification_ratio(weights_of_block, block.values)
            shares[span] = performance.risk_shares(weights_of_block, block.values)
        return Spread(ratio, shares)

    @cached_property
    def bars(self) -> pd.DataFrame:
        """One row per bar of the account; of one instrument with the columns of its position."""
        options = {}
        if self.options is not None:
            greeks = run_options.sum_greeks(self, self.options)
            for name in ("options_value", "options_leverage", "net_delta"):
                options[name] = greeks[name]

        columns = tabulate_account(self, options)
        if self.has_one_instrument:
            columns |= tabulate_position(self)

        # The table is the user's own, who may write into it; the record stays as it is.
        own = {name: np.array(values) for name, values in columns.items()}
        return pd.DataFrame(own, index=core.utc_index(self.time), copy=False)

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
        # An instrument has a row in each bar of its span, an option where it is held.
        names = np.array(self.names, dtype=object)
        bars = np.arange(len(self.time))[:, None]
        is_row = (bars >= self.spans[:, 0]) & (bars < self.spans[:, 1])
        columns = self._list_instrument_columns()
        if self.options is not None:
            record = self.options.record
            names = np.append(names, self.options.names)
            is_option_row = (record.quantity != 0.0) | (record.price_pnl != 0.0)
            is_row = np.hstack((is_row, is_option_row))
            columns = self._join_options(columns, self.options)

        # Categories are all instruments, and the options that have a row.
        rows, places = np.nonzero(is_row)
        with_rows = names[is_row.any(axis=0)]
        shown = dict.fromkeys((*self.names, *with_rows))
        table: dict[str, Any] = {
            "time": core.utc_index(self.time[rows]),
            "instrument": pd.Categorical(names[places], dtype=tables.make_categories(*shown)),
        }
        for name, values in columns.items():
            table[name] = values[rows, places]
        return pd.DataFrame(table)

    def _list_instrument_columns(self) -> dict[str, core.FloatArray]:
        """Return the columns of instruments in the table of positions, of shape (n_bars, n)."""
        held = self.record.held
        is_held = held["quantity"] != 0.0
        has_price = is_held | (self.options is not None)  # options fail with what is not held
        equity = self.of_account("equity")[:, None]
        return {
            "quantity": held["quantity"],
            "entry": np.where(is_held, self._find_prices(held["entry"]), np.nan),
            "mark": self.marks,
            "notional": self.notionals,
            "leverage": performance.divide(self.notionals, equity),
            "profit": self.profits,
            **{name: held[name] for name in tables.SHOWN},
            "liquidation_price": np.where(has_price, self.liquidation_prices, np.nan),
            "requirement_share": np.where(self.are_isolated, 0.0, self.closes.own),
            "option_value_share": self.closes.withheld,
            "target": held["target"],
        }

    def _join_options(
        self,
        columns: Mapping[str, core.FloatArray],
        options: RunOptions,
    ) -> dict[str, core.FloatArray]:
        """Return columns of instruments and options side by side; NaN where one has none."""
        of_instruments = {**columns, "delta": self.notionals}
        of_options = run_options.list_columns(self, options)
        no_instruments = np.full(self.notionals.shape, np.nan)
        no_options = np.full(options.record.quantity.shape, np.nan)

        joined = {}
        for name in {**of_instruments, **of_options}:
            left = of_instruments.get(name, no_instruments)
            right = of_options.get(name, no_options)
            joined[name] = np.hstack((left, right))
        return joined

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
            names = ("options_value", *run_options.GREEKS, *run_options.OF_EQUITY)
            no_rows: dict[str, list[float]] = {name: [] for name in names}
            return pd.DataFrame(no_rows, index=core.utc_index(self.time[:0]))
        greeks = run_options.sum_greeks(self, self.options)
        return pd.DataFrame(greeks, index=core.utc_index(self.time))

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

        parts = {
            **self.options.parts,
            "price_pnl": self.options.record.price_pnl,
        }
        if by == "option":
            by_option = {name: profit.sum(axis=0) for name, profit in parts.items()}
            options = pd.Index([*self.options.names], name="option")
            table = pd.DataFrame(by_option, options)
            table.loc["total"] = table.sum()
            return table

        by_bar = {name: profit.sum(axis=1) for name, profit in parts.items()}
        if by == "bar":
            return pd.DataFrame(by_bar, core.utc_index(self.time))

        periods = find_periods(self.time, by)
        table = pd.DataFrame(by_bar, periods)
        return table.groupby(level=0).sum()

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
        kinds_of_entries = [Event(kind).kind.name for kind in entries["kind"].tolist()]
        names = np.array(kinds_of_entries, dtype=object)
        parts = [EventRows(np.arange(len(entries)), names, entries["amount"])]

        # A fill has a row for each of its costs beside its own.
        for name, kinds in tables.COSTS.items():
            column = name
            if name == "liquidation_loss":  # logged as the fee of the liquidation
                column = "fee"
            paid = entries[column]
            has_row = np.isin(entries["kind"], kinds) & (paid != 0.0)
            rows = np.flatnonzero(has_row)
            kind_of_cost = np.full(len(rows), name, dtype=object)
            parts.append(EventRows(rows, kind_of_cost, paid[rows]))

        # In the order of the log, an entry before its costs.
        rows = np.concatenate([part.rows for part in parts])
        order = np.argsort(rows, kind="stable")
        rows = rows[order]
        kind: Any = np.concatenate([part.kind for part in parts])[order]
        amount = np.concatenate([part.amount for part in parts])[order]

        labels = label_owners(self)
        owners = labels[entries["owner"][rows]]
        bars = entries["bar"][rows] - self.span.first
        return pd.DataFrame(
            {
                "time": core.utc_index(self.time[bars]),
                "kind": pd.Categorical(kind, dtype=tables.make_categories(*tables.NAMES)),
                "instrument": pd.Categorical(
                    owners, dtype=tables.make_categories(*dict.fromkeys(labels))
                ),
                "price": tables.find_prices(entries, self.list_venues())[rows],
                "quantity": entries["quantity"][rows],
                "amount": amount,
            }
        )

    @property
    def transfers(self) -> pd.Series:
        """Money that came in (positive) and went out, by the open of the bar: flows and top-ups."""
        moved = self.of_account("flows")
        rows = np.flatnonzero(moved)
        opens = core.utc_index(self.time[rows])
        return pd.Series(moved[rows], index=opens, name="amount")

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
    def risk(
        self,
        half_life: float | None = None,
        *,
        collateral: bool = False,
    ) -> pd.DataFrame:
        """Return the risk of the portfolio at each close.

        ``half_life`` is that of the covariances of mark returns, in bars, at least 1; default: 30
        days. With ``collateral`` it counts as positions too. By bar: ``gross_leverage``,
        ``net_leverage``, ``diversification_ratio``, and the share of each instrument in the
        variance, by its name. NaN without a position.
        """
        bars = half_life
        if bars is None:
            bars = max(HALF_LIFE / self.interval, 1.0)
        core.Range(1, math.inf).check("half_life", bars)
        names = list(self.names)
        if collateral:
            names += [asset.name for asset in self.account.collateral]

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
        equity = self.of_account("equity")[:, None]
        return self._by_name(performance.divide(self.notionals, equity))

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
        margins = self._find_margins()
        inverse_equity = performance.divide(1.0, self.of_account("equity"))
        shares_of_equity = margins * inverse_equity[:, None]
        columns = {
            "mean_margin": margins.mean(axis=0),
            "peak_margin": margins.max(axis=0),
            "margin_use": shares_of_equity.mean(axis=0),
            "profit": self._find_profits(),
        }

        index = pd.Index([*self.names, "account", "total"], name="instrument")
        table = pd.DataFrame(columns, index)
        rate = table["profit"] / table["mean_margin"] / self.span.years
        table["return_on_margin"] = rate.where(table["mean_margin"] > 0.0)
        is_held = self.record.held["quantity"] != 0.0
        table["time_in_position"] = [*is_held.mean(axis=0), np.nan, np.nan]

        # How risk is spread, with equal weights in the directions held, and as held.
        if len(self.names) > 1:
            exposures = self._find_exposures(collateral=False)
            equal = Exposures(np.sign(exposures.weights), exposures.returns)
            table["risk_before"] = self._average_shares(equal)
            table["risk_after"] = self._average_shares(exposures)
        return table

    def _find_margins(self) -> core.FloatArray:
        """Return the initial margin at closes, (n_bars, n + 2): by instrument, of the rest, of all.

        The rest is what no instrument posted, as options and collateral need it.
        """
        posted = self.closes.posted
        total = self.closes.initial
        rest = total - posted.sum(axis=1)
        rest[np.abs(rest) <= DUST * total] = 0.0  # rounding
        return np.column_stack([posted, rest, total])

    def _find_profits(self) -> core.FloatArray:
        """Return the profits after all costs, (n + 2,): by instrument, of the rest, of all.

        What was deposited is no profit.
        """
        total = 0.0
        for name in SIGNS:
            if name != "flows":
                total += SIGNS[name] * self.of_account(name).sum()

        held = self.record.held
        profits = sum(SIGNS[name] * held[name].sum(axis=0) for name in POSITION_TERMS)
        profit_of_rest = total - np.sum(profits)
        return np.append(profits, [profit_of_rest, total])

    def _average_shares(self, exposures: Exposures) -> list[float]:
        """Return a column of :meth:`capital`: each instrument's mean share in the variance.

        Then NaN for the account, and the sum.
        """
        half_life = max(HALF_LIFE / self.interval, 1.0)
        spread = self._measure_spread(half_life, np.arange(len(self.time)), exposures)
        shares = pd.DataFrame(spread.shares).mean()
        return [*shares, np.nan, shares.sum()]

    @property
    def quantities(self) -> pd.DataFrame:
        """Signed contracts of each instrument at each close, by name."""
        return self._by_name(self.of_positions("quantity"))

    def _by_name(self, values: core.FloatArray) -> pd.DataFrame:
        return pd.DataFrame(
            values,
            index=core.utc_index(self.time),
            columns=list(self.names),
        )


def sample_risk_free(result: RunRecord) -> core.FloatArray:
    """Return the simple risk-free rate over each sampling period, of shape (n_samples,)."""
    rates = accumulate_risk_free(result)
    return np.diff(rates[result.ends_sample != 0.0], prepend=0.0)


def accumulate_risk_free(result: RunRecord) -> core.FloatArray:
    """Return the sum of the risk-free rates of the bars so far, of shape (n_bars,)."""
    venue = result.venues[result.names[0]]
    time = result.time
    rate = as_of(venue.cash_rate, time, "Venue.cash_rate")
    year = venue.day_count * DAY

    # Over a session, nights and holidays count too.
    lengths: Any = result.interval
    if result.is_session:
        lengths = np.diff(time, prepend=time[:1])
    rates = rate * (lengths / year)
    return np.cumsum(np.broadcast_to(rates, time.shape))


def find_start(result: RunRecord) -> float:
    """Return the equity before the first bar."""
    account = result.record.account
    gains = sum(sign * getattr(account, name)[0] for name, sign in SIGNS.items())
    return float(account.equity[0] - gains)


REGULAR = 10
"""Decisions, and closes without one, from which a stop of decisions is no habit of the policy."""


def find_first_decision(result: RunRecord) -> int | None:
    """Return the row of the first close at which a policy decided, None if none ever did."""
    is_decided = ~np.isnan(result.of_positions("target")).all(axis=1)
    if not is_decided.any():
        return None
    return int(np.argmax(is_decided))


def find_last_decision(result: RunRecord) -> int | None:
    """Return the row of the last decision, None unless the decisions broke off before the end.

    They did where at least :data:`REGULAR` were made, and the closes after the last one are more
    than twice those of the longest pause between two.
    """
    is_decided = ~np.isnan(result.of_positions("target")).all(axis=1)
    rows = np.flatnonzero(is_decided)
    if len(rows) < REGULAR:
        return None

    n_after = is_decided.size - 1 - int(rows[-1])
    longest = int(np.diff(rows).max())
    if n_after <= max(2 * longest, REGULAR):
        return None
    return int(rows[-1])


def count_boundless(result: RunRecord) -> int:
    """Return at how many closes a target leverage was infinite."""
    is_boundless = np.isinf(result.of_positions("target"))
    return int(is_boundless.any(axis=1).sum())


class Held(NamedTuple):
    """The measures of a market that is only held, and what it is."""

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
    market = follow_market(result)
    returns = performance.sampled_returns(market.unit, result.ends_sample, 1.0)
    return Held(
        name=market.name,
        text=market.text,
        total_return=float(market.unit[-1]) - 1.0,
        **measure_spread(returns, sample_risk_free(result), result.span.periods),
        max_drawdown=max_drawdown(market.unit),
    )


def measure_spread(
    returns: core.FloatArray,
    risk_free: core.FloatArray | float,
    periods: float,
) -> dict[str, float]:
    """Return the volatility and the Sharpe ratio of sampled returns; NaN of fewer than two."""
    if len(returns) < 2:
        return {"volatility": math.nan, "sharpe": math.nan}
    excess = returns - risk_free
    deviation = float(np.std(excess, ddof=1))
    return {
        "volatility": float(np.std(returns, ddof=1)) * math.sqrt(periods),
        "sharpe": float(performance.annualize_ratios(np.mean(excess), deviation, periods)),
    }


class MarketLine(NamedTuple):
    """What an account is drawn beside: a market that is held, or a benchmark.

    ``name`` is ``"1x"`` for a market, bought and held, else ``"benchmark"``. ``text`` says in words
    what it is. ``unit`` (n_bars,) is its value at the closes, 1 at the first one.
    """

    name: str
    text: str
    unit: core.FloatArray


def follow_market(result: RunRecord) -> MarketLine:
    """Return what a run is drawn beside: its market, held from the first close on, or a benchmark.

    A run of several positions has a benchmark, and so has one of a single instrument for which one
    was given, unless it is one position alone.
    """
    has_benchmark = not result.has_one_instrument or result.benchmark is not None
    if has_benchmark and not result.has_one_position:
        unit = np.cumprod(1.0 + result.market_returns)
        text = f"the {name_benchmark(result.manifest)}, unlevered; price only, no costs"
        return MarketLine("benchmark", text, unit / unit[0])

    terms = "price only, no costs"
    if result.venue.contract.kind == "inverse":
        terms = f"in the quote currency, {terms}"
    text = f"buy and hold: the mark price from the first close on; {terms}"
    return MarketLine("1x", text, result.mark / result.mark[0])
