"""Cascades over several markets: accounts hold books on one collateral, which spread losses.

Arrays have the shape (n_accounts, n_markets) or (n_accounts,). Money is in the settlement currency
of all markets, which are linear. The sum of all equities, the fund, fees and what the venue owes is
verified not to change in a round.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from backtest import core
from backtest.core import BoolArray, FloatArray, IntArray
from backtest.core.number_text import Head
from backtest.core.result_parts import Headline, Part, ShownChart, ShownTable
from backtest.core.units import TOLERANCE
from backtest.margin import compute_maintenance, read_rules
from backtest.results import Result
from backtest.risk.cascade import (
    LEAST_PRICE,
    MOST_ROUNDS,
    SLACK,
    Cascade,
    Impact,
    ImpactCurve,
    cut_profits,
    read_costs,
    shock_crowd,
)
from backtest.risk.crowd import Crowd, check_columns, find_price, read_column, read_sides
from backtest.venue import Venue, read_venue

HALVINGS = 64
"""Bisections of the way of prices, to the last digit of a fraction."""
BEFORE = 100.0
"""How far before its start a way is followed to order accounts that fail there, in its length."""
COLUMNS = ("account", "market", "side", "quantity", "entry")
PAYERS = {
    "fund_paid": "insurance fund",
    "haircuts": "haircuts on profits",
    "unpaid": "unpaid: the venue owes it",
}


@dataclass(frozen=True, eq=False, repr=False)
class BookCrowd:
    """Accounts that hold positions in several markets on one collateral.

    Make one with :meth:`from_positions`.

    Attributes
    ----------
    names : tuple of str
        The markets.
    accounts : tuple of str
        The labels of the accounts.
    quantity, entry, coins : FloatArray of shape (n_accounts, n_markets)
        Signed contracts, their entry prices, and coins of the markets that are collateral.
    cash : FloatArray of shape (n_accounts,)
        Money, without profits that are not realized.
    prices : FloatArray of shape (n_markets,)
        The prices at which the crowd was made.
    """

    names: tuple[str, ...]
    accounts: tuple[str, ...]
    quantity: FloatArray
    entry: FloatArray
    coins: FloatArray
    cash: FloatArray
    prices: FloatArray

    def __len__(self) -> int:
        return len(self.cash)

    def __repr__(self) -> str:
        count = core.count_nouns(len(self), "account")
        return f"<BookCrowd of {count} in {', '.join(self.names)}, {self.content_hash}>"

    @property
    def content_hash(self) -> str:
        """A hash of all accounts."""
        arrays = (self.quantity, self.entry, self.coins, self.cash)
        return hashlib.sha256(b"".join(each.tobytes() for each in arrays)).hexdigest()[:16]

    @classmethod
    @core.checked
    def from_positions(
        cls,
        frame: pd.DataFrame,
        cash: Mapping[Any, float],
        prices: Mapping[str, float],
        *,
        coins: Mapping[Any, Mapping[str, float]] | None = None,
    ) -> BookCrowd:
        """Return a crowd of given books.

        Parameters
        ----------
        frame : DataFrame
            One row per position: ``account`` (a label), ``market``, ``side`` ("long" or "short"),
            ``quantity`` in contracts (positive) and ``entry`` price.
        cash : mapping of label to float
            The money of each account, at least 0.
        prices : mapping of str to float
            The prices now, of all markets.
        coins : mapping of label to mapping of market to float, optional
            Coins that are collateral.
        """
        check_columns(frame, COLUMNS)
        names, labels = tuple(prices), tuple(map(str, cash))
        held_by = frame["account"].astype(str).tolist()
        core.check_names("prices of the crowd", set(frame["market"]), names, noun="market")
        core.check_names("cash of the crowd", set(held_by), labels, noun="account")
        if frame.duplicated(["account", "market"]).any():
            row = int(np.argmax(frame.duplicated(["account", "market"])))
            raise core.ParameterError(
                f"an account must have one position in a market, got a second in row {row}"
            )
        shape = (len(labels), len(names))
        quantity, entry, held = np.zeros(shape), np.ones(shape), np.zeros(shape)
        place = {label: row for row, label in enumerate(labels)}
        rows = [place[each] for each in held_by]
        places = [names.index(each) for each in frame["market"]]
        sizes = read_column(frame, "quantity")
        quantity[rows, places] = read_sides(frame["side"]) * sizes
        entry[rows, places] = read_column(frame, "entry")
        core.check_names("cash of the crowd", map(str, coins or {}), labels, noun="account")
        for label, own in (coins or {}).items():
            core.check_names(f"coins of {label!r}", own, names, noun="market")
            for name, amount in own.items():
                core.check_range(f"coins of {label!r}", amount, low=0.0)
                held[place[str(label)], names.index(name)] = amount
        money = [core.check_range(f"cash of {x!r}", each, low=0.0) for x, each in cash.items()]
        now = np.array([find_price(each) for each in prices.values()])
        return cls(names, labels, quantity, entry, held, np.array(money), now)


class MarketTerms(NamedTuple):
    """What one market needs: its rules, costs of liquidation, haircut of coins, and impact."""

    rules: Any
    size: float
    fee: float
    slippage: float
    haircut: float
    curve: ImpactCurve


def read_terms(venue: Venue, curve: ImpactCurve, haircut: float, name: str) -> MarketTerms:
    forced = venue.liquidation
    if venue.contract.kind != "linear" or forced.mode != "close":
        raise core.ParameterError(
            f"venue of {name} must be linear with liquidation.mode 'close' in a cascade of several "
            f"markets, got {venue.contract.kind!r} and {forced.mode!r}"
        )
    return MarketTerms(read_rules(venue), venue.contract.size, *read_costs(forced), haircut, curve)


class BookCascade:
    """All accounts, liquidity, the fund and the venue, round after round.

    ``flow`` (n_markets,) was forced so far, a notional at the first price, ``level`` is how far the
    shock has gone on each market, a price before impact.
    """

    def __init__(
        self, crowd: BookCrowd, terms: Sequence[MarketTerms], shocks: FloatArray, insurance: float
    ) -> None:
        self.crowd, self.terms = crowd, terms
        self.start = crowd.prices
        self.shocked = self.start * (1.0 + shocks)
        self.flow, self.level = np.zeros(len(terms)), self.start.copy()
        self.sizes = np.array([each.size for each in terms])
        self.quantity, self.coins = crowd.quantity * self.sizes, crowd.coins.copy()
        self.cash = crowd.cash - np.sum(self.quantity * crowd.entry, axis=1)
        self.first_equity = self.measure_equity(self.start)
        self.failed = np.zeros(len(crowd), np.int64)
        self.lost, self.haircut = np.zeros((2, len(crowd)))
        self.liquidity, self.liquidity_cash = -np.sum(self.quantity + self.coins, axis=0), 0.0
        self.insurance, self.fund_paid, self.fees, self.unpaid = insurance, 0.0, 0.0, 0.0
        self.rows, self.losses = list[dict[str, float]](), list[FloatArray]()

    def measure_equity(self, prices: FloatArray) -> FloatArray:
        """Return the equity of each account at prices (n_markets,)."""
        return np.asarray(self.cash + (self.quantity + self.coins) @ prices)

    def find_gaps(self, rows: IntArray, prices: FloatArray) -> FloatArray:
        """Return what backs accounts less their requirement, at prices (n_rows, n_markets)."""
        gaps: FloatArray = self.cash[rows] + np.sum(self.quantity[rows] * prices, axis=1)
        for i, own in enumerate(self.terms):
            gaps += self.coins[rows, i] * prices[:, i] * (1.0 - own.haircut)
            notional = np.abs(self.quantity[rows, i] * prices[:, i])
            gaps -= compute_maintenance(own.rules, notional, 1.0) * (1.0 + TOLERANCE)
        return gaps

    def find_failing(self, marks: FloatArray) -> IntArray:
        held = np.flatnonzero(np.any(self.quantity != 0.0, axis=1))
        gaps = self.find_gaps(held, np.broadcast_to(marks, (len(held), len(marks))))
        return held[gaps <= 0.0]

    def find_fractions(self, rows: IntArray, marks: FloatArray) -> tuple[FloatArray, BoolArray]:
        """Return where on the way to the marks accounts fail, (n_rows,), and which come last.

        A fraction under 0 is where one that fails at the start would have failed on a way that had
        begun before; those that gain on the way come last, at 0.
        """
        low, high = np.full(len(rows), -BEFORE), np.ones(len(rows))
        ends = [np.broadcast_to(each, (len(rows), len(marks))) for each in (self.start, marks)]
        first, last = (self.find_gaps(rows, each) for each in ends)
        begun = first <= 0.0
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            prices = self.start + middle[:, None] * (marks - self.start)
            fails = self.find_gaps(rows, prices) <= 0.0
            low, high = np.where(fails, low, middle), np.where(fails, middle, high)
        are_last = begun & (last > first)
        return np.where(are_last, 0.0, high), are_last

    def find_marks(self, flow: FloatArray) -> FloatArray:
        falls = np.array([own.curve.fall(x) for own, x in zip(self.terms, flow, strict=True)])
        return np.asarray(np.maximum(self.shocked - self.start * falls, self.start * LEAST_PRICE))

    def run(self) -> FloatArray:
        """Liquidate until no account fails, and return the prices then."""
        marks = self.shocked
        while len(failing := self.find_failing(marks)):
            if len(self.rows) >= MOST_ROUNDS:
                raise core.AccountingError(f"a cascade did not end in {MOST_ROUNDS:,} rounds")
            before = self.sum_money(marks)
            row = self.do_round(failing, marks)
            self.check(marks, before)
            marks = self.find_marks(self.flow)
            self.rows.append({**row, **self.name_all("price", marks)})
        return marks

    def name_all(self, what: str, values: FloatArray) -> dict[str, float]:
        return {f"{what} {x}": float(v) for x, v in zip(self.crowd.names, values, strict=True)}

    def do_round(self, rows: IntArray, marks: FloatArray) -> dict[str, float]:
        """Close the accounts that fail on the way to the marks, in the order in which they do."""
        fractions, are_last = self.find_fractions(rows, marks)
        order = np.lexsort((fractions, are_last))
        forced, lost, deficit = np.zeros((2, len(marks))), np.zeros(len(marks)), 0.0
        for row, fraction in zip(rows[order].tolist(), fractions[order].tolist(), strict=True):
            self.failed[row] = len(self.rows) + 1
            reach = self.start + max(fraction, 0.0) * (marks - self.start)
            for i in np.flatnonzero(self.quantity[row]).tolist():
                size, self.quantity[row, i] = float(self.quantity[row, i]), 0.0
                price = self.trade(row, i, size, reach)
                lost[i] -= size * (price - self.start[i])
                forced[0 if size > 0.0 else 1, i] += abs(size) * self.start[i]
            forced[0] += self.sell_coins(row, reach) * self.start
            if not self.coins[row].any():
                deficit += max(-float(self.cash[row]), 0.0)
                self.lost[row] = max(-float(self.cash[row]), 0.0)
                self.cash[row] = max(float(self.cash[row]), 0.0)
        self.losses.append(lost)
        paid = self.cover(deficit, marks)
        return {"accounts": len(rows), "deficit": deficit, "insurance": self.insurance
                - self.fund_paid, **paid, **self.name_all("long", forced[0]),
                **self.name_all("short", forced[1])}  # fmt: skip

    def sell_coins(self, row: int, reach: FloatArray) -> FloatArray:
        """Sell coins of an account until its cash is not negative; return those sold, (n_markets,).

        Each further piece is as large as the debt that is left at the price of the one before.
        """
        sold, least = np.zeros(len(reach)), -TOLERANCE * abs(float(self.cash[row]))
        for i in np.flatnonzero(self.coins[row]).tolist():
            price = (1.0 - self.terms[i].slippage) * float(reach[i])
            while self.cash[row] < least and self.coins[row, i] > 0.0:
                owed = -float(self.cash[row])
                piece = min(float(self.coins[row, i]), owed / price)
                self.coins[row, i] -= piece
                self.trade(row, i, piece, reach)
                price = (owed + float(self.cash[row])) / piece
                sold[i] += piece
        return sold

    def trade(self, row: int, i: int, size: float, reach: FloatArray) -> float:
        """Sell units of one market for an account, with impact; return the price that it gets.

        ``reach`` (n_markets,) are the marks at which the account fails.
        """
        own, start, flow = self.terms[i], float(self.start[i]), float(self.flow[i])
        low, high = sorted((start, float(self.shocked[i])))
        reached = min(max(float(reach[i]) + start * own.curve.fall(flow), low), high)
        farther = min if self.shocked[i] <= start else max
        self.level[i] = farther(reached, float(self.level[i]))
        mean = own.curve.mean_fall(flow, size * start)
        price = max(float(self.level[i]) - start * mean, start * LEAST_PRICE)
        filled = price * (1.0 - math.copysign(own.slippage, size))
        self.flow[i] += size * start
        self.cash[row] += size * filled
        self.liquidity_cash -= size * filled
        self.liquidity[i] += size
        left = float(self.cash[row] + (self.quantity[row] + self.coins[row]) @ reach)
        fee = min(own.fee * abs(size * filled), max(left, 0.0))
        self.cash[row] -= fee
        self.fees += fee
        return filled

    def cover(self, missing: float, marks: FloatArray) -> dict[str, float]:
        """Let the fund, then profits, pay what bankrupt accounts lack; return who paid."""
        paid = min(missing, max(self.insurance - self.fund_paid, 0.0))
        self.fund_paid += paid
        cut, owed = cut_profits(missing - paid, self.measure_equity(marks) - self.first_equity)
        self.cash -= cut
        self.haircut += cut
        self.unpaid += owed
        return {"fund_paid": paid, "haircuts": float(np.sum(cut)), "unpaid": owed}

    def sum_money(self, marks: FloatArray) -> float:
        liquidity = self.liquidity_cash + float(self.liquidity @ marks)
        accounts = float(np.sum(self.measure_equity(marks)))
        return accounts + liquidity - self.fund_paid + self.fees - self.unpaid

    def check(self, marks: FloatArray, before: float) -> None:
        size = float(np.sum(np.abs(self.crowd.quantity * self.sizes) @ self.start))
        money = max(float(np.sum(np.abs(self.first_equity))), size, 1.0)
        after = self.sum_money(marks)
        if not abs(after - before) <= SLACK * money:
            raise core.AccountingError(
                f"the books of the crowd must balance to {SLACK:g}, in round {len(self.rows) + 1} "
                f"they were {before!r} before and {after!r} after"
            )


def find_spread(book: BookCascade) -> FloatArray:
    """Return the forced flow in market i that one unit of forced flow in market j causes.

    Of the first round, (n, n): what fails by the impact of one market's net flow alone, over its
    gross flow, longs and shorts together.
    """
    n, first = len(book.start), book.find_failing(book.shocked)
    found, failed = np.zeros((n, n)), book.quantity[first] * book.start
    net, gross = np.sum(failed, axis=0), np.sum(np.abs(failed), axis=0)
    for j in np.flatnonzero(net).tolist():
        own = np.zeros(n)
        own[j] = net[j]
        rows = np.setdiff1d(book.find_failing(book.find_marks(own)), first)
        found[:, j] = np.sum(np.abs(book.quantity[rows]), axis=0) * book.start / gross[j]
    return found


@dataclass(frozen=True, eq=False, repr=False)
class Contagion(core.SettingsResult):
    """The outcome of :func:`backtest.cascade` over several markets.

    Attributes
    ----------
    rounds : DataFrame
        A row per round: ``accounts`` that failed, and by market the ``price`` after it and the
        ``long`` and ``short`` notionals sold, at the price before the shock; ``deficit``, what
        bankrupt accounts lacked, and who paid it: ``fund_paid``, ``haircuts``, ``unpaid``; and the
        ``insurance`` fund after it paid.
    losses : DataFrame
        By round and market: what the closed positions lost against the price before the shock.
    accounts : DataFrame
        By account: the ``round`` in which it failed (0: never), ``equity`` before and ``after``,
        its ``deficit`` and the ``haircut`` of its profit.
    spread : DataFrame
        The forced flow in each market (row) that one unit of forced flow in each market (column)
        causes at the start; flows are longs and shorts together.
    radius : float
        The largest absolute eigenvalue of ``spread``: over 1, a small forced flow grows.
    deficit : float
        Losses of bankrupt accounts beyond what backed them.
    liquidated : int
        Accounts that failed.

    Notes
    -----
    Compare the spectral radius with the endogenous risk of fire sales in Cont and Schaanning
    (2017), Fire Sales, Indirect Contagion and Systemic Stress Testing, Norges Bank working paper.
    """

    rounds: pd.DataFrame
    losses: pd.DataFrame
    accounts: pd.DataFrame
    spread: pd.DataFrame
    radius: float
    deficit: float
    liquidated: int
    settings: dict[str, Any]
    market: None = None

    kind = "contagion"
    call = "bt.cascade"
    table_names = ("rounds", "losses", "accounts", "spread")
    numbers = ("radius", "deficit", "liquidated")

    @property
    def title(self) -> str:
        return f"{len(self.accounts):,} accounts in {', '.join(map(str, self.spread))}"

    @property
    def note(self) -> str:
        return f"{self.liquidated:,} accounts liquidated"

    @property
    def verdict(self) -> str:
        rounds = core.count_nouns(len(self.losses), "round")
        if not self.liquidated:
            return "No account fails."
        return (
            f"{self.liquidated:,} of {core.count_nouns(len(self.accounts), 'account')} fail in "
            f"{rounds}; one unit of forced flow causes up to {self.radius:.2f} units over the "
            "markets."
        )

    def list_numbers(self) -> list[Headline]:
        n = f"of {len(self.accounts):,} accounts"
        return [
            Headline("radius", "spectral radius", self.radius, "decimals", "grows over 1"),
            Headline("liquidated", "liquidated", self.liquidated, "count", n),
            Headline("deficit", "deficit", self.deficit, "count", "beyond what backed them"),
        ]

    def list_parts(self) -> list[Part]:
        names = list(self.spread)
        prices = self.rounds[[f"price {name}" for name in names]]
        moves = 100.0 * (prices / prices.iloc[0] - 1.0).set_axis(names, axis=1)
        paid = pd.DataFrame({"money": self.rounds[list(PAYERS)].sum()}).rename(index=PAYERS)
        count = {"money": Head("money", "", "count")}
        return [
            Part("rounds", "The rounds", "Round 0 is only the shock.", (
                ShownChart("rounds", "Prices after each round", "% of the price after the shock.",
                           moves, "points", has_legend=True),
                ShownTable(self.losses, "Losses by round and market", labels=Head("round")),
            ), "both"),
            Part("spread", "What forced flow causes", "Forced flow in a market (row) for each unit "
                 "forced in another (column).", (
                ShownTable(self.spread, labels=Head("market")),), "both"),
            Part("payers", "Who paid", "Where the deficit of bankrupt accounts went.",
                 (ShownTable(paid, labels=Head("payer"), heads=count),), "both"),
        ]  # fmt: skip


def spread_losses(
    crowd: BookCrowd, venue: Any, shock: Any, impact: Any, volume: Any, haircuts: Any,
    insurance: float,
) -> Contagion:  # fmt: skip
    """Follow the cascade of a crowd of books; arguments as those of :func:`cascade`."""

    def give(name: str, value: Any, default: Any = None) -> list[Any]:
        if not isinstance(value, Mapping):
            return [value] * len(crowd.names)
        core.check_names(f"{name} of the cascade", value, crowd.names, noun="market")
        return [value.get(each, default) for each in crowd.names]

    venues: list[Any] = [None if x is None else read_venue(x) for x in give("venue", venue)]
    if None in venues or None in give("impact", impact):
        raise core.ParameterError(
            f"venue and impact must be one for all, or one for each of {', '.join(crowd.names)}"
        )
    shocks = np.array([core.Number(-1.0, 10.0, open_low=True).check("shock", x)
                       for x in give("shock", shock, 0.0)])  # fmt: skip
    curves = [law.curve(money, None, own.contract) for law, money, own in
              zip(give("impact", impact), give("volume", volume), venues, strict=True)]  # fmt: skip
    cut = [core.check_range("haircut", x or 0.0, low=0.0, high=1.0)
           for x in give("haircuts", haircuts, 0.0)]  # fmt: skip
    terms = [read_terms(*each) for each in zip(venues, curves, cut, crowd.names, strict=True)]
    spread = find_spread(BookCascade(crowd, terms, shocks, insurance))
    book = BookCascade(crowd, terms, shocks, insurance)
    final = book.run()
    begun = {"accounts": 0, "deficit": 0.0, "insurance": insurance, **dict.fromkeys(PAYERS, 0.0),
             **book.name_all("price", book.shocked)}  # fmt: skip
    names = list(crowd.names)
    index = pd.RangeIndex(1, len(book.losses) + 1, name="round")
    return Contagion(
        rounds=pd.DataFrame([begun, *book.rows]).fillna(0.0).rename_axis("round"),
        losses=pd.DataFrame(np.array(book.losses).reshape(-1, len(names)), index, names),
        accounts=pd.DataFrame(
            {"round": book.failed, "equity": book.first_equity, "after": book.measure_equity(final),
             "deficit": book.lost, "haircut": book.haircut},
            index=pd.Index(crowd.accounts, name="account"),
        ),
        spread=pd.DataFrame(spread, index=pd.Index(names, name="market"), columns=names),
        radius=float(np.max(np.abs(np.linalg.eigvals(spread)))),
        deficit=float(sum(row["deficit"] for row in book.rows)),
        liquidated=int(np.count_nonzero(book.failed)),
        settings={
            "crowd": {"content_hash": crowd.content_hash, "accounts": len(crowd)},
            "venues": {name: own.to_dict() for name, own in zip(names, venues, strict=True)},
            "shock": dict(zip(names, shocks.tolist(), strict=True)),
            "curves": {name: own._asdict() for name, own in zip(names, curves, strict=True)},
            "haircuts": dict(zip(names, cut, strict=True)), "insurance": insurance,
        },
    )  # fmt: skip


@core.record_making
@core.checked_only("crowd", "venue", "impact", "adl", "me", "shock", "volume", "haircuts")
def cascade(
    crowd: Crowd | BookCrowd,
    venue: Venue | str | Mapping[str, Venue | str],
    *,
    shock: float | Mapping[str, float],
    impact: Impact | Mapping[str, Impact],
    price: float | None = None,
    volume: float | Mapping[str, float] | None = None,
    insurance: float = 0.0,
    adl: Literal["queue", "pro-rata"] | None = "queue",
    recovery: str | None = None,
    jump: bool = False,
    me: Result | Mapping[str, Any] | None = None,
    haircuts: Mapping[str, float] | None = None,
) -> Cascade | Contagion:
    """Shock a crowd of accounts, and follow its liquidations until no account fails.

    Parameters
    ----------
    crowd : Crowd
        The accounts. With a :class:`BookCrowd`, which trades several markets, venue, shock (0 where
        none is given), impact and volume may be given by market, and a :class:`Contagion` returns.
    venue : Venue or str
        Margin rules, mode and costs of liquidation. Its own ``liquidation.impact`` is not used:
        ``impact`` replaces it.
    shock : float
        The move that starts the cascade: -0.03 is a fall of 3 %.
    impact : SquareRoot or Linear
        How forced flow moves the price.
    price : float, optional
        The price before the shock; that of the crowd by default.
    volume : float, optional
        The money traded per day; that of the last 30 days of the crowd's market by default.
    insurance : float
        The insurance fund, in the settlement currency; may be infinite.
    adl : str or None
        How bankrupt positions that the fund cannot cover are closed: ``"queue"`` (against profit,
        highest return x leverage first), ``"pro-rata"`` (against all of the other side), or None
        (in the market; the shortfall is taken from profits).
    recovery : str, optional
        The half-life of the impact, in rounds of a minute; None: it stays.
    jump : bool
        Whether the shock is a jump, on whose way nobody trades: all that fail in it trade at its
        end. Otherwise each account trades at its liquidation price, or behind those before it.
    me : Result or mapping, optional
        One's own account in the crowd: the state of a run at its end, or side, quantity, entry and
        collateral.
    haircuts : mapping of str to float, optional
        Of a BookCrowd: the share of the value of coins that backs nothing, by market; 0 by default.

    Notes
    -----
    Of several markets each round moves all prices along a straight way to their new marks. An
    account fails at the first fraction of it at which what backs it is at most its requirement, the
    sum over its positions; in that order each closes all positions, each with the impact of its
    market, then sells coins until its cash is not negative. Their venues must be linear and close
    whole positions; deficits go to the fund, then to profits. ``price``, ``recovery``, ``jump``,
    ``me`` and auto-deleveraging are of one market.

    The price is ``price (1 + shock - fall(Q))`` with Q the net flow that was forced so far, in
    notional at the price before the shock. Each round closes all accounts that fail at its price:
    the last price is the clearing price nearest to that before the shock.
    """
    if isinstance(crowd, Crowd):
        if haircuts is not None:
            raise core.ParameterError(f"haircuts must be left out for one market, got {haircuts}")
        given: Any = {"venue": venue, "shock": shock, "impact": impact, "volume": volume}
        return shock_crowd(
            crowd, price=price, insurance=insurance, adl=adl, recovery=recovery,
            jump=jump, me=me, **given,
        )  # fmt: skip
    alone = {"price": price, "recovery": recovery, "jump": jump or None, "me": me,
             "adl": None if adl in (None, "queue") else adl}  # fmt: skip
    for name, value in alone.items():
        if value is not None:
            raise core.ParameterError(
                f"{name} must be left out with several markets, got {value!r:.40}"
            )
    core.check_range("insurance", insurance, low=0.0)
    return spread_losses(crowd, venue, shock, impact, volume, haircuts, insurance)
