"""The record of a run: settings, arrays by bar and final state, with the tables made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest.base.units import FloatArray, IntArray, utc_index
from backtest.engine.result_tables import bars_table, events_table
from backtest.engine.target_cuts_table import measure_cuts
from backtest.features.liquidation_forecast import (
    DEGREES,
    HORIZON,
    VolatilityState,
    count_years,
    forecast_liquidation,
    forecast_volatility,
)
from backtest.measures.performance import sampled_returns
from backtest.measures.run_measures import RunSpan, measure_run

if TYPE_CHECKING:
    from backtest.account import Account, State
    from backtest.engine.fee_days import TradedDays
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
    traded: TradedDays | None = None

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
        measured = measure_run(self.tally, self.span, unit, equity, self._sampled)
        return MappingProxyType(measured)

    @cached_property
    def bars(self) -> pd.DataFrame:
        """One row per bar."""
        x = np.broadcast_to(self.multiplier, self.close.shape)
        table = bars_table(
            self.venue, self.account, self.time, self.close, self.mark, x, self.record
        )
        table.insert(
            list(table.columns).index("liquidation_price") + 1,
            "liquidation_probability",
            self._forecast(table, HORIZON),
        )
        peak = np.maximum.accumulate(np.maximum(self.record[6], self.first_peak))
        return table.assign(drawdown=1.0 - self.record[6] / peak)

    @cached_property
    def _volatility(self) -> tuple[FloatArray, VolatilityState]:
        return forecast_volatility(
            self.trail, self.time, self.close, self.interval, is_session=self.is_session
        )

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
