"""Cascades over several markets: accounts hold books on one collateral, which spread losses.

Arrays have the shape (n_accounts, n_markets) or (n_accounts,). Money is in the settlement currency
of all markets, which are linear. The sum of all equities, the fund, fees and what the venue owes is
verified not to change in a round.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from backtest import core
from backtest.core import FloatArray
from backtest.core.number_text import Head
from backtest.core.result_parts import MONEY, Headline, Part, ShownChart, ShownTable
from backtest.results import Result
from backtest.results.settings_result import SettingsResult
from backtest.risk.cascade import PAYERS, Cascade, shock_crowd
from backtest.risk.crowd import Crowd, check_columns, find_price, read_column, read_sides
from backtest.risk.crowd_books import Books, read_terms
from backtest.risk.impact_laws import Impact
from backtest.venue import Venue, read_venue

COLUMNS = ("account", "market", "side", "quantity", "entry")
PAID = tuple(name for name in PAYERS if name != "adl_paid")
LEAST_ACCOUNTS = 50
"""Accounts from which a spectral radius is measured: of fewer, single ones decide it."""


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


def find_spread(book: Books) -> FloatArray:
    """Return the forced flow in market i that one unit of forced flow in market j causes.

    Of the first round, (n, n): what fails by the impact of one market's net flow alone, over its
    gross flow, longs and shorts together.
    """
    n, first = len(book.start), book.find_failing(book.shocked)
    found, failed = np.zeros((n, n)), book.quantity[first] * book.unit
    net, gross = np.sum(failed, axis=0), np.sum(np.abs(failed), axis=0)
    for j in np.flatnonzero(net).tolist():
        own = np.zeros(n)
        own[j] = net[j]
        rows = np.setdiff1d(book.find_failing(book.find_marks(own)), first)
        found[:, j] = np.sum(np.abs(book.quantity[rows]), axis=0) * book.unit / gross[j]
    return found


def measure_radius(spread: FloatArray, accounts: int) -> float:
    """Return the spectral radius of a spread (n, n); NaN of too few accounts."""
    if accounts < LEAST_ACCOUNTS:
        return math.nan
    return float(np.max(np.abs(np.linalg.eigvals(spread))))


@dataclass(frozen=True, eq=False, repr=False)
class Contagion(SettingsResult):
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
        The largest absolute eigenvalue of ``spread``: over 1, a small forced flow grows. NaN with
        under 50 accounts, where a single one moves it.
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

    kind = "contagion"
    call = "bt.cascade"

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
            f"{rounds}; one unit of forced flow in {self.caused.idxmax()} causes "
            f"{self.caused.max():.2f} units over all markets."
        )

    @property
    def caused(self) -> pd.Series[float]:
        """The forced flow that one unit forced in each market causes over all: column sums."""
        return self.spread.sum()

    def list_numbers(self) -> list[Headline]:
        n = f"of {len(self.accounts):,} accounts"
        numbers = [
            Headline("caused", "caused by one unit", float(self.caused.max()), "decimals",
                     f"units of forced flow, forced in {self.caused.idxmax()}"),
            Headline("radius", "spectral radius", self.radius, "decimals",
                     "of units caused by each unit; grows over 1"),
            Headline("liquidated", "liquidated", self.liquidated, "count", n),
            Headline("deficit", "deficit", self.deficit, "money",
                     "money: losses beyond what backed them"),
        ]  # fmt: skip
        return [each for each in numbers if not each.is_unknown]

    def list_parts(self) -> list[Part]:
        names = [str(name) for name in self.spread]
        prices = self.rounds[[f"price {name}" for name in names]]
        moves = 100.0 * (prices / prices.iloc[0] - 1.0).set_axis(names, axis=1)
        paid = pd.DataFrame({"money": self.rounds[[*PAID]].sum()}).rename(index=PAYERS)
        count = {"money": Head("paid", "money", "money")}
        money = {str(name): Head(str(name), "money lost", "money") for name in names}
        units = {str(name): Head(str(name), "units", "decimals") for name in names}
        sign = f"Losses are positive, gains negative. {MONEY}"
        spread = pd.concat([self.spread, self.caused.to_frame("over all markets").T])
        return [
            Part("rounds", "The rounds", "Round 0 is only the shock.", (
                ShownChart("rounds", "Prices after each round", "% of the price after the shock.",
                           moves, "points", has_legend=True),
                ShownTable(self.losses, "Losses by round and market",
                           labels=Head("round", "", "count"), heads=money),
                sign,
            ), "both"),
            Part("spread", "What forced flow causes", "Forced flow in a market (row) for each unit "
                 "forced in another (column).", (
                ShownTable(spread, labels=Head("market"), heads=units),), "both"),
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
    shocks = np.array([core.Real(-1.0, 10.0, open_low=True).check("shock", x)
                       for x in give("shock", shock, 0.0)])  # fmt: skip
    curves = [law.curve(money, None, own.contract) for law, money, own in
              zip(give("impact", impact), give("volume", volume), venues, strict=True)]  # fmt: skip
    cut = [core.check_range("haircut", x or 0.0, low=0.0, high=1.0)
           for x in give("haircuts", haircuts, 0.0)]  # fmt: skip
    names = list(crowd.names)
    for name, own in zip(names, venues, strict=True):
        if own.contract.kind != "linear" or own.liquidation.mode != "close":
            raise core.ParameterError(
                f"venue of {name} must be linear with liquidation.mode 'close' in a cascade of "
                f"several markets, got {own.contract.kind!r} and {own.liquidation.mode!r}"
            )
    terms = [read_terms(*each) for each in zip(venues, curves, cut, strict=True)]
    book = Books(
        terms, crowd.prices, shocks, names=names, quantity=crowd.quantity, entry=crowd.entry,
        money=crowd.cash, coins=crowd.coins / [own.contract.size for own in venues],
        insurance=insurance,
    )  # fmt: skip
    spread, book.first_equity = find_spread(book), book.measure_equity(book.start)
    final = book.run()
    begun = {"accounts": 0, "deficit": 0.0, "insurance": insurance, **dict.fromkeys(PAID, 0.0),
             **book.name_all("price", book.shocked)}  # fmt: skip
    columns = [f"{what} {name}" for what in ("long", "short") for name in names]
    index = pd.RangeIndex(1, len(book.rows) + 1, name="round")
    return Contagion(
        rounds=pd.DataFrame([begun, *book.rows], columns=[*begun, *columns * bool(book.rows)])
        .fillna(0.0).rename_axis("round"),
        losses=pd.DataFrame(book.rows, index, [f"loss {name}" for name in names], np.float64)
        .set_axis(names, axis=1),
        accounts=pd.DataFrame(
            {"round": book.failed, "equity": book.first_equity, "after": book.measure_equity(final),
             "deficit": book.lost, "haircut": book.haircut},
            index=pd.Index(crowd.accounts, name="account"),
        ),
        spread=pd.DataFrame(spread, index=pd.Index(names, name="market"), columns=names),
        radius=measure_radius(spread, len(crowd)),
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
    market, then sells the same share of all coins until its cash is not negative, then pays the
    fees of its positions, at most what is left. So the order of the markets decides nothing. Their
    venues must be linear and close whole positions; deficits go to the fund, then to profits.
    ``price``, ``recovery``, ``jump``, ``me`` and auto-deleveraging are of one market.

    The price is ``price (1 + shock - fall(Q))`` with Q the net flow that was forced so far, in
    notional at the price before the shock. Each round closes all accounts that fail at its price:
    the last price is the clearing price nearest to that before the shock.
    """
    core.check_range("insurance", insurance, low=0.0)
    given: Any = {"venue": venue, "shock": shock, "impact": impact, "volume": volume}
    if isinstance(crowd, Crowd):
        if haircuts is not None:
            raise core.ParameterError(f"haircuts must be left out for one market, got {haircuts}")
        return shock_crowd(
            crowd, price=price, recovery=recovery, jump=jump, me=me, insurance=insurance, adl=adl,
            **given,
        )  # fmt: skip
    alone = {"price": price, "recovery": recovery, "jump": jump or None, "me": me,
             "adl": None if adl in (None, "queue") else adl}  # fmt: skip
    for name, value in alone.items():
        if value is not None:
            raise core.ParameterError(
                f"{name} must be left out with several markets, got {value!r:.40}"
            )
    return spread_losses(crowd, haircuts=haircuts, insurance=insurance, **given)
