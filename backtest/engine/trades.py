"""``Result.trades``: a row per round trip or lot, their measures, and the money of no trade."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from backtest.account import ledger
from backtest.account.portfolio_ledger import DELISTED
from backtest.base.checked_calls import checked
from backtest.base.ranges import Choice
from backtest.base.units import to_nanoseconds, utc_index
from backtest.engine.result_tables import FUND_TERMS, KINDS, OWNER, has_fund_fees, price_of
from backtest.engine.run_by_state import read_level
from backtest.engine.trade_excursions import measure_excursions
from backtest.engine.trade_fills import CARRIED, OPEN, InstrumentFills, read_entries, read_fills
from backtest.engine.trade_margin import measure_margin
from backtest.measures.attribution import CALENDAR_PERIODS
from backtest.measures.lots import reduce_spans
from backtest.measures.market_states import PHASES, find_bulls
from backtest.measures.trade_measures import measure_trades
from backtest.measures.trade_rows import VIEWS, TradeRows, TradeView, list_trades

if TYPE_CHECKING:
    from backtest.base.units import BoolArray, FloatArray, IntArray
    from backtest.engine.portfolio_views import PortfolioViews

Group: TypeAlias = Literal[
    "day", "week", "month", "quarter", "year", "phase", "instrument", "side", "ended"
]
GROUPS = Choice(*CALENDAR_PERIODS, "phase", "instrument", "side", "ended")
ENDINGS = {kind: name for kind, name in KINDS.items() if kind in ledger.STOPS} | {
    ledger.FILL: "order", ledger.LIQUIDATED: "liquidation", ledger.RUINED: "ruin",
    DELISTED: "delisting", OPEN: "open",
}  # fmt: skip
"""How a trade ended, by the kind of its last fill; at its expiry, a contract's is ``expiry``."""
UNALLOCATED = {"interest": -1.0, "bad_debt": 1.0, "collateral_pnl": 1.0, "conversion": -1.0}
"""The terms of the identity of equity that belong to no trade, and their signs."""
MONEY = ("price_pnl", "fees", "slippage", "impact", "liquidation_loss", "funding", "profit")


class Trades(pd.DataFrame):
    """Trades of a run, a row each, with their measures.

    What is cut from it is a plain table.
    """

    _metadata = ["_run", "view"]  # noqa: RUF012 - the name that pandas reads
    _run: PortfolioViews
    view: TradeView

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    @property
    def unallocated(self) -> pd.Series:
        """The money of no trade by term: with the profits, the change of equity without flows.

        ``interest`` of the account's cash or loan, ``bad_debt`` that the venue bore,
        ``collateral_pnl`` and ``conversion`` of the collateral, the fees of a fund,
        ``liquidation_loss`` of collateral; gains are positive.
        """
        account, positions = self._run.record.account, self._run.record.positions
        terms = UNALLOCATED
        if has_fund_fees(self._run.account):
            terms = terms | dict.fromkeys(FUND_TERMS, -1.0)
        found = {k: sign * float(getattr(account, k).sum()) for k, sign in terms.items()}
        found["interest"] += sum_coin_interest(self._run)
        lost = account.liquidation_loss.sum() - positions.liquidation_loss.sum()
        is_dust = abs(lost) <= 1e-9 * np.abs(account.liquidation_loss).sum()
        found["liquidation_loss"] = 0.0 if is_dust else -float(lost)
        return pd.Series(found, name="amount").rename_axis("term") + 0.0

    @property
    def measures(self) -> pd.Series:
        """The measures of closed trades, ``open`` ones by number, and ``time_in_market``."""
        return pd.Series(self._measure(np.ones(len(self), dtype=bool)), name=self.view)

    @checked
    def lots(self, by: TradeView = "fifo") -> Trades:
        """Return the trades of the same run by lots.

        Parameters
        ----------
        by : str
            ``"fifo"``: a trade for each lot, or part of one, that a fill closes, the oldest first.
            ``"average"``: a trade for each fill that closes contracts, at the average entry.
            ``"trip"``: from flat to flat, as ``Result.trades``.

        Raises
        ------
        ParameterError
            If ``by`` is another word.
        """
        Choice(*VIEWS).check("by", by, where="Result.trades.lots, by")
        return list_run_trades(self._run, by)

    @checked
    def measures_by(self, by: Group) -> pd.DataFrame:
        """Return the measures of groups of trades, a row each.

        Parameters
        ----------
        by : str
            ``"year"``, ``"quarter"``, ``"month"``, ``"week"`` or ``"day"`` of the exit;
            ``"phase"``: bull or bear market at the entry, by the 20 % rule in hindsight;
            ``"instrument"``, ``"side"``, or ``"ended"``, the way they ended.

        Raises
        ------
        ParameterError
            If ``by`` is another word.
        """
        GROUPS.check("by", by, where="Result.trades.measures_by, by")
        group = self._find_groups(by)
        rows = {each: self._measure((group == each).to_numpy()) for each in sorted(set(group))}
        table = pd.DataFrame.from_dict(rows, orient="index").rename_axis(by)
        return table.drop(columns="time_in_market", errors="ignore")

    def _find_groups(self, by: Group) -> pd.Series:
        if by == "phase":
            bar = np.searchsorted(self._run.time, pd.DatetimeIndex(self["entry_time"]).asi8)
            is_bull = find_bulls(read_level(self._run))[np.minimum(bar, len(self._run.time) - 1)]
            return pd.Series(np.where(is_bull, *PHASES), dtype=object)
        if by in CALENDAR_PERIODS:
            naive: Any = self["exit_time"].dt.tz_localize(None)
            found: pd.Series = naive.dt.to_period(
                CALENDAR_PERIODS[by]
            ).dt.start_time.dt.tz_localize("UTC")
            return found
        return self[by].astype(object)

    def _measure(self, rows: BoolArray) -> dict[str, float]:
        chosen = pd.DataFrame(self)[rows].sort_values("exit_time", kind="stable")
        is_open = (chosen["ended"] == "open").to_numpy()
        closed = chosen[~is_open]
        days = (closed["exit_time"] - closed["entry_time"]).dt.total_seconds() / 86_400.0
        held = (self._run.of_positions("quantity") != 0.0).any(axis=1)
        return {
            **measure_trades(
                np.asarray(closed["profit"], dtype=np.float64), np.asarray(days, dtype=np.float64)
            ),
            "open": float(is_open.sum()),
            "time_in_market": float(held.mean()),
        }


def sum_coin_interest(run: PortfolioViews) -> float:
    """Return the interest of short spot legs, which is a cost of their trades."""
    entries = read_entries(run)
    if entries.shape[1] <= OWNER:
        return 0.0
    is_own = (entries[:, 1] == ledger.INTEREST) & (entries[:, OWNER] >= 0)
    return float(entries[is_own, 4].sum())


def list_run_trades(run: PortfolioViews, view: TradeView) -> Trades:
    """Return the trades of a run.

    Columns: ``instrument``, ``side``, ``quantity`` (contracts opened), ``entry_time``,
    ``exit_time`` (opens of the bars, as in the events; of an open trade that of the last bar),
    ``entry_price``, ``exit_price`` (filled, averages by quantity; of an open trade the last mark),
    ``bars`` at whose close it was open; ``peak_leverage`` of the position at these closes;
    ``price_pnl`` before costs, ``fees``, ``slippage``, ``impact``, ``liquidation_loss``,
    ``funding`` paid while held (with dividends, and what a short spot leg pays for coins), and
    ``profit`` after them, in the settlement currency; ``margin``, the largest initial margin held,
    ``return_on_margin`` = profit / margin, and ``return`` = profit / entry notional; ``mae_mark``,
    ``mfe_mark``, ``mae_last`` and ``mfe_last``, the furthest moves of the price against and for it,
    as returns on the entry price; ``opened`` (``order``, or ``earlier run``: held when the run went
    on, from the mark of that close) and ``ended``.
    """
    entries = read_entries(run)
    parts = [
        tabulate_trades(run, i, read_fills(run, entries, i), view) for i in range(len(run.names))
    ]
    table = pd.concat(parts, ignore_index=True)
    for name, known in (("instrument", run.names), ("side", ("long", "short"))):
        table[name] = pd.Categorical(table[name], categories=list(known))
    table = table.sort_values(["entry_time", "exit_time"], kind="stable", ignore_index=True)
    trades = Trades(table)
    trades._run, trades.view = run, view
    return trades


def tabulate_trades(
    run: PortfolioViews, i: int, read: InstrumentFills, view: TradeView
) -> pd.DataFrame:
    """Return the trades of one instrument."""
    rows, venue = list_trades(read.fills, view), run.list_venues()[i]
    costs = rows.fees + rows.slippage + rows.impact + rows.loss + rows.funding
    price_pnl = rows.gain + rows.slippage + rows.impact
    profit, entry = price_pnl - costs, price_of(venue, rows.entry_value)
    ended, first, stop = find_endings(run, i, read, rows), *find_held(read, rows)
    margin = measure_margin(run, i, read, rows, first, stop, whole=view == "trip")
    size = rows.quantity * np.abs(rows.entry_value)
    with np.errstate(divide="ignore", invalid="ignore"):
        on_margin, on_size = profit / margin, profit / size
    return pd.DataFrame(
        {
            "instrument": run.names[i],
            "side": np.where(rows.side > 0.0, "long", "short"),
            "quantity": rows.quantity,
            "entry_time": utc_index(run.time[read.bar[rows.entry]]),
            "exit_time": utc_index(run.time[read.bar[rows.exit]]),
            "entry_price": entry,
            "exit_price": price_of(venue, rows.exit_value),
            "bars": stop - first,
            "peak_leverage": find_peaks(run, i, read, rows, first, stop),
            "price_pnl": price_pnl,
            "fees": rows.fees,
            "slippage": rows.slippage,
            "impact": rows.impact,
            "liquidation_loss": rows.loss,
            "funding": rows.funding,
            "profit": profit,
            "margin": margin,
            "return_on_margin": on_margin,
            "return": on_size,
            **measure_excursions(run, i, read, rows, entry),
            "opened": np.where(read.kind[rows.entry] == CARRIED, "earlier run", "order"),
            "ended": ended,
        }
    )


def find_held(read: InstrumentFills, rows: TradeRows) -> tuple[IntArray, IntArray]:
    """Return the closes at which each trade was open: the first, and the one after the last."""
    first, last = read.bar[rows.entry], read.bar[rows.exit]
    return first, last + (read.kind[rows.exit] == OPEN)


def find_endings(run: PortfolioViews, i: int, read: InstrumentFills, rows: TradeRows) -> FloatArray:
    """Return how each trade ended."""
    kind, expires = read.kind[rows.exit], run.list_venues()[i].contract.expires
    names = np.array([ENDINGS[each] for each in kind.tolist()], dtype=object)
    if expires is not None:
        end = run.span.closes[read.bar[rows.exit]] + run.interval
        is_over = end >= to_nanoseconds(expires, where="Contract.expires")
        names[(kind == DELISTED) & is_over] = "expiry"
    return names


def find_peaks(
    run: PortfolioViews,
    i: int,
    read: InstrumentFills,
    rows: TradeRows,
    first: IntArray,
    stop: IntArray,
) -> FloatArray:
    """Return the highest leverage of the position at closes; at the fill if it saw no close."""
    equity = run.of_account("equity")
    before = np.concatenate(([run.account.capital], equity[:-1]))[read.bar[rows.entry]]
    fills = read.fills
    size = np.abs(fills.turns.after[rows.entry] * fills.value[rows.entry])
    with np.errstate(divide="ignore", invalid="ignore"):
        turns = np.where(equity > 0.0, np.abs(run.notionals[:, i]) / equity, 0.0)
        at_fill = np.where(before > 0.0, size / before, 0.0)
    seen = reduce_spans(turns, first, stop, np.fmax)
    return np.where(np.isnan(seen), at_fill, seen)
