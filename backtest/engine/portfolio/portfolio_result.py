"""``PortfolioResult``, the return value of :func:`backtest.run` for several markets."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from backtest.base.checked_calls import checked
from backtest.base.errors import ParameterError
from backtest.base.ranges import Choice, Range
from backtest.base.reportable import Reportable
from backtest.base.units import DAY, FloatArray, IntArray, utc_index
from backtest.engine.benchmark import begin_moves, name_benchmark, sample_benchmark
from backtest.engine.feed_arrays import as_of
from backtest.engine.limit_cost import LimitCost, measure_book_limit_cost
from backtest.engine.portfolio.portfolio_files import load_portfolio, save_portfolio
from backtest.engine.portfolio.portfolio_path import read_book_path
from backtest.engine.portfolio.portfolio_record import PortfolioRecord
from backtest.engine.portfolio.portfolio_tables import (
    attribution_table,
    column,
    compute_notionals,
    contagion_table,
    count_assets,
    field,
    mean_of,
    portfolio_bars,
    portfolio_events,
    positions_table,
    realize_by_instrument,
)
from backtest.engine.portfolio.portfolio_text import write_portfolio_summary
from backtest.engine.result_tables import check_not_resumed
from backtest.measures.path_measures import AccountPath, Samples, sum_path
from backtest.measures.performance import sampled_returns
from backtest.measures.portfolio_risk import (
    average_covariances,
    diversification_ratio,
    effective_bets,
    risk_shares,
)
from backtest.measures.realized_gains import Realization
from backtest.measures.run_measures import measure_run
from backtest.measures.run_span import RunSpan
from backtest.portfolio.book_records import PEAK
from backtest.venue import Venue

if TYPE_CHECKING:
    from backtest.engine.portfolio.book_driver import BookOutcome
    from backtest.engine.portfolio.portfolio_setup import Setup

HALF_LIFE = "30d"
"""The half-life of the covariances behind risk shares."""


class PortfolioResult(PortfolioRecord, Reportable):
    """Result of a run of several positions. Tables are made on first access.

    Attributes
    ----------
    metrics : mapping of str to float
        The measures of a run by name, those of :class:`backtest.Result` and of the portfolio.
    bars : DataFrame
        One row per bar of the account.
    positions : DataFrame
        One row per bar and instrument.
    events : DataFrame
        The ledger, with the instrument of each event.
    returns : Series
        Simple returns of the unit value per sampling period.
    manifest : mapping
        Data, venues, account, policies, settings and versions that produced this result.
    """

    _run: ClassVar[Callable[..., Any]]

    @classmethod
    @checked
    def from_outcome(
        cls,
        setup: Setup,
        outcome: BookOutcome,
        span: RunSpan,
        manifest: Mapping[str, Any],
        moves: FloatArray,
    ) -> PortfolioResult:
        """Return the result of a run; ``moves`` are the returns of its benchmark."""
        markets, first, feed = setup.markets, setup.first, setup.inputs.feed
        spans = np.clip(markets.spans - first, 0, None)
        account = setup.account
        wealth = account.capital + account.reserve
        wealth += sum(
            each.amount * feed.asset_open[c, first] for c, each in enumerate(account.collateral)
        )
        return cls(
            policies=setup.policies,
            overlay=setup.overlay,
            venues=setup.venues,
            account=account,
            manifest=manifest,
            names=markets.names,
            span=span,
            spans=spans,
            interval=markets.interval,
            is_session=markets.sessions,
            tally=outcome.tally,
            book=outcome.book,
            memory=outcome.memory,
            first_peak=wealth if setup.resume is None else float(setup.resume.book.purse[PEAK]),
            record=outcome.account,
            positions_record=outcome.positions,
            entries=outcome.entries,
            marks=np.ascontiguousarray(feed.mark_close[first:]),
            asset_marks=np.ascontiguousarray(feed.asset_mark_close[:, first:].T),
            ends_sample=setup.inputs.clock.ends_sample[first:],
            market_returns=begin_moves(moves, first, is_resumed=setup.resume is not None),
            markets=markets,
            started=setup.inputs.started,
            traded=outcome.traded,
            weights=setup.signal,
        )

    @property
    def _venues(self) -> list[Venue]:
        return [self.venues[name] for name in self.names]

    @cached_property
    def _notionals(self) -> FloatArray:
        return compute_notionals(self.positions_record, self.marks, self._venues)

    @cached_property
    def metrics(self) -> Mapping[str, float]:
        """The measures by name."""
        unit, equity = column(self.record, "unit"), column(self.record, "equity")
        sums = sum_path([self._path], self.first_peak)
        measured = measure_run(
            self.tally, self.span, float(unit[-1]), float(equity[-1]), self._samples, sums
        )
        ends = np.flatnonzero(self.ends_sample)  # an eigenvalue problem each: not at every bar
        weights, covariance = self._compute_weights(
            30 * DAY / self.interval, ends, collateral=False
        )
        extra = {
            "mean_net_leverage": float(pd.Series(self._path.leverage).mean()),
            "collateral_pnl": float(pd.Series(column(self.record, "collateral_pnl")).sum()),
            "conversion": float(pd.Series(column(self.record, "conversion")).sum()),
            **mean_of(
                {
                    "diversification_ratio": diversification_ratio(weights, covariance),
                    "effective_bets": effective_bets(weights, covariance),
                }
            ),
        }
        # of the account's terms: the tally adds those of the collateral to price and slippage
        measured["price_pnl"] -= extra["collateral_pnl"]
        measured["slippage"] -= extra["conversion"]
        return MappingProxyType({**measured, **extra})

    @cached_property
    def _path(self) -> AccountPath:
        return read_book_path(self, self._notionals)

    @cached_property
    def _samples(self) -> Samples:
        ends = self.ends_sample != 0.0
        rate = as_of(self._venues[0].cash_rate, self.time, "Venue.cash_rate")
        year = self._venues[0].day_count * DAY
        lengths = np.diff(self.time, prepend=self.time[:1]) if self.is_session else self.interval
        total = np.cumsum(np.broadcast_to(rate * (lengths / year), self.time.shape))
        free = np.diff(total[ends], prepend=0.0)
        market = sample_benchmark(
            self.market_returns, self.ends_sample, name_benchmark(self.manifest), self.venues
        )
        return Samples(self._sampled, free, market)

    @cached_property
    def _sampled(self) -> FloatArray:
        unit = column(self.record, "unit")
        return sampled_returns(unit, self.ends_sample, self.tally.first_unit)

    @cached_property
    def returns(self) -> pd.Series:
        """Simple returns per sampling period, indexed by the open of its last bar."""
        ends = self.time[self.ends_sample != 0.0]
        return pd.Series(self._sampled, index=utc_index(ends), name="return")

    @cached_property
    def bars(self) -> pd.DataFrame:
        """One row per bar; :func:`backtest.engine.portfolio.portfolio_tables.portfolio_bars`."""
        wealth = self.first_peak
        return portfolio_bars(self.time, self.record, self._notionals, wealth, self.first_peak)

    @cached_property
    def positions(self) -> pd.DataFrame:
        """One row per bar and instrument."""
        equity = column(self.record, "equity")
        given = (self.spans, equity, self.positions_record, self.marks)
        return positions_table(self.time, self.names, self._venues, *given)

    @cached_property
    def events(self) -> pd.DataFrame:
        """One row per event."""
        assets = [each.name for each in self.account.collateral]
        described = self.manifest["data"]["instruments"]
        paying = [name for name in self.names if "dividends" in described[name]]
        given = (self._venues, self.entries, self.span.first, paying)
        return portfolio_events(self.time, self.names, assets, *given)

    def contagion(self) -> pd.DataFrame:
        """Return what brought down the cross pool: a row per cause of each liquidation.

        Returns
        -------
        DataFrame
            ``liquidation`` (its number), ``time``, ``cause`` (an instrument, ``collateral``,
            ``flows`` or ``rules``), ``share`` of the fall of M - level R since the last high of
            the unit value (the shares of a liquidation add up to 1), ``quantity`` held, and
            ``profit``, what a position in profit had gained since its entry, else 0.
        """
        return contagion_table(self.time, self.names, self.entries, self.span.first)

    def target_cuts(self) -> pd.DataFrame:
        """Return how often and how far each limit kept the account from its targets.

        Returns
        -------
        DataFrame
            Indexed by ``instrument`` (``all``, then each) and ``cause`` (``all`` decisions that
            reached an open, then each limit that bound). Columns as those of
            :meth:`backtest.Result.target_cuts`: leverages are in turns of the account's equity at
            the open, ``signal * leverage * overlay`` as asked and the position after the fill. A
            shortfall within the account's leverage is named after the first limit that explains it;
            ``wallet`` is any limit of an isolated order, ``initial_margin`` includes notional caps.

        Raises
        ------
        ParameterError
            If the result was saved by a version that did not store the table.

        Notes
        -----
        A leverage of NaN is no decision, and infinite targets are left out. A limit counts if it
        moved a target by more than 0.01 %.
        """
        if not self.cut_rows:
            raise ParameterError(
                "the cuts of targets must have been saved with a result, this one was saved "
                "without them",
                where="PortfolioResult.target_cuts",
                cure="run the experiment again",
            )
        return pd.DataFrame(list(self.cut_rows)).set_index(["instrument", "cause"])

    @checked
    def limit_cost(self, *, compile: bool = True) -> LimitCost:  # noqa: A002 - as in bt.run
        """Return on how many days ``max_leverage`` bound, and what it cost in growth.

        As :meth:`backtest.Result.limit_cost`. The account runs a second time, without the limits of
        all instruments; a day counts if the limit of one of them bound.
        """
        return measure_book_limit_cost(self, self.metrics, self._run, is_compiled=compile)

    def realization(self) -> Realization:
        """Return how readily the account closed positions at a gain, and at a loss.

        The position in each instrument counts for itself, against its mark close. Liquidations,
        stops and delistings close positions too. Source: Odean (1998); see
        :func:`backtest.measures.realization`.

        Raises
        ------
        ParameterError
            If the result goes on from an earlier one, which may have opened its positions.
        """
        check_not_resumed(self.manifest, "PortfolioResult.realization")
        given = (self.time, self.spans, self.names, self._venues, self.marks, self.events)
        return realize_by_instrument(*given)

    def attribution(self, by: str = "instrument") -> pd.DataFrame:
        """Return the money that each instrument made and cost; the rows add up to the total.

        Parameters
        ----------
        by : str
            ``"instrument"``.

        Raises
        ------
        ParameterError
            If ``by`` is another word.
        """
        Choice("instrument").check("by", by, where="PortfolioResult.attribution, by")
        return attribution_table(self.names, self.record, self.positions_record)

    @checked
    def risk(self, half_life: float | None = None, *, collateral: bool = False) -> pd.DataFrame:
        """Return the risk of the portfolio at each close.

        Parameters
        ----------
        half_life : float, optional
            Half-life of the covariances of mark returns, in bars. Default: 30 days.
        collateral : bool
            Whether the collateral counts as positions too.

        Returns
        -------
        DataFrame
            By bar: ``gross_leverage``, ``net_leverage``, ``diversification_ratio``,
            ``effective_bets``, and the share of each instrument in the variance, by its name. NaN
            without a position.

        Raises
        ------
        ParameterError
            If the half-life is not at least 1.
        """
        where = "PortfolioResult.risk, half_life"
        bars = max(30 * DAY / self.interval, 1.0) if half_life is None else half_life
        Range(1, math.inf).check("half_life", bars, where=where)
        names = list(self.names)
        names += [each.name for each in self.account.collateral] * collateral
        weights, covariance = self._compute_weights(bars, slice(None), collateral=collateral)
        shares = risk_shares(weights, covariance)
        table = {
            "gross_leverage": np.abs(weights).sum(axis=1),
            "net_leverage": weights.sum(axis=1),
            "diversification_ratio": diversification_ratio(weights, covariance),
            "effective_bets": effective_bets(weights, covariance),
            **{name: shares[:, i] for i, name in enumerate(names)},
        }
        return pd.DataFrame(table, index=utc_index(self.time))

    def _compute_weights(
        self, half_life: float, rows: IntArray | slice, *, collateral: bool
    ) -> tuple[FloatArray, FloatArray]:
        """Return the weights and the covariances of the positions at the closes of some bars."""
        marks, notionals = self.marks, self._notionals
        if collateral:
            marks = np.concatenate((marks, self.asset_marks), axis=1)
            notionals = np.concatenate((notionals, self._amounts * self.asset_marks), axis=1)
        equity = column(self.record, "equity")[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            weights = np.where(equity[rows] > 0.0, notionals[rows] / equity[rows], 0.0)
            logs = np.log(marks)
        returns = np.diff(logs, axis=0, prepend=logs[:1])
        return weights, average_covariances(returns, max(half_life, 1.0), rows)

    @property
    def _amounts(self) -> FloatArray:
        """Amounts of collateral at each close, of shape (n_bars, C)."""
        final, n = self.book.held.amounts, len(self.names)
        return count_assets(final, self.entries, n, self.span.first, len(self.time))

    @property
    def exposures(self) -> pd.DataFrame:
        """Signed leverage of each instrument at each close, by name."""
        equity = column(self.record, "equity")[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            weights = np.where(equity > 0.0, self._notionals / equity, 0.0)
        return pd.DataFrame(weights, index=utc_index(self.time), columns=list(self.names))

    @property
    def quantities(self) -> pd.DataFrame:
        """Signed contracts of each instrument at each close, by name."""
        held = field(self.positions_record, "quantity")
        return pd.DataFrame(held, index=utc_index(self.time), columns=list(self.names))

    def __repr__(self) -> str:
        metrics = self.metrics
        return (
            f"<PortfolioResult {self.manifest['policy']['text']} on {', '.join(self.names)}: "
            f"equity {metrics['final_equity']:.2f}, sharpe {metrics['sharpe']:.2f}, "
            f"{metrics['liquidations']:.0f} liquidations>"
        )

    def summary(self) -> str:
        """Return a text summary of the run, for a terminal."""
        return write_portfolio_summary(self)

    @checked
    def save(self, folder: str | Path = "results") -> Path:
        """Write the result into a folder of its own inside ``folder``; return that folder.

        The same experiment makes the same folder, with the same bytes.
        """
        return save_portfolio(self, Path(folder))

    @classmethod
    @checked
    def load(cls, folder: str | Path) -> PortfolioResult:
        """Return a saved result; nothing in the folder is executed.

        Raises
        ------
        DataError
            If a file is missing, damaged, or not the one that was written.
        """
        return load_portfolio(Path(folder), cls)
