"""Fills, round trips, rolls of options, and limit orders."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from backtest import core
from backtest.account.events import ENDINGS, STOPS, TRADED, TRADES, Entries, Event
from backtest.account.money import FILL_COSTS, IN_PRICE, MONEY_TERMS, SIGNS
from backtest.core.code_names import pd
from backtest.market import place_on_bars
from backtest.policies.combinators import SCHEDULED, TOTAL
from backtest.results import tables, trade_measures
from backtest.results.attribution import find_periods
from backtest.results.run_data import label_owners
from backtest.results.run_options import GREEKS, measure_equity
from backtest.results.trade_measures import ENDED, ROLL_COSTS, RollSplit

if TYPE_CHECKING:
    import numpy.typing as npt

    from backtest.core import BoolArray, IntArray
    from backtest.results.run_record import RunRecord


def list_limit_orders(run: RunRecord) -> pd.DataFrame:
    events, marks = run.events, run.marks
    kinds = events["kind"].astype(str).to_numpy()
    placed = np.flatnonzero(kinds == "limit_order")
    who = events["instrument"].cat.codes.to_numpy().astype(np.int64)
    bar = np.searchsorted(run.time, pd.DatetimeIndex(events["time"]).as_unit("ns").asi8)
    keys, fills = bar * (len(run.names) + 1) + who, np.flatnonzero(kinds == "fill")
    last = dict(zip(keys[fills].tolist(), fills.tolist(), strict=True))
    rows = zip(keys[placed].tolist(), placed.tolist(), strict=True)
    quantity, bar, who = events["quantity"].to_numpy()[placed], bar[placed], who[placed]
    after = np.minimum(bar + 1, len(marks) - 1)
    against = -np.sign(quantity) * (marks[after, who] / marks[bar, who] - 1.0)
    return pd.DataFrame(
        {
            "time": events["time"].to_numpy()[placed],
            "instrument": events["instrument"].astype(str).to_numpy()[placed],
            "side": np.where(quantity > 0.0, "buy", "sell"),
            "price": events["price"].to_numpy()[placed],
            "quantity": np.abs(quantity),
            "is_filled": np.array([last.get(key, -1) > row for key, row in rows], dtype=np.bool_),
            "next_move": np.where(after > bar, against, np.nan) + 0.0,
        }
    )


def count_limit_orders(orders: pd.DataFrame) -> dict[str, float]:
    """Return counts, and mean moves of the mark against the orders in the bar after theirs.

    A move is from close to close, as a fraction: down for a buy, up for a sale. NaN without any.
    """
    is_filled = orders["is_filled"].to_numpy(dtype=np.bool_)
    moves = orders["next_move"].to_numpy(dtype=np.float64)
    filled, others = (moves[~np.isnan(moves) & rows] for rows in (is_filled, ~is_filled))
    return {
        "placed": len(orders),
        "filled": int(is_filled.sum()),
        "move_against_filled": float(np.mean(filled)) if len(filled) else math.nan,
        "move_against_unfilled": float(np.mean(others)) if len(others) else math.nan,
    }


def describe_limit_orders(orders: pd.DataFrame) -> str:
    placed, filled, *moves = count_limit_orders(orders).values()
    text = (
        f"{core.count_nouns(int(placed), 'order')}, {filled:,} filled and {placed - filled:,} not"
    )
    told = [
        f"{core.format_percent(abs(move), 3)} {'against' if move > 0.0 else 'in favor of'} {whom}"
        for move, whom in zip(moves, ("those filled", "the others"), strict=True)
        if not math.isnan(move)
    ]
    if not told:
        return text
    return f"{text}; in the next bar the mark moved {' and '.join(told)}, on average"


def tabulate_fills(run: RunRecord) -> pd.DataFrame:
    """Return the fills of a run, a row for each change of a position or of the collateral.

    ``time`` is the open for what happens there, one ns before the end of the bar at its close, and
    two before it for stops and liquidations inside. ``step`` is the step of the bar. ``price`` has
    slippage and impact, ``reference`` has not. The ``fee`` of a liquidation is all that it cost;
    ``fee_currency`` is the settlement currency, empty if it is unknown.
    """
    own = run.entries[run.entries["kind"] != Event.CAUSED]
    kinds, quantity, venues = own["kind"], own["quantity"], run.list_venues()
    names = label_owners(run)[own["owner"]]
    is_debt, is_trade = kinds == Event.BAD_DEBT, np.isin(kinds, TRADES)
    price, unworsened = tables.find_prices(own, venues), own.copy()
    worsened = np.where(is_trade, sum(own[FILL_COSTS[name]] for name in IN_PRICE), 0.0)
    unworsened["value"] -= worsened / np.where(quantity != 0.0, quantity, 1.0)
    reference = np.where(worsened != 0.0, tables.find_prices(unworsened, venues), price)
    for asset in run.account.collateral:
        rows = (kinds == Event.CONVERTED) & (names == asset.name)
        reference[rows] /= 1.0 - asset.slippage if asset.slippage < 1.0 else 1.0
    paid = sum(own[column] for name, column in FILL_COSTS.items() if name not in IN_PRICE)
    fee = np.where(is_trade | (kinds == Event.LIQUIDATED), paid, 0.0)
    stamps = place_entries(run, own, names)
    table = pd.DataFrame(
        {
            "time": core.utc_index(stamps),
            "instrument": names,
            "quantity": np.where(is_debt, 0.0, quantity),
            "price": price,
            "reference": reference,
            "fee": np.where(is_debt, -own["amount"], fee),
            "fee_currency": tables.find_settlement(run),
            "kind": [name_fill(run, *each) for each in zip(kinds.tolist(), names, strict=True)],
            "step": own["step"],
        }
    )
    is_fill = is_debt | (np.isin(kinds, (*TRADED, Event.CONVERTED)) & (quantity != 0.0))
    found: pd.DataFrame = table[is_fill].reset_index(drop=True)
    return found


def place_entries(run: RunRecord, entries: Entries, names: npt.NDArray[np.object_]) -> IntArray:
    """Return the times of entries, ns: as :func:`tabulate_fills` says, inside at a settlement."""
    # by instrument and open of the bar: stamps of settlements, and whether at the open
    settled: dict[tuple[str, int], list[tuple[int, bool]]] = defaultdict(list)
    for name, market in (run.markets or {}).items():
        jitter, stamps = core.parse_duration(run.venues[name].funding_jitter), market.funding_time
        bars, is_open = place_on_bars(stamps, market.time, market.interval, jitter)
        for k in np.flatnonzero((bars >= 0) & (bars < market.n_bars)).tolist():
            settled[name, int(market.time[bars[k]])].append((int(stamps[k]), bool(is_open[k])))
    opens, interval = run.time.tolist(), run.interval
    expiries: dict[str, int] = {}
    if run.options is not None:
        expiries = dict(zip(run.options.names, run.options.terms.expiries.tolist(), strict=True))
    paid: dict[tuple[str, int, int], int] = defaultdict(int)
    found, last, stamp = [], -1, 0
    rows = entries[["bar", "kind", "step"]].tolist()
    for (bar, kind, step), name in zip(rows, names, strict=True):
        opened = opens[bar - run.span.first]
        stamp = stamp if bar == last else opened
        last = bar
        if kind == Event.FUNDING:
            known = [at for at, early in settled.get((name, opened), []) if early == (step == 2)]
            k = paid[name, bar, step]
            paid[name, bar, step] = k + 1
            stamp = known[k] if k < len(known) else opened
        elif kind == Event.EXPIRED:
            stamp = expiries.get(name, opened)
        inside = max(stamp, opened) if step == 6 else opened + interval - (2 if step == 7 else 1)
        found.append(opened if step < 6 else inside)
    return np.array(found, dtype=np.int64)


def name_fill(run: RunRecord, kind: int, name: str) -> str:
    venue = run.venues.get(name)
    if kind == Event.LIQUIDATED:
        modes = {each.liquidation.mode for each in ([venue] if venue else run.list_venues())}
        return "takeover" if modes == {"takeover"} else "liquidation"
    if kind == Event.DELISTED:
        return "expiry" if venue is not None and venue.contract.expires is not None else "delisting"
    return "stop" if kind in STOPS else ENDINGS.get(Event(kind)) or Event(kind).kind.name


Group: TypeAlias = Literal["day", "week", "month", "quarter", "year", "instrument", "side", "ended"]
UNALLOCATED = tuple(x.name for x in MONEY_TERMS if not x.in_trades and x.name != "flows")


class Trades(pd.DataFrame):
    _metadata = ["_run", "view"]  # noqa: RUF012 - the name that pandas reads
    _run: RunRecord
    view: trade_measures.TradeView

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
        account, positions = self._run.record.account, self._run.record.positions
        found = {name: SIGNS[name] * float(getattr(account, name).sum()) for name in UNALLOCATED}
        entries = self._run.entries
        of_coins = (entries["kind"] == Event.INTEREST) & (entries["owner"] >= 0)
        found["interest"] += float(entries["amount"][of_coins].sum())
        lost = account.liquidation_loss.sum() - positions.liquidation_loss.sum()
        if self._run.options is not None:
            lost -= self._run.options.record.liquidation_loss.sum()
        is_dust = abs(lost) <= 1e-9 * np.abs(account.liquidation_loss).sum()
        found["liquidation_loss"] = 0.0 if is_dust else -float(lost)
        return pd.Series(found, name="amount").rename_axis("term") + 0.0

    @property
    def measures(self) -> pd.Series:
        return pd.Series(self._measure(np.ones(len(self), dtype=bool)), name=self.view)

    @core.checked
    def lots(self, by: trade_measures.TradeView = "fifo") -> Trades:
        return list_run_trades(self._run, by)

    @core.checked
    def measures_by(self, by: Group) -> pd.DataFrame:
        group: Any = self[by].astype(object) if by in self else None
        if group is None:
            times = pd.DatetimeIndex(self["exit_time"]).as_unit("ns").asi8
            group = find_periods(times, by)  # type: ignore[arg-type] # a period, as no column is
        rows = {each: self._measure(np.asarray(group == each)) for each in sorted(set(group))}
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
        found = trade_measures.measure_realization(self._run)
        found["days_won"] = float(days[closed["profit"] > 0.0].mean())
        found["days_lost"] = float(days[closed["profit"] < 0.0].mean())
        return pd.Series(found, name="realization")

    def _measure(self, rows: BoolArray) -> dict[str, float]:
        chosen = pd.DataFrame(self)[rows]
        entered, left = (
            pd.DatetimeIndex(chosen[name]).as_unit("ns").asi8
            for name in ("entry_time", "exit_time")
        )
        profit, is_open = chosen["profit"].to_numpy(np.float64), chosen["ended"] == "open"
        return trade_measures.measure_closed(self._run, profit, entered, left, is_open.to_numpy())


def list_run_trades(run: RunRecord, view: trade_measures.TradeView) -> Trades:
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
        trades[name] = core.utc_index(trades[name].to_numpy())
    names = [each.name for each in trade_measures.list_holdings(run)]
    for name, known in (("instrument", names), ("side", ["long", "short"])):
        trades[name] = pd.Categorical(trades[name], categories=known)
    trades._run, trades.view = run, view
    return trades


ROLL_COLUMNS = ("leg", "contract", "side", "opened", "closed", "ended", "quantity", *ROLL_COSTS)


def tabulate_rolls(run: RunRecord, by: RollSplit) -> pd.DataFrame:
    """Return what options cost.

    By ``"roll"`` a row for each contract from its first fill to its last, in the settlement
    currency; by ``"leg"`` a row for each leg and their ``total``, with the number of ``rolls``, as
    fractions of the mean equity per year.
    """
    parts: list[pd.DataFrame] = []
    options: Any = run.options
    entries = trade_measures.read_entries(run)
    held = [] if options is None else [*trade_measures.hold_options(options)]
    for k, each in enumerate(held):
        read = trade_measures.read_fills(run, entries, each)
        rows = trade_measures.list_trades(read, "trip")
        premium = rows.side * rows.quantity * rows.entry_value
        proceeds = rows.side * rows.quantity * rows.exit_value
        fees = rows.costs["fees"] + rows.loss
        own = {
            "leg": options.legs[k] or SCHEDULED,
            "contract": options.terms.names[k],
            "side": np.where(rows.side > 0.0, "long", "short"),
            "opened": core.utc_index(run.time[read.bar[rows.entry]]),
            "closed": core.utc_index(run.time[read.bar[rows.exit]]),
            "ended": [ENDED[kind] for kind in read.kind[rows.exit].tolist()],
            "quantity": rows.quantity,
            "premium": premium,
            "proceeds": proceeds,
            "fees": fees,
            "spread": rows.costs["slippage"],
            "cost": premium - proceeds + fees,
        }
        parts.append(pd.DataFrame(own))
    nothing = pd.DataFrame(columns=ROLL_COLUMNS).astype(dict.fromkeys(ROLL_COSTS, np.float64))
    table = pd.concat(parts) if parts else nothing
    table = table.sort_values(["opened", "contract"], kind="stable", ignore_index=True)
    if by == "roll":
        return table
    legs = table.groupby("leg", sort=False)
    sums, counts = legs[list(ROLL_COSTS)].sum(), legs[list(ROLL_COSTS)].count()
    shares = sums.where(counts.eq(legs.size(), axis=0)) / measure_equity(run)
    shares.insert(0, "rolls", legs["contract"].count())
    shares.loc[TOTAL] = shares.sum(skipna=False)
    return shares.astype({"rolls": np.int64})


def collect_options(run: RunRecord) -> dict[str, Any]:
    if run.options is None:
        return {}
    last = run.greeks.iloc[-1]
    return {
        "options": {
            "explained": run.explained().to_dict("index"),
            "rolls": core.list_records(tabulate_rolls(run, "roll")),
            "costs": tabulate_rolls(run, "leg").to_dict("index"),
            "hedging_error": run.hedging_error().to_dict("index"),
            "greeks": {name: float(last[name]) for name in (*GREEKS, "net_delta")},
            "contracts": [each.to_dict() for each in run.options.contracts],
        }
    }
