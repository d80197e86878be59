"""The record of a run: settings, arrays by bar and final state, with the tables made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest.base.units import DAY, FloatArray, IntArray, utc_index
from backtest.engine.bar_loop import RECORDED
from backtest.engine.capital_use import CapitalUse, compute_loan_columns, compute_use
from backtest.engine.loop_inputs import as_of
from backtest.engine.result_tables import bars_table, events_table, value_of
from backtest.engine.target_cuts_table import measure_cuts
from backtest.features.liquidation_forecast import (
    DEGREES,
    HORIZON,
    VolatilityState,
    count_years,
    forecast_liquidation,
    forecast_volatility,
)
from backtest.measures.path_measures import AccountPath, Samples
from backtest.measures.performance import sampled_returns
from backtest.measures.run_measures import measure_run
from backtest.measures.run_span import RunSpan

if TYPE_CHECKING:
    from backtest.account import Account, State
    from backtest.engine.loop_inputs import Inputs
    from backtest.market import Market
    from backtest.measures.tally import Tally
    from backtest.policy import Policy
    from backtest.venue import Venue


@dataclass(frozen=True, eq=False, repr=False)
class RunRecord:
    """The record of a run. Tables are made on first access.

    Files and texts of a result are made from this record; ``Result`` adds the analyses.
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
    ends_sample: FloatArray
    record: FloatArray
    entries: FloatArray | pd.DataFrame
    market: Market | None = None
    inputs: Inputs | None = None
    stored_cuts: list[dict[str, Any]] | None = None
    no_fill: str = ""
    first_unrealized: float = 0.0

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
        measured = measure_run(self.tally, self.span, unit, equity, self.account_path)
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
        """The margin multiplier of each bar."""
        return np.broadcast_to(self.multiplier, self.close.shape)

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
            self._x,
            self.time,
            self.first_unrealized,
        )

    @property
    def last_unrealized(self) -> float:
        """The unrealized profit at the last close."""
        return float(self._use.unrealized_pnl[-1])

    @cached_property
    def account_path(self) -> AccountPath:
        """What the measures of the path read."""
        book, use = self._book, self._use
        moves, market = sample_moves(self)
        costs = sum(book[name] for name in RECORDED[8:14])
        leverage = np.zeros(len(moves))
        held = (book["position"] != 0.0) & (book["equity"] > 0.0)
        value = np.abs(value_of(self.venue, self.mark))
        leverage[held] = (book["position"] * value)[held] / book["equity"][held]
        return AccountPath(
            samples=Samples(self._sampled, sample_risk_free(self), market),
            unit=book["unit"],
            first_peak=self.first_peak,
            equity=book["equity"],
            gains=book["price_pnl"] + book["bad_debt"] - costs,
            initial=use.initial_margin,
            available=use.available,
            used=use.margin_used,
            leverage=leverage,
            moves=moves,
        )

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
        self, bars: pd.DataFrame, horizon: str, degrees_of_freedom: float = DEGREES
    ) -> FloatArray:
        where = "Result.calibration, horizon"
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
        return events_table(self.venue, self.time, self.entries, self.span.first)

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
    rate = as_of(result.venue.cash_rate, result.time, "Venue.cash_rate")
    time, year = result.time, result.venue.day_count * DAY
    lengths = np.diff(time, prepend=time[:1]) if result.is_session else result.interval
    total = np.cumsum(np.broadcast_to(rate * (lengths / year), time.shape))
    return np.diff(total[result.ends_sample != 0.0], prepend=0.0)


def sample_moves(result: RunRecord) -> tuple[FloatArray, FloatArray]:
    """Return the simple returns of the market at 1x, by bar and by sampling period.

    They are those of the value of one contract at mark closes, in the settlement currency. A market
    without a close before its first bar begins at the first close: the first move is NaN.
    """
    value = value_of(result.venue, result.mark)
    before = value_of(result.venue, np.array([result.first_mark]))
    start = np.where(np.isnan(before), value[:1], before)
    moves = np.diff(value, prepend=before) / np.abs(np.concatenate((before, value[:-1])))
    ends = np.concatenate((start, value[result.ends_sample != 0.0]))
    return moves, np.diff(ends) / np.abs(ends[:-1])
