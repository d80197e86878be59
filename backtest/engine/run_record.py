"""The record of a run: settings, arrays by bar and final state, with the tables made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest.base.checked_calls import checked
from backtest.base.units import DAY, FloatArray, IntArray, parse_duration, utc_index
from backtest.engine.bar_loop import RECORDED
from backtest.engine.capital_use import (
    CapitalUse,
    TableSpan,
    compute_loan_columns,
    compute_use,
    list_tables,
    read_path,
)
from backtest.engine.feed_arrays import as_of
from backtest.engine.result_tables import bars_table, events_table, value_of
from backtest.engine.target_cuts_table import measure_cuts
from backtest.features.liquidation_forecast import (
    HORIZON,
    VolatilityState,
    count_years,
    degrees_for,
    forecast_liquidation,
    forecast_volatility,
)
from backtest.market import Markets
from backtest.measures.path_measures import AccountPath, PathSums, Samples, sum_path
from backtest.measures.performance import sample_moves, sampled_returns
from backtest.measures.run_measures import measure_run
from backtest.measures.run_span import RunSpan

if TYPE_CHECKING:
    from backtest.account import Account, State
    from backtest.engine.fee_days import TradedDays
    from backtest.engine.loop_inputs import Inputs
    from backtest.market import Market
    from backtest.measures.tally import Tally
    from backtest.policy import Policy
    from backtest.venue import Venue

PIECE = 32_768
"""Bars whose measures are summed at once; their arrays fit into the L2 cache."""


@dataclass(frozen=True, eq=False, repr=False)
class RunRecord:
    """The record of a run. Tables are made on first access.

    Files and texts of a result are made from this record; ``Result`` adds the analyses.
    ``benchmark`` has the returns by bar of the one that was given, None if it is the market.
    """

    policy: Policy | None
    venue: Venue
    account: Account
    manifest: Mapping[str, Any]
    span: RunSpan
    tally: Tally
    state: State
    memory: tuple[float, ...]
    started: int
    first_peak: float
    interval: int
    is_session: bool
    trail: VolatilityState
    first_mark: float
    first_signal: float
    last_mark: float
    close: FloatArray
    mark: FloatArray
    mark_low: FloatArray
    mark_high: FloatArray
    signal: FloatArray
    multiplier: FloatArray
    initial_multiplier: FloatArray
    ends_sample: FloatArray
    record: FloatArray
    entries: FloatArray | pd.DataFrame
    market: Market | None = None
    inputs: Inputs | None = None
    stored_cuts: list[dict[str, Any]] | None = None
    no_fill: str = ""
    traded: TradedDays | None = None
    first_unrealized: float = 0.0
    benchmark: FloatArray | None = None
    name: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The instruments; a market without a name is called ``market``."""
        return (self.name or str(self.manifest["data"]["instrument"]) or "market",)

    @property
    def policies(self) -> dict[str, Policy]:
        """The policy of each instrument; none in a result that was loaded."""
        return {} if self.policy is None else {self.names[0]: self.policy}

    @property
    def overlay(self) -> None:
        """The policy that scales all targets: none."""
        return

    @property
    def venues(self) -> dict[str, Venue]:
        """The venue of each instrument."""
        return {self.names[0]: self.venue}

    @property
    def markets(self) -> Markets | None:
        """The markets by name; None in a result that was loaded."""
        return None if self.market is None else Markets({self.names[0]: self.market})

    @property
    def spans(self) -> IntArray:
        """The first bar of each instrument and one past its last, of shape (n, 2)."""
        return np.array([[0, len(self.close)]])

    @property
    def marks(self) -> FloatArray:
        """Mark closes, of shape (n_bars, n)."""
        return self.mark[:, None]

    def of_account(self, name: str) -> FloatArray:
        """Return a field of the account at each close, of shape (n_bars,)."""
        return np.asarray(self.record[RECORDED.index(name)])

    def of_positions(self, name: str) -> FloatArray:
        """Return a field of the positions at each close, of shape (n_bars, n)."""
        return self.of_account("position" if name == "quantity" else name)[:, None]

    @property
    def last_time(self) -> int:
        """Open time of the last bar, in ns."""
        return int(self.time[-1])

    @property
    def time(self) -> IntArray:
        """Open times of the bars, int64 ns of shape (n_bars,)."""
        return self.span.closes - self.interval

    @cached_property
    def metrics(self) -> Mapping[str, float]:
        """The measures by name."""
        unit, equity = float(self.record[6, -1]), float(self.record[0, -1])
        measured = measure_run(self.tally, self.span, unit, equity, self.samples, self._sums)
        return MappingProxyType(measured)

    @cached_property
    def bars(self) -> pd.DataFrame:
        """One row per bar."""
        table = bars_table(
            self.venue, self.account, self.time, self.close, self.mark, self._x, self.record
        )
        table.insert(
            list(table.columns).index("liquidation_price") + 1,
            "liquidation_probability",
            self._forecast(table, HORIZON),
        )
        peak = np.maximum.accumulate(np.maximum(self.record[6], self.first_peak))
        more: dict[str, FloatArray] = self._use._asdict()
        if self.venue.interest_on == "loan":
            needed = table["maintenance"].to_numpy()
            more |= compute_loan_columns(self.venue, self.account, self._book, self.mark, needed)
        return table.assign(drawdown=1.0 - self.record[6] / peak, **more)

    @property
    def _x(self) -> FloatArray:
        """The multiplier of maintenance margin of each bar."""
        return np.broadcast_to(self.multiplier, self.close.shape)

    @property
    def _initial_x(self) -> FloatArray:
        """The multiplier of initial margin of each bar."""
        return np.broadcast_to(self.initial_multiplier, self.close.shape)

    @property
    def _book(self) -> dict[str, FloatArray]:
        """The record by name."""
        return dict(zip(RECORDED, self.record, strict=True))

    @cached_property
    def _use(self) -> CapitalUse:
        return compute_use(
            self.venue,
            self.account,
            self._book,
            self.mark,
            self._initial_x,
            self._tables,
            self.first_unrealized,
        )

    @property
    def last_unrealized(self) -> float:
        """The unrealized profit at the last close."""
        return float(self._use.unrealized_pnl[-1])

    @property
    def samples(self) -> Samples:
        """Sampled returns of the account, risk-free, and of the market at 1x."""
        market = (
            sample_market(self)
            if self.benchmark is None
            else sample_moves(self.benchmark, self.ends_sample)
        )
        return Samples(self._sampled, sample_risk_free(self), market)

    @checked
    def read_path(self, rows: slice) -> AccountPath:
        """Return the path of the account over some bars, with the returns of its market."""
        return read_path(
            self.venue, self.account, self.record, self._marks, self._initial_x, self._tables, rows
        )

    def compare_path(self, rows: slice) -> AccountPath:
        """Return the path of the account over some bars, with the returns of its benchmark."""
        path = self.read_path(rows)
        return path if self.benchmark is None else path._replace(moves=self.benchmark[rows])

    @cached_property
    def _tables(self) -> list[TableSpan]:
        return list_tables(self.venue, self.account, self.time)

    @cached_property
    def _marks(self) -> FloatArray:
        """Mark closes, beginning with the one before the first bar (NaN if there is none)."""
        return np.concatenate(([self.first_mark], self.mark))

    @property
    def _sums(self) -> PathSums:
        pieces = (
            self.compare_path(slice(first, first + PIECE))
            for first in range(0, len(self.mark), PIECE)
        )
        return sum_path(pieces, self.first_peak)

    @cached_property
    def _volatility(self) -> tuple[FloatArray, VolatilityState]:
        return forecast_volatility(
            self.trail, self.time, self.close, self.interval, is_session=self.is_session
        )

    @property
    def volatility_forecast(self) -> FloatArray:
        """The volatility of the market forecast at each close, NaN until it is known."""
        return self._volatility[0]

    @property
    def last_trail(self) -> VolatilityState:
        """The state of the volatility forecast after the last bar."""
        return self._volatility[1]

    def _forecast(
        self, bars: pd.DataFrame, horizon: str, degrees_of_freedom: float | None = None
    ) -> FloatArray:
        where = "Result.calibration, horizon"
        if degrees_of_freedom is None:
            degrees_of_freedom = degrees_for(parse_duration(horizon, where=where) / DAY)
        return forecast_liquidation(
            bars["position"].to_numpy(),
            bars["mark"].to_numpy(),
            bars["liquidation_price"].to_numpy(),
            self._volatility[0],
            count_years(horizon, self.interval, is_session=self.is_session, where=where),
            degrees_of_freedom,
        )

    @cached_property
    def events(self) -> pd.DataFrame:
        """One row per event."""
        if isinstance(self.entries, pd.DataFrame):
            return self.entries
        has_dividends = "dividends" in self.manifest["data"]
        return events_table(
            self.venue, self.time, self.entries, self.span.first, has_dividends=has_dividends
        )

    @cached_property
    def cut_rows(self) -> list[dict[str, Any]]:
        """The rows of :meth:`target_cuts`; empty if the result was saved without them."""
        if self.inputs is None or isinstance(self.entries, pd.DataFrame):
            return self.stored_cuts or []
        return measure_cuts(self.inputs, self.record, self.entries, self.span.first)

    @cached_property
    def _sampled(self) -> FloatArray:
        return sampled_returns(self.record[6], self.ends_sample, self.tally.first_unit)

    @cached_property
    def returns(self) -> pd.Series:
        """Simple returns per sampling period, indexed by the open of its last bar."""
        ends = self.time[self.ends_sample != 0.0]
        return pd.Series(self._sampled, index=utc_index(ends), name="return")


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
