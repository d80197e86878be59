"""``Result``, the return value of :func:`backtest.run`: tables, analyses, saving and loading."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, overload

import numpy as np
import pandas as pd

from backtest.base.checked_calls import checked
from backtest.base.errors import ParameterError
from backtest.base.ranges import Range, check_range
from backtest.base.reportable import Reportable
from backtest.base.units import DAY, YEAR_DAYS, parse_duration
from backtest.engine.bar_loop import RECORDED
from backtest.engine.limit_cost import LimitCost, measure_limit_cost
from backtest.engine.result_files import load_result, save_result
from backtest.engine.result_tables import (
    FORCED,
    check_not_resumed,
    filled_changes,
    forced_changes,
    is_inverse,
    value_of,
)
from backtest.engine.result_text import write_summary
from backtest.engine.run_by_state import tabulate_parts
from backtest.engine.run_record import RunRecord
from backtest.engine.vectorbt_exchange import Kind, convert
from backtest.features.liquidation_forecast import HORIZON, count_horizon, find_touches
from backtest.measures.attribution import (
    AccountHistory,
    Attribution,
    Period,
    attribute,
    attribute_by,
    read_account_history,
)
from backtest.measures.calibration import Calibration, calibrate, check_bins
from backtest.measures.leverage_cycle import LeverageProfile, profile_leverage
from backtest.measures.market_states import MarketState
from backtest.measures.realized_gains import Realization, realization


class Result(RunRecord, Reportable):
    """Result of a run. Tables are made on first access.

    Attributes
    ----------
    metrics : mapping of str to float
        The measures of a run by name: fractions (0.25 is 25 %), money in the settlement currency,
        times in days.
    bars : DataFrame
        One row per bar; see :func:`backtest.engine.result_tables.bars_table`.
    events : DataFrame
        The ledger; see :func:`backtest.engine.result_tables.events_table`.
    returns : Series
        Simple returns of the unit value per sampling period.
    manifest : mapping
        Data, venue, account, policy, settings and versions that produced this result.
    state, memory
        State of the account at the last close, to resume from.
    """

    _draw: ClassVar[Callable[[Any], Any]]
    _run: ClassVar[Callable[..., Any]]
    _count_ambiguous: ClassVar[Callable[[Any], int]]

    @cached_property
    def ambiguous(self) -> int:
        """The number of bars after which the account depends on the order of prices inside them.

        See :func:`backtest.bounds`, which also gives the bounds of every metric.
        """
        return self._count_ambiguous()

    @checked
    def calibration(
        self,
        horizon: str = HORIZON,
        bins: int | Sequence[float] = 10,
        degrees_of_freedom: float | None = None,
    ) -> Calibration:
        """Compare the forecasts of liquidation with the liquidations that happened.

        Parameters
        ----------
        horizon : str
            The horizon of the forecasts, in whole bars.
        bins : int, or a sequence of float
            The number of bins with equally many forecasts, or the ends of bins, rising from 0 to 1.
        degrees_of_freedom : float, optional
            Degrees of freedom, over 2, of Student's t in the forecasts; infinite: normal. By
            default those that fit the horizon: 4 for a day or less, 7.7 for 7 days, 12 for 30.

        Returns
        -------
        Calibration
            Its tables; as text, a summary.

        Raises
        ------
        ParameterError
            If an argument is not allowed.

        Notes
        -----
        Liquidations are rare, and positions often change before they happen. So an event is that
        the mark touched the liquidation price of the close within the horizon, whatever became of
        the position. Closes without a position that can be liquidated make no forecast, nor do
        those nearer to the end than the horizon. Actual liquidations are counted separately, in
        the period of the close before.
        """
        where = "Result.calibration"
        ends = check_bins(bins, where=f"{where}, bins")
        sigma, trail = self._volatility
        ahead = count_horizon(
            trail, horizon, self.interval, is_session=self.is_session, where=f"{where}, horizon"
        )
        price = self.bars["liquidation_price"].to_numpy()
        position = self.record[RECORDED.index("position")]
        touched, is_known = find_touches(position, price, self.mark_low, self.mark_high, ahead)
        dead = self.events.loc[self.events["kind"] == "liquidation", "time"]
        rows = np.searchsorted(self.time, pd.DatetimeIndex(dead).as_unit("ns").asi8) - 1
        return calibrate(
            self._forecast(self.bars, horizon, degrees_of_freedom),
            touched,
            sigma,
            np.bincount(np.maximum(rows, 0), minlength=len(price)),
            is_counted=is_known & ~np.isnan(sigma),
            horizon=horizon,
            bars=ahead,
            bins=ends,
        )

    def target_cuts(self) -> pd.DataFrame:
        """Return how often and how far each limit kept the account from its target leverage.

        Returns
        -------
        DataFrame
            A row ``all`` for all decisions that reached an open, then one for each binding limit,
            in the order in which they apply, indexed by ``cause``. Columns: ``decisions``;
            ``share`` of all decisions; ``mean_asked`` and ``mean_held`` over these decisions, in
            turns of the equity before the costs of the fill; ``mean_shortfall``, the amount that
            this limit took away (the shortfalls of a decision add up to asked less held);
            ``mean_distance``, the same without sign; ``days``, the UTC days of these decisions.

        Raises
        ------
        ParameterError
            If the result was saved by a version that did not store the table.

        Notes
        -----
        See docs/accounting.md, section 4, for the causes. A leverage of NaN is no decision.
        """
        if not self.cut_rows:
            raise ParameterError(
                "this result was saved without the cuts of its targets",
                where="Result.target_cuts",
                cure="run the experiment again",
            )
        return pd.DataFrame(self.cut_rows).set_index("cause")

    @checked
    def limit_cost(self, *, compile: bool = True) -> LimitCost:  # noqa: A002 - as in bt.run
        """Return on how many days ``max_leverage`` bound, and what it cost in growth.

        The account runs a second time, without its ``max_leverage``.

        Parameters
        ----------
        compile : bool
            False runs the policy in plain Python; the numbers are the same bits.

        Raises
        ------
        ParameterError
            If the account has no such limit, or the result was loaded from files or resumed.
        """
        return measure_limit_cost(self, self._run, is_compiled=compile)

    def realization(self) -> Realization:
        """Return how readily the account closed positions at a gain, and at a loss.

        Liquidations and stops close positions too. Source: Odean (1998); see
        :func:`backtest.measures.realization`.

        Raises
        ------
        ParameterError
            If the result goes on from an earlier one, which may have opened its position.
        """
        check_not_resumed(self.manifest, "Result.realization")
        trades = self.events[self.events["kind"].isin(("fill", *FORCED))]
        return realization(
            self.time,
            self.close,
            pd.DatetimeIndex(trades["time"]).as_unit("ns").asi8,
            trades["quantity"].to_numpy(),
            trades["price"].to_numpy(),
            is_inverse=is_inverse(self.venue),
        )

    @cached_property
    def _life(self) -> AccountHistory:
        n = len(self.close)
        ruin = n if self.tally.ruin < 0 else self.tally.ruin - self.span.first
        first = value_of(self.venue, np.array([self.first_mark]))
        late = None
        if self.account.fill == "next_close":
            late = filled_changes(self.entries, self.time, self.span.first)
        return read_account_history(
            dict(zip(RECORDED, self.record, strict=True)),
            value_of(self.venue, self.mark),
            self.signal,
            forced_changes(self.entries, self.time, self.span.first),
            first_value=float(first[0]),
            first_signal=self.first_signal,
            ruin=ruin,
            late=late,
        )

    @overload
    def attribution(self, by: None = None) -> Attribution: ...

    @overload
    def attribution(self, by: Period) -> pd.DataFrame: ...

    def attribution(self, by: Period | None = None) -> Attribution | pd.DataFrame:
        """Return where the log growth of the unit value came from; the terms add up exactly.

        Parameters
        ----------
        by : str, optional
            ``"day"``, ``"week"``, ``"month"``, ``"quarter"`` or ``"year"``: a table with a row per
            period instead of the sum over the run.

        Raises
        ------
        ParameterError
            If the period is another one.

        Notes
        -----
        See :func:`backtest.measures.attribution.split_growth` for the formula. A resumed run is
        split from where it went on.
        """
        if by is not None:
            return attribute_by(self._life, self.time, by)
        years = (int(self.span.closes[-1]) - self.span.start) / (YEAR_DAYS * DAY)
        return attribute(self._life, years)

    @checked
    def measures_by(self, by: MarketState) -> pd.DataFrame:
        """Return the measures of the run by the state of its market.

        Parameters
        ----------
        by : str
            ``"phase"``: bull and bear markets by the 20 % rule on the mark close. ``"volatility"``:
            calm, normal and stress, the thirds of the volatility forecast.

        Returns
        -------
        DataFrame
            A row per state that occurs, ``days``, and a column per measure. Measures that only a
            whole run has are left out (:data:`backtest.measures.part_measures.WHOLE_ONLY`).

        Raises
        ------
        ParameterError
            If ``by`` is another word.

        Notes
        -----
        Whole sampling periods belong to a state: by the phase at their last bar, or by the forecast
        at the close before them (the first period has none). The periods of a state count as if
        they followed one another. Phases are known in hindsight only; see
        :func:`backtest.measures.find_bulls`.
        """
        return tabulate_parts(self, by)

    @checked
    def leverage_profile(
        self, horizon: str = "1d", groups: int = 5, depth: float = 0.1, window: str = "30d"
    ) -> LeverageProfile:
        """Return how leverage was used: time at each level, what followed it, how it came back.

        Parameters
        ----------
        horizon : str
            The period after a decision over which return and volatility are looked at.
        groups : int
            Quantile groups of leverage.
        depth : float
            The least drawdown, as a fraction, after which releveraging is looked at.
        window : str
            The time before a peak whose median leverage is what it comes back to.

        Raises
        ------
        ParameterError
            If an argument is not allowed, or the run has fewer than two bars before ruin.
        """
        where = "Result.leverage_profile"
        whole = Range(2, 1000).check("groups", groups, where=f"{where}, groups", whole=True)
        least = check_range(
            "depth", depth, where=f"{where}, depth", low=0, high=1, open_low=True, open_high=True
        )
        ahead, back = (
            max(parse_duration(text, where=f"{where}, {name}") // self.interval, 1)
            for name, text in (("horizon", horizon), ("window", window))
        )
        life = self._life
        lived = np.flatnonzero(life.is_counted)
        rows = slice(0 if math.isfinite(self.first_mark) else 1, int(lived.max(initial=-1)) + 1)
        if rows.start >= rows.stop:
            raise ParameterError(
                f"a leverage profile needs an account that lives for two bars, was {len(lived)}",
                where=where,
                cure="use a longer run, or one that is not ruined at once",
            )
        return profile_leverage(
            np.abs(life.leverage[rows]),
            life.move[rows],
            self.record[6][rows],
            self.span.named[rows],
            first_peak=self.first_peak,
            horizon=ahead,
            groups=int(whole),
            depth=least,
            window=back,
        )

    def __repr__(self) -> str:
        metrics = self.metrics
        return (
            f"<Result {self.manifest['policy']['text']} on {self.manifest['data']['source']}: "
            f"equity {metrics['final_equity']:.2f}, sharpe {metrics['sharpe']:.2f}, "
            f"{metrics['liquidations']:.0f} liquidations>"
        )

    def summary(self) -> str:
        """Return a text summary of the run, for a terminal."""
        return write_summary(self)

    def plot(self) -> Any:
        """Return the account over time as a Plotly figure: equity, leverage, price, costs.

        Long runs are thinned; the extremes of every pixel are kept.
        """
        return self._draw()

    @checked
    def save(self, folder: str | Path = "results") -> Path:
        """Write the result into a folder of its own inside ``folder``; return that folder.

        The same experiment makes the same folder, with the same bytes.
        """
        return save_result(self, Path(folder))

    @classmethod
    @checked
    def load(cls, folder: str | Path) -> Result:
        """Return a saved result; nothing in the folder is executed.

        Raises
        ------
        DataError
            If a file is missing, damaged, or not the one that was written.
        """
        return load_result(Path(folder), cls)

    @checked
    def to_vectorbt(self, kind: Kind = "returns") -> Any:
        """Return the account for vectorbt: its returns bar by bar, or its trades as a Portfolio.

        Parameters
        ----------
        kind : str
            ``"returns"``: vectorbt's returns accessor on the account's returns, which include
            margin, funding and liquidations: ``.stats()``, ``.total()``. Its measures are of
            returns per bar, ours of returns per sampling period. ``"portfolio"``: a
            ``vectorbt.Portfolio`` with the account's orders and fees, worth its equity at every
            close to 1e-9.

        Raises
        ------
        ParameterError
            If a Portfolio cannot hold the account: funding, interest, a liquidation, flows, a
            reserve, an inverse contract, borrowed money (long leverage above 1), two trades in one
            bar, or a resumed run.

        Notes
        -----
        The index is UTC without a zone.
        """
        unit = np.concatenate(([self.tally.first_unit], self.record[6]))
        return convert(self, unit, kind)
