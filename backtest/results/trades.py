"""The table of trades of a run, with measures of all and of groups of them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from backtest import core
from backtest.account.events import Event
from backtest.account.money import MONEY_TERMS, SIGNS
from backtest.core.code_names import pd
from backtest.results import trade_measures
from backtest.results.attribution import find_periods
from backtest.results.realization import measure_realization
from backtest.results.trade_fills import TradeView, list_holdings

if TYPE_CHECKING:
    from backtest.core import BoolArray
    from backtest.results.run_record import RunRecord

Group: TypeAlias = Literal["day", "week", "month", "quarter", "year", "instrument", "side", "ended"]
UNALLOCATED = tuple(
    term.name for term in MONEY_TERMS if not term.in_trades and term.name != "flows"
)
"""Terms of money that no trade has."""
DUST = 1e-9
"""A loss below this share of all is rounding."""


class Trades(pd.DataFrame):
    """The trades of a run, a row each, with measures of them; see :func:`list_run_trades`."""

    _metadata = ["_run", "view"]  # noqa: RUF012 - the name that pandas reads
    _run: RunRecord
    view: TradeView

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def __deepcopy__(self, memo: dict[int, Any]) -> Trades:
        # pandas makes its copy with the constructor, a table that knows no run
        copied = Trades(pd.DataFrame(self, copy=True))
        memo[id(self)] = copied
        copied._run = copy.deepcopy(self._run, memo)
        copied.view = self.view
        return copied

    @property
    def unallocated(self) -> pd.Series:
        """Money of the account that no trade has, by term."""
        run = self._run
        amounts = {}
        for name in UNALLOCATED:
            total = float(run.of_account(name).sum())
            amounts[name] = SIGNS[name] * total

        # What short spot legs pay for coins is the funding of their trades.
        entries = run.entries
        is_for_coins = (entries["kind"] == Event.INTEREST) & (entries["owner"] >= 0)
        amounts["interest"] += float(entries["amount"][is_for_coins].sum())
        amounts["liquidation_loss"] = -find_unallocated_loss(run)
        table = pd.Series(amounts, name="amount").rename_axis("term")
        return table + 0.0  # no -0

    @property
    def measures(self) -> pd.Series:
        all_trades = np.ones(len(self), dtype=bool)
        return pd.Series(self._measure(all_trades), name=self.view)

    @core.checked
    def lots(self, by: TradeView = "fifo") -> Trades:
        return list_run_trades(self._run, by)

    @core.checked
    def measures_by(self, by: Group) -> pd.DataFrame:
        group: Any
        if by in self:
            group = self[by].astype(object)
        else:
            times = pd.DatetimeIndex(self["exit_time"]).as_unit("ns").asi8
            group = find_periods(times, by)  # type: ignore[arg-type] # a period, as no column is

        rows = {}
        for value in sorted(set(group)):
            is_in_group = np.asarray(group == value)
            rows[value] = self._measure(is_in_group)
        table = pd.DataFrame.from_dict(rows, orient="index").rename_axis(by)
        return table.drop(columns="time_in_market", errors="ignore")

    def realization(self) -> pd.Series:
        """Return how readily gains and losses were realized (the disposition effect).

        Counts of ``realized_gains`` and ``realized_losses`` (positions closed by orders and stops),
        ``paper_gains`` and ``paper_losses`` (positions held from the day before, not sold: a gain
        if the day's low is over the average entry, a loss if its high is under, else neither; of a
        short the reverse). A book counts paper on days with a sale, one instrument on every day
        held. ``reductions``, ``liquidations`` and ``expiries`` are counted apart. ``pgr`` and
        ``plr`` are the realized shares of gains and of losses, with the ``standard_error`` of their
        ``difference`` if all of them are independent; ``days_won`` and ``days_lost`` the mean days
        that closed trades with a profit and a loss were held. Source: Odean (1998), Are Investors
        Reluctant to Realize Their Losses?, J. Finance 53(5).
        """
        closed = self[self["ended"] != "open"]
        days = (closed["exit_time"] - closed["entry_time"]).dt.total_seconds() / 86_400.0
        figures = measure_realization(self._run)
        figures["days_won"] = float(days[closed["profit"] > 0.0].mean())
        figures["days_lost"] = float(days[closed["profit"] < 0.0].mean())
        return pd.Series(figures, name="realization")

    def _measure(self, rows: BoolArray) -> dict[str, float]:
        """Return the measures of some rows."""
        chosen = pd.DataFrame(self)[rows]
        is_open = chosen["ended"] == "open"
        return trade_measures.measure_closed(
            self._run,
            chosen["profit"].to_numpy(np.float64),
            pd.DatetimeIndex(chosen["entry_time"]).as_unit("ns").asi8,
            pd.DatetimeIndex(chosen["exit_time"]).as_unit("ns").asi8,
            is_open.to_numpy(),
        )


def find_unallocated_loss(run: RunRecord) -> float:
    """Return what liquidations cost the account, without what its positions lost."""
    account_loss = run.record.account.liquidation_loss
    position_loss = run.record.positions.liquidation_loss
    loss = account_loss.sum() - position_loss.sum()
    if run.options is not None:
        loss -= run.options.record.liquidation_loss.sum()
    if abs(loss) <= DUST * np.abs(account_loss).sum():
        return 0.0
    return float(loss)


def list_run_trades(run: RunRecord, view: TradeView) -> Trades:
    """Return the trades of a run.

    Columns: ``instrument``, ``side``, ``quantity`` (contracts opened), ``entry_time``,
    ``exit_time`` (opens of the bars, as in the events; of an open trade that of the last bar),
    ``entry_price``, ``exit_price`` (filled, averages by quantity; of an open trade the last mark),
    ``bars`` at whose close it was open; ``peak_leverage`` of the position at these closes;
    ``price_pnl`` before costs, ``fees``, ``slippage``, ``impact``, ``liquidation_loss``,
    ``funding`` paid while held (with what a short spot leg pays for coins), the ``expense`` of a
    fund, and ``profit`` after them, in the settlement currency; ``return`` = profit / entry
    notional;
    ``mae_mark``, ``mfe_mark``, ``mae_last`` and ``mfe_last``, the furthest moves of the price
    against and for it, as returns on the entry price; ``opened`` (``order``, or ``earlier run``:
    held when the run went on, from the mark of that close) and ``ended``.
    """
    trades = Trades(trade_measures.collect_trades(run, view))
    for name in ("entry_time", "exit_time"):
        stamps = trades[name].to_numpy()
        trades[name] = core.utc_index(stamps)

    categories = {
        "instrument": [holding.name for holding in list_holdings(run)],
        "side": ["long", "short"],
    }
    for name, known in categories.items():
        trades[name] = pd.Categorical(trades[name], categories=known)

    # Measures of the trades read the run that they are of.
    trades._run = run
    trades.view = view
    return trades
