"""The result of a run."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, overload

import numpy as np
import pandas as pd

from backtest import base
from backtest.account.ledger import FILL
from backtest.base.saved_result import KINDS
from backtest.base.units import DAY, YEAR_DAYS
from backtest.engine import result_files
from backtest.engine.manifest import NOT_IN_ID
from backtest.engine.result_files import load_result, name_result, save_result
from backtest.engine.run_options import list_held
from backtest.engine.run_record import RunRecord
from backtest.engine.tables import (
    FORCED,
    attribute_money,
    attribution_table,
    is_inverse,
    sum_contracts,
    value_of,
)
from backtest.engine.tables import KINDS as KINDS_OF_EVENTS
from backtest.engine.trades import (
    RollSplit,
    Trades,
    list_limit_orders,
    list_run_trades,
    tabulate_fills,
    tabulate_rolls,
)
from backtest.market import Market
from backtest.measures import (
    AccountHistory,
    Attribution,
    Period,
    Samples,
    attribute,
    attribute_by,
    compound_growth,
    find_periods,
    ratio,
    read_account_history,
    sampled_returns,
)
from backtest.measures.measure_table import measure_returns

DECLARED = "backtest.report.run_parts"
"""Where the figures, tables and charts of a run are declared."""
PERIODS = base.Choice("instrument", "day", "week", "month", "quarter", "year")
Split: TypeAlias = Period | Literal["instrument"]


class Result(RunRecord, base.Reportable):
    """Result of a run. Tables are made on first access.

    Attributes
    ----------
    metrics : mapping of str to float
        The measures of a run by name: fractions (0.25 is 25 %), money in the settlement currency,
        times in days. Of several positions also those of the portfolio.
    bars : DataFrame
        One row per bar of the account, of one position with its columns; see
        :func:`backtest.engine.run_record.bars_table`.
    positions : DataFrame
        One row per bar and instrument.
    events : DataFrame
        The ledger; see :func:`backtest.engine.tables.KINDS`.
    returns : Series
        Simple returns of the unit value per sampling period.
    manifest : mapping
        Data, venues, account, policies, settings and versions that produced this result.
    names, venues, policies, overlay, markets
        Instruments, and what each of them has.
    state, memory
        State of the account at the last close, to resume from.
    """

    kind = "run"
    _draw = base.call_later("backtest.report", "draw_run")
    list_numbers = base.call_later(DECLARED, "list_numbers")
    list_parts = base.call_later(DECLARED, "list_parts")
    list_assumptions = base.call_later(DECLARED, "list_assumptions")
    to_dict = base.call_later(DECLARED, "collect_run")
    verdict = property(base.call_later(DECLARED, "write_verdict"))
    details = property(base.call_later(DECLARED, "write_details"))
    notices = property(base.call_later(DECLARED, "list_notices"))

    @property
    def title(self) -> str:
        """The policy, or the policies by instrument."""
        return str(self.manifest["policy"]["text"])

    @property
    def heading(self) -> str:
        """The title of the page."""
        return self.title

    @property
    def folder_title(self) -> str:
        """What the name of the folder begins with."""
        return name_result(self.manifest).removesuffix(f"-{self.manifest['id']}")

    def target_cuts(self) -> pd.DataFrame:
        """Return how often and how far each limit kept the account from its target leverage.

        A row ``all`` for all decisions that reached an open, then one for each binding limit, in
        the order in which they apply, indexed by ``cause``. Columns: ``decisions``; ``share`` of
        all decisions; ``mean_asked`` and ``mean_held`` over these decisions, in turns of the equity
        before the costs of the fill; ``mean_shortfall``, the amount that this limit took away (the
        shortfalls of a decision add up to asked less held); ``mean_distance``, the same without
        sign; ``days``, the UTC days of these decisions. With several positions also indexed by
        ``instrument`` (``all``, then each).

        Notes
        -----
        See docs/accounting.md, section 4, for the causes. A leverage of NaN is no decision.

        Asked is ``signal * leverage * overlay``, held the position after the fill, both at the
        price of the fill. The loop counts what each limit takes where it makes the order.
        ``initial_margin`` includes notional caps; it is ``venue_leverage`` where the account sets
        one. Infinite targets are left out.
        """
        if not self.target_cut_rows:
            raise base.ParameterError(
                "this result was saved without the cuts of its targets; run it again"
            )
        table = pd.DataFrame(list(self.target_cut_rows))
        index = [name for name in ("instrument", "cause") if name in table]
        return table.set_index(index if len(index) > 1 else "cause")

    @cached_property
    def trades(self) -> Trades:
        """The trades, a row per round trip; see :func:`backtest.engine.trades.list_run_trades`.

        ``trades.lots("fifo")`` has a row per lot, first in first out;
        ``trades.measures`` and ``trades.measures_by("year")`` win rate, profit factor and others.
        The profits and ``trades.unallocated`` add up to the change of equity without flows.
        """
        return list_run_trades(self, "trip")

    @cached_property
    def fills(self) -> pd.DataFrame:
        """The changes of positions, see :func:`backtest.engine.trades.tabulate_fills`."""
        return tabulate_fills(self)

    @base.checked
    def rolls(self, by: RollSplit = "roll") -> pd.DataFrame:
        """Return what the options cost, by ``"roll"`` or by ``"leg"``.

        See :func:`backtest.engine.trades.tabulate_rolls`.
        """
        return tabulate_rolls(self, self.options, by)

    @base.checked
    def counted_in(self, market: Market) -> CountedResult:
        """Count an account that settles in a coin in the currency of a market, at its marks.

        Equity and unit value at a close times the mark there, which the market (its bars may be
        shorter) must have; the account starts at the mark of its first close, a resumed one at that
        before. ``bars`` have ``equity`` and ``drawdown``, ``returns`` are those of sampling
        periods, ``metrics`` have a risk-free rate of 0 and the coin itself as the market.
        """
        return count_in(self, market)

    @property
    def limit_orders(self) -> pd.DataFrame:
        """A row for each limit order of an account with ``fill="limit"``.

        ``time`` is the open of the bar in which it rested, ``price`` its limit, ``quantity`` in
        contracts. ``next_move`` is the move of the mark against it in the bar after, from close to
        close, as a fraction (NaN in the last bar).
        """
        return list_limit_orders(self)

    @cached_property
    def _life(self) -> AccountHistory:
        n = len(self.time)
        ruin = n if self.tally.ruin < 0 else self.tally.ruin - self.span.first
        first = value_of(self.venue, self.before.mark[:1])
        late = None
        if self.account.fill == "next_close":
            late = sum_contracts(self.entries, (FILL,), self.span.first, len(self.time))
        forced = tuple(kind for kind, name in KINDS_OF_EVENTS.items() if name in FORCED)
        own = self.record.of_one()
        return read_account_history(
            own,
            value_of(self.venue, self.mark),
            self.signal,
            sum_contracts(self.entries, forced, self.span.first, len(self.time)),
            first_value=float(first[0]),
            first_signal=float(self.before.signal[0]),
            ruin=ruin,
            late=late,
        )

    @overload
    def attribution(self, by: None = None) -> Any: ...

    @overload
    def attribution(self, by: Split) -> pd.DataFrame: ...

    def attribution(self, by: Split | None = None) -> Attribution | pd.DataFrame:
        """Return where the growth of the account came from; the terms add up exactly.

        ``by`` is ``"instrument"``: a table of the money that each instrument made and cost, which
        is the default for several positions; or ``"day"``, ``"week"``, ``"month"``, ``"quarter"``
        or ``"year"``: a row per period; of one position the terms of log growth, of several the
        money of each instrument in each period. Default for one position: the terms of log growth
        over the run.

        Notes
        -----
        See :func:`backtest.measures.attribution.split_growth` for the formula. A resumed run is
        split from where it went on.
        """
        if by is not None:
            PERIODS.check("by", by)
        account = self.record.account._asdict()
        names, held = list_held(self)
        money = (names, account, held)
        if by != "instrument" and self.has_one_position:
            years = (int(self.span.closes[-1]) - self.span.start) / (YEAR_DAYS * DAY)
            life = self._life
            return attribute(life, years) if by is None else attribute_by(life, self.time, by)
        if by is None or by == "instrument":
            return attribution_table(*money)
        return attribute_money(*money, find_periods(self.time, by))

    def __repr__(self) -> str:
        metrics = self.metrics
        return (
            f"<Result {self.manifest['policy']['text']} on {self.manifest['data']['source']}: "
            f"equity {metrics['final_equity']:.2f}, sharpe {metrics['sharpe']:.2f}, "
            f"{metrics['liquidations']:.0f} liquidations>"
        )

    def plot(self) -> Any:
        """Return the account over time as a Plotly figure: equity, leverage, price, costs.

        Long runs are thinned; the extremes of every pixel are kept.
        """
        return self._draw()

    @base.checked
    def save(self, folder: str | Path = "results") -> Path:
        """Write the result into a folder of its own inside ``folder``; return that folder.

        The same experiment makes the same folder, with the same bytes.
        """
        return save_result(self, Path(folder))

    @classmethod
    @base.checked
    def load(cls, folder: str | Path) -> Result:
        """Return a saved result; nothing in the folder is executed."""
        path = Path(folder)
        with base.reading_folder(path):
            return load_result(path, cls)

    def to_vectorbt(self) -> Any:
        """Return vectorbt's returns accessor on the account's returns: ``.stats()``, ``.total()``.

        They include margin, funding and liquidations. Its measures are of returns per bar, ours of
        returns per sampling period. The index is UTC without a zone.
        """
        unit = np.concatenate(([self.tally.first_unit], self.of_account("unit")))
        return convert(self, unit)


class CountedResult(NamedTuple):
    """``equity`` and ``drawdown`` by bar, returns per sampling period, and their measures."""

    bars: pd.DataFrame
    returns: pd.Series
    metrics: Mapping[str, float]


def count_in(run: RunRecord, market: Market) -> CountedResult:
    coin, ends, closes = (
        base.find_coin(market.instrument),
        market.time + market.interval,
        run.span.closes,
    )
    settled = {each.contract.settles for each in run.list_venues() if is_inverse(each)}
    if not settled:
        raise base.ParameterError("counted_in needs an account in coins, got no inverse contract")
    if coin and (others := ", ".join(map(str, sorted(settled - {coin, None}, key=str)))):
        raise base.ParameterError(
            f"market must price the coin of the account, {others}, got {coin!r}"
        )
    rows = np.searchsorted(ends, closes, side="right") - 1
    missing = closes[(rows < 0) | (ends[rows] != closes)]
    if len(missing):
        first = base.format_time(int(missing[0]))
        raise base.DataError(
            f"market must have a mark at each close of the run, got none at {first}"
        )
    before = int(np.searchsorted(ends, run.time[0], side="right")) - 1
    start = before if run.manifest.get("resumed_from") is not None and before >= 0 else rows[0]
    return count_at(run, market.mark_close[rows], float(market.mark_close[start]))


def count_at(run: RunRecord, marks: base.FloatArray, first_mark: float) -> CountedResult:
    """Count an account at marks of shape (n_bars,), ``first_mark`` that of its start."""
    unit, first = run.of_account("unit") * marks, run.tally.first_unit * first_mark
    equity = run.of_account("equity") * marks
    fall = 1.0 - unit / np.maximum.accumulate(np.maximum(unit, first))
    returns = sampled_returns(unit, run.ends_sample, first)
    held = sampled_returns(marks, run.ends_sample, first_mark)
    n, periods, deepest = len(returns), run.span.periods, float(fall.max())
    growth = float(unit[-1]) / first
    rate = -1.0 if run.tally.ruin >= 0 else compound_growth(growth, run.span.years)
    mean = float(returns.mean()) if n > 0 else math.nan
    deviation = float(returns.std(ddof=1)) if n > 1 else math.nan
    downside = math.sqrt(np.square(np.minimum(returns, 0.0)).sum() / max(n, 1))
    measures = {
        "total_return": growth - 1.0,
        "cagr": rate,
        "volatility": deviation * math.sqrt(periods),
        "sharpe": ratio(mean, deviation, periods),
        "sortino": ratio(mean, downside, periods),
        "max_drawdown": deepest,
        "calmar": rate / deepest if deepest > 0.0 else math.nan,
        **measure_returns(Samples(returns, np.zeros(n), held), periods),
        "final_equity": float(equity[-1]),
    }
    bars = pd.DataFrame({"equity": equity, "drawdown": fall}, index=base.utc_index(run.time))
    return CountedResult(bars, pd.Series(returns, run.returns.index, name="return"), measures)


# -------------------------------------------------------------------------------------- saved runs

RUN = "run"


def read_run(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    for name in (result_files.METRICS, result_files.STATE):
        if base.hash_file(folder / name) != manifest["files"][name]:
            raise base.damage_error(folder / name, "was changed")
    shown = result_files.describe_run(manifest, base.read_json_file(folder / result_files.METRICS))
    metrics = {k: math.nan if v is None else float(v) for k, v in shown["metrics"].items()}
    return {**shown, "title": shown["policy"], "metrics": metrics}


KINDS[RUN] = base.Kind(
    plural="runs",
    layout=result_files.FORMAT,
    files=result_files.FILES,
    aside=NOT_IN_ID[1:],
    load=Result.load,
    read_line=read_run,
    call="bt.run",
)


def convert(result: RunRecord, unit: base.FloatArray) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import vectorbt  # noqa: PLC0415 - only where asked for
    change = np.divide(unit[1:], unit[:-1], out=np.ones(len(unit) - 1), where=unit[:-1] > 0.0)
    series = pd.Series(
        change - 1.0, index=base.utc_index(result.time).tz_localize(None), name="return"
    )
    return vectorbt.returns.accessors.ReturnsSRAccessor(
        series, freq=pd.Timedelta(result.interval, unit="ns")
    )
