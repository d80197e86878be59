"""The record of a run: settings, arrays by bar and final state, with the tables made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from backtest.account import State
from backtest.base.checked_calls import checked
from backtest.base.units import DAY, TOLERANCE, FloatArray, IntArray, utc_index
from backtest.engine.benchmark import find_benchmark, sample_benchmark
from backtest.engine.capital_use import (
    CapitalUse,
    TableSpan,
    compute_loan_columns,
    compute_use,
    find_available,
    list_tables,
    read_path,
)
from backtest.engine.feed_arrays import as_of
from backtest.engine.position_tables import (
    compute_notionals,
    count_assets,
    mean_of,
    measure_profits,
    positions_table,
)
from backtest.engine.result_tables import (
    bars_table,
    events_table,
    portfolio_bars,
    price_of,
    value_of,
)
from backtest.engine.run_data import RunData, forecast_touches
from backtest.engine.target_cuts_table import measure_cuts
from backtest.features.liquidation_forecast import (
    HORIZON,
)
from backtest.measures.margin_use import divide_by_equity, margin_used
from backtest.measures.path_measures import AccountPath, PathSums, Samples, sum_path
from backtest.measures.performance import sampled_returns
from backtest.measures.portfolio_risk import (
    average_covariances,
    diversification_ratio,
    effective_bets,
)
from backtest.measures.run_measures import measure_run

PIECE = 32_768
"""Bars whose measures are summed at once; their arrays fit into the L2 cache."""
HALF_LIFE = 30 * DAY
"""The half-life of the covariances behind risk shares, in ns."""


class RunRecord(RunData):
    """Measures and tables of a run, made on first access; files and texts are made of them."""

    # ------------------------------------------------------------------- measures

    @cached_property
    def metrics(self) -> Mapping[str, float]:
        """The measures by name."""
        unit, equity = self.of_account("unit"), self.of_account("equity")
        measured = measure_run(
            self.tally, self.span, float(unit[-1]), float(equity[-1]), self.samples, self._sums
        )
        if self.has_one_position:
            return MappingProxyType(measured)
        extra = self._measure_portfolio()
        # of the account's terms: the tally adds those of the collateral to price and slippage
        measured["price_pnl"] -= extra["collateral_pnl"]
        measured["slippage"] -= extra["conversion"]
        return MappingProxyType({**measured, **extra})

    def _measure_portfolio(self) -> dict[str, float]:
        ends = np.flatnonzero(self.ends_sample)  # an eigenvalue problem each: not at every bar
        weights, covariance = self._compute_weights(
            HALF_LIFE / self.interval, ends, collateral=False
        )
        return {
            "mean_net_leverage": float(pd.Series(self._path.leverage).mean()),
            "collateral_pnl": float(pd.Series(self.of_account("collateral_pnl")).sum()),
            "conversion": float(pd.Series(self.of_account("conversion")).sum()),
            **mean_of(
                {
                    "diversification_ratio": diversification_ratio(weights, covariance),
                    "effective_bets": effective_bets(weights, covariance),
                }
            ),
        }

    @property
    def samples(self) -> Samples:
        """Sampled returns of the account, risk-free, and of the market at 1x."""
        if self.benchmark is None:
            market = sample_market(self)
        else:
            name = find_benchmark(self.manifest)
            market = sample_benchmark(self.benchmark, self.ends_sample, name, self.venues)
        return Samples(self._sampled, sample_risk_free(self), market)

    @checked
    def read_path(self, rows: slice) -> AccountPath:
        """Return the path of the account over some bars, with the returns of its market.

        Those of an account with several positions are the returns of its benchmark.
        """
        if not self.has_one_position:
            return AccountPath._make(each[rows] for each in self._path)
        first, stop, _ = rows.indices(len(self.mark))
        book = {name: values[rows] for name, values in self._book.items()}
        marks = self._marks[first : stop + 1]
        x = self._initial_x[rows]
        return read_path(self.venue, self.account, book, marks, x, self._tables, first)

    def compare_path(self, rows: slice) -> AccountPath:
        """Return the path of the account over some bars, with the returns of its benchmark."""
        path = self.read_path(rows)
        return path if self.benchmark is None else path._replace(moves=self.benchmark[rows])

    @property
    def market_returns(self) -> FloatArray:
        """Returns of the benchmark by bar, of shape (n_bars,)."""
        return self.compare_path(slice(None)).moves if self.benchmark is None else self.benchmark

    @property
    def _sums(self) -> PathSums:
        n = len(self.record)
        step = PIECE if self.has_one_position else n
        pieces = (self.compare_path(slice(t, t + step)) for t in range(0, n, step))
        return sum_path(pieces, self.first_peak)

    @cached_property
    def _path(self) -> AccountPath:
        """The path of an account with several positions."""
        equity, initial = self.of_account("equity"), self.of_account("initial")
        held, venues = self._held, self._venues
        profits = measure_profits(held, self.marks, venues)
        modes = [self.account.for_instrument(name).margin for name in self.names]
        return AccountPath(
            unit=self.of_account("unit"),
            equity=equity,
            initial=initial,
            available=find_available(self._book, held["margin"], profits, modes, venues),
            used=margin_used(initial, equity),
            leverage=divide_by_equity(self._notionals.sum(axis=1), equity),
            moves=np.zeros(len(equity)) if self.benchmark is None else self.benchmark,
        )

    @cached_property
    def _sampled(self) -> FloatArray:
        return sampled_returns(self.of_account("unit"), self.ends_sample, self.tally.first_unit)

    @cached_property
    def returns(self) -> pd.Series:
        """Simple returns per sampling period, indexed by the open of its last bar."""
        ends = self.time[self.ends_sample != 0.0]
        return pd.Series(self._sampled, index=utc_index(ends), name="return")

    def _compute_weights(
        self, half_life: float, rows: IntArray | slice, *, collateral: bool
    ) -> tuple[FloatArray, FloatArray]:
        """Return the weights and the covariances of the positions at the closes of some bars."""
        marks, notionals = self.marks, self._notionals
        if collateral:
            marks = np.concatenate((marks, self.asset_marks), axis=1)
            notionals = np.concatenate((notionals, self._amounts * self.asset_marks), axis=1)
        equity = self.of_account("equity")[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            weights = np.where(equity[rows] > 0.0, notionals[rows] / equity[rows], 0.0)
            logs = np.log(marks)
        returns = np.diff(logs, axis=0, prepend=logs[:1])
        return weights, average_covariances(returns, max(half_life, 1.0), rows)

    @property
    def _amounts(self) -> FloatArray:
        """Amounts of collateral at each close, of shape (n_bars, C)."""
        if isinstance(self.state, State) or isinstance(self.entries, pd.DataFrame):
            return np.empty((len(self.time), 0))
        final, n = self.state.held.amounts, len(self.names)
        return count_assets(final, self.entries, n, self.span.first, len(self.time))

    @cached_property
    def _notionals(self) -> FloatArray:
        return compute_notionals(self._held, self.marks, self._venues)

    # ------------------------------------------------------------------- tables

    @cached_property
    def bars(self) -> pd.DataFrame:
        """One row per bar; of one position with the columns of the position."""
        if not self.has_one_position:
            return self._bars_of_several()
        table = bars_table(
            self.venue, self.account, self.time, self.close, self.mark, self._x, self._book
        )
        price = table["liquidation_price"].to_numpy()
        table.insert(
            list(table.columns).index("liquidation_price") + 1,
            "liquidation_probability",
            forecast_touches(self, HORIZON, None, price[:, None])[:, 0],
        )
        unit = self.of_account("unit")
        peak = np.maximum.accumulate(np.maximum(unit, self.first_peak))
        more: dict[str, FloatArray] = self._use._asdict()
        if self.venue.interest_on == "loan":
            needed = table["maintenance"].to_numpy()
            more |= compute_loan_columns(self.venue, self.account, self._book, self.mark, needed)
        return table.assign(drawdown=1.0 - unit / peak, **more)

    def _bars_of_several(self) -> pd.DataFrame:
        path, book = self._path, self._book
        is_resumed = self.manifest.get("resumed_from") is not None and not self.account.collateral
        start = self.account.capital + self.account.reserve if is_resumed else self.first_peak
        table = portfolio_bars(self.time, book, self._notionals, self.first_peak, start)
        profits = measure_profits(self._held, self.marks, self._venues).sum(axis=1)
        change = np.diff(profits, prepend=float(np.sum(self.before.unrealized)))
        realized = book["price_pnl"] - book["slippage"] - book["impact"] - change
        size = np.abs(self._notionals).sum(axis=1) + np.abs(book["price_pnl"])
        return table.assign(
            available=path.available,
            margin_used=path.used,
            realized_pnl=np.where(np.abs(realized) <= TOLERANCE * size, 0.0, realized),
            unrealized_pnl=profits,
        )

    @cached_property
    def positions(self) -> pd.DataFrame:
        """One row per bar and instrument, see ``position_tables.positions_table``."""
        return positions_table(
            self.time,
            self.names,
            self._venues,
            self.spans,
            self.of_account("equity"),
            self._held,
            self.marks,
            self.liquidation_prices,
            self._shares,
        )

    @property
    def liquidation_prices(self) -> FloatArray:
        """Marks at which the positions fail, the others frozen, of shape (n_bars, n)."""
        if self.positions_record is None:
            return self.bars["liquidation_price"].to_numpy()[:, None]
        failure = self.of_positions("failure")
        prices = [price_of(venue, failure[:, i]) for i, venue in enumerate(self._venues)]
        return np.stack(prices, axis=1)

    @property
    def _shares(self) -> FloatArray:
        """Parts of the requirement of margin, of shape (n_bars, n)."""
        if self.positions_record is None:
            return self.bars["maintenance"].to_numpy()[:, None]
        return self.of_positions("share")

    @cached_property
    def events(self) -> pd.DataFrame:
        """One row per event."""
        if isinstance(self.entries, pd.DataFrame):
            return self.entries
        data = self.manifest["data"]
        described = data.get("instruments", dict.fromkeys(self.names, data))
        paying = [name for name in self.names if "dividends" in described[name]]
        assets = [each.name for each in self.account.collateral]
        return events_table(
            self.names, assets, self._venues, self.time, self.entries, self.span.first, paying
        )

    @cached_property
    def cut_rows(self) -> Sequence[Mapping[str, Any]]:
        """The rows of :meth:`target_cuts`; empty if the result was saved without them."""
        if self.measure_cuts is not None:
            return self.measure_cuts()
        if self.inputs is None or isinstance(self.entries, pd.DataFrame):
            return []
        return measure_cuts(self.inputs, self.record.T, self.entries, self.span.first)

    # ------------------------------------------------------------------- of one position

    @property
    def _x(self) -> FloatArray:
        """The multiplier of maintenance margin of each bar."""
        return np.broadcast_to(self._column("multiplier"), self.close.shape)

    @property
    def _initial_x(self) -> FloatArray:
        """The multiplier of initial margin of each bar."""
        return np.broadcast_to(self._column("initial_multiplier"), self.close.shape)

    @cached_property
    def _use(self) -> CapitalUse:
        return compute_use(
            self.venue,
            self.account,
            self._book,
            self.mark,
            self._initial_x,
            self._tables,
            float(self.before.unrealized[0]),
        )

    @property
    def last_unrealized(self) -> FloatArray:
        """The unrealized profit of each position at the last close, of shape (n,)."""
        if self.has_one_position:
            return self._use.unrealized_pnl[-1:]
        last: FloatArray = measure_profits(self._held, self.marks, self._venues)[-1]
        return last

    @cached_property
    def _tables(self) -> list[TableSpan]:
        return list_tables(self.venue, self.account, self.time)

    @cached_property
    def _marks(self) -> FloatArray:
        """Mark closes, beginning with the one before the first bar (NaN if there is none)."""
        return np.concatenate((self.before.mark, self.mark))


def sample_risk_free(result: RunRecord) -> FloatArray:
    """Return the simple risk-free rate over each sampling period, of shape (n_samples,)."""
    venue, time = result.venues[result.names[0]], result.time
    rate, year = as_of(venue.cash_rate, time, "Venue.cash_rate"), venue.day_count * DAY
    lengths = np.diff(time, prepend=time[:1]) if result.is_session else result.interval
    total = np.cumsum(np.broadcast_to(rate * (lengths / year), time.shape))
    return np.diff(total[result.ends_sample != 0.0], prepend=0.0)


def sample_market(result: RunRecord) -> FloatArray:
    """Return the simple returns of the market at 1x per sampling period, of shape (n_samples,).

    They are those of the value of one contract at mark closes, in the settlement currency. A market
    without a close before its first bar begins at the first close.
    """
    first = result.mark[0] if np.isnan(result.first_mark) else result.first_mark
    marks = np.concatenate(([first], result.mark[result.ends_sample != 0.0]))
    value = value_of(result.venue, marks)
    return np.diff(value) / np.abs(value[:-1])
