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
        return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()[:16]

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
        names = tuple(prices)
        labels = tuple(map(str, cash))
        holders = frame["account"].astype(str).tolist()
        core.check_names("prices of the crowd", set(frame["market"]), names, noun="market")
        core.check_names("cash of the crowd", set(holders), labels, noun="account")
        is_second = frame.duplicated(["account", "market"])
        if is_second.any():
            raise core.ParameterError(
                "an account must have one position in a market, got a second in row "
                f"{int(np.argmax(is_second))}"
            )

        # A row for each account, a column for each market; where nothing is held, the entry is 1.
        shape = (len(labels), len(names))
        quantity = np.zeros(shape)
        entry = np.ones(shape)
        row_of = {label: row for row, label in enumerate(labels)}
        rows = [row_of[label] for label in holders]
        columns = [names.index(name) for name in frame["market"]]
        sizes = read_column(frame, "quantity")
        quantity[rows, columns] = read_sides(frame["side"]) * sizes
        entry[rows, columns] = read_column(frame, "entry")

        coins_held = read_coins(coins or {}, row_of, names)
        for label, amount in cash.items():
            core.check_range(f"cash of {label!r}", amount, low=0.0)
        return cls(
            names=names,
            accounts=labels,
            quantity=quantity,
            entry=entry,
            coins=coins_held,
            cash=np.array([float(amount) for amount in cash.values()]),
            prices=np.array([find_price(price) for price in prices.values()]),
        )


def read_coins(
    coins: Mapping[Any, Mapping[str, float]],
    row_of: Mapping[str, int],
    names: tuple[str, ...],
) -> FloatArray:
    """Return the coins of accounts, (n_accounts, n_markets), checked; 0 where none are given.

    ``row_of`` has the row of each account by its label.
    """
    core.check_names("cash of the crowd", map(str, coins), [*row_of], noun="account")
    held = np.zeros((len(row_of), len(names)))
    for label, amounts in coins.items():
        what = f"coins of {label!r}"
        row = row_of[str(label)]
        core.check_names(what, amounts, names, noun="market")
        for name, amount in amounts.items():
            core.check_range(what, amount, low=0.0)
            column = names.index(name)
            held[row, column] = amount
    return held


def find_spread(book: Books) -> FloatArray:
    """Return what forced flow spreads to (n, n): row i, column j is the flow that j causes in i.

    Forced flow is what failing accounts must close, in units of the market. In the first round the
    accounts fail that the shock brings down. What they close in market j moves the mark of j alone,
    and other accounts fail by that. What those close in market i is divided by the forced flow of
    the first round in j: so it is caused per unit of flow in j.
    """
    n = len(book.start)
    failing = book.find_failing(book.shocked)
    closed = book.quantity[failing] * book.unit
    # Longs and shorts that close trade against each other: only the rest moves the mark. All of it
    # is forced flow, though.
    net = np.sum(closed, axis=0)
    gross = np.sum(np.abs(closed), axis=0)

    spread = np.zeros((n, n))
    for j in np.flatnonzero(net).tolist():
        flow_in_j = np.zeros(n)
        flow_in_j[j] = net[j]
        marks = book.find_marks(flow_in_j)

        # Those that the shock brought down are counted already.
        failing_next = np.setdiff1d(book.find_failing(marks), failing)
        contracts = np.sum(np.abs(book.quantity[failing_next]), axis=0)
        spread[:, j] = contracts * book.unit / gross[j]
    return spread


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
        if not self.liquidated:
            return "No account fails."
        accounts = core.count_nouns(len(self.accounts), "account")
        rounds = core.count_nouns(len(self.losses), "round")
        return (
            f"{self.liquidated:,} of {accounts} fail in {rounds}; one unit of forced flow in "
            f"{self.caused.idxmax()} causes {self.caused.max():.2f} units over all markets."
        )

    @property
    def caused(self) -> pd.Series[float]:
        """The forced flow that one unit forced in each market causes over all: column sums."""
        return self.spread.sum()

    def list_numbers(self) -> list[Headline]:
        numbers = [
            Headline(
                "caused",
                "caused by one unit",
                float(self.caused.max()),
                "decimals",
                f"units of forced flow, forced in {self.caused.idxmax()}",
            ),
            Headline(
                "radius",
                "spectral radius",
                self.radius,
                "decimals",
                "of units caused by each unit; grows over 1",
            ),
            Headline(
                "liquidated",
                "liquidated",
                self.liquidated,
                "count",
                f"of {len(self.accounts):,} accounts",
            ),
            Headline(
                "deficit",
                "deficit",
                self.deficit,
                "money",
                "losses beyond what backed them",
            ),
        ]
        return [number for number in numbers if not number.is_unknown]

    def list_parts(self) -> list[Part]:
        names = [str(name) for name in self.spread]
        return [
            self._show_rounds(names),
            self._show_spread(names),
            self._show_payers(),
        ]

    def _show_rounds(self, names: list[str]) -> Part:
        prices = self.rounds[[f"price {name}" for name in names]]
        moves = 100.0 * (prices / prices.iloc[0] - 1.0).set_axis(names, axis=1)
        chart = ShownChart(
            key="rounds",
            title="Prices after each round",
            caption="Change from the price after the shock.",
            table=moves,
            kind="points",
            x="round",
            y="%",
            has_legend=True,
        )
        table = ShownTable(
            self.losses,
            "Losses by round and market",
            labels=Head("round", "", "count"),
            heads={name: Head(name, "money", "money") for name in names},
        )
        signs = f"Losses are positive, gains negative. {MONEY}"
        return Part(
            key="rounds",
            title="The rounds",
            lead="Round 0 is only the shock.",
            blocks=(chart, table, signs),
            shows="both",
        )

    def _show_spread(self, names: list[str]) -> Part:
        table = ShownTable(
            pd.concat([self.spread, self.caused.to_frame("over all markets").T]),
            labels=Head("market"),
            heads={name: Head(name, "units", "decimals") for name in names},
        )
        return Part(
            key="spread",
            title="What forced flow causes",
            lead="Forced flow in a market (row) for each unit forced in another (column).",
            blocks=(table,),
            shows="both",
            is_half=True,
        )

    def _show_payers(self) -> Part:
        sums = self.rounds[[*PAID]].sum()
        paid = pd.DataFrame({"money": sums}).rename(index=PAYERS)
        heads = {"money": Head("paid", "money", "money")}
        return Part(
            key="payers",
            title="Who paid",
            lead="Where the deficit of bankrupt accounts went.",
            blocks=(ShownTable(paid, labels=Head("payer"), heads=heads),),
            shows="both",
            is_half=True,
        )


def read_haircuts(names: Sequence[str], haircuts: Any) -> list[float]:
    """Return the checked haircut of each market, 0 where none is given."""
    shares = list_by_market(names, "haircuts", haircuts, default=0.0)
    return [core.check_range("haircut", share or 0.0, low=0.0, high=1.0) for share in shares]


def spread_losses(
    crowd: BookCrowd,
    venue: Any,
    shock: Any,
    impact: Any,
    volume: Any,
    haircuts: Any,
    insurance: float,
) -> Contagion:
    """Follow the cascade of a crowd of books; arguments as those of :func:`cascade`."""
    names = list(crowd.names)
    venues = read_venues(names, venue, impact)
    shocks = read_shocks(names, shock)
    curves = read_curves(names, venues, impact, volume)
    market_haircuts = read_haircuts(names, haircuts)
    check_venues(names, venues)

    contract_sizes = [market_venue.contract.size for market_venue in venues]
    book = Books(
        [*map(read_terms, venues, curves, market_haircuts)],
        crowd.prices,
        shocks,
        names=names,
        quantity=crowd.quantity,
        entry=crowd.entry,
        money=crowd.cash,
        coins=crowd.coins / contract_sizes,
        insurance=insurance,
    )

    # The spread is that of the start, before anything fails.
    spread = find_spread(book)
    first_equity = book.measure_equity(book.start)
    final = book.run()

    accounts = {
        "round": book.failed,
        "equity": first_equity,
        "after": book.measure_equity(final),
        "deficit": book.lost,
        "haircut": book.haircut,
    }
    settings = {
        "crowd": {"content_hash": crowd.content_hash, "accounts": len(crowd)},
        "venues": dict(zip(names, map(Venue.to_dict, venues), strict=True)),
        "shock": dict(zip(names, shocks.tolist(), strict=True)),
        "curves": {name: curve._asdict() for name, curve in zip(names, curves, strict=True)},
        "haircuts": dict(zip(names, market_haircuts, strict=True)),
        "insurance": insurance,
    }
    return Contagion(
        rounds=tabulate_rounds(book, names, insurance),
        losses=tabulate_losses(book, names),
        accounts=pd.DataFrame(accounts, index=pd.Index(crowd.accounts, name="account")),
        spread=pd.DataFrame(spread, index=pd.Index(names, name="market"), columns=names),
        radius=measure_radius(spread, len(crowd)),
        deficit=float(sum(row["deficit"] for row in book.rows)),
        liquidated=int(np.count_nonzero(book.failed)),
        settings=settings,
    )


def list_by_market(
    names: Sequence[str],
    what: str,
    value: Any,
    default: Any = None,
) -> list[Any]:
    """Return the value of each market: the same for all, or from a mapping."""
    if not isinstance(value, Mapping):
        return [value] * len(names)
    core.check_names(f"{what} of the cascade", value, names, noun="market")
    return [value.get(name, default) for name in names]


def read_venues(names: Sequence[str], venue: Any, impact: Any) -> list[Venue]:
    """Return the venue of each market; every market needs one, and an impact."""
    given = list_by_market(names, "venue", venue)
    if None in given or None in list_by_market(names, "impact", impact):
        raise core.ParameterError(
            f"venue and impact must be one for all, or one for each of {', '.join(names)}"
        )
    return [read_venue(own_venue) for own_venue in given]


def read_shocks(names: Sequence[str], shock: Any) -> FloatArray:
    """Return the move that starts the cascade in each market, 0 where none is given."""
    moves = list_by_market(names, "shock", shock, default=0.0)
    rule = core.Real(-1.0, 10.0, open_low=True)
    return np.array([rule.check("shock", move) for move in moves])


def read_curves(
    names: Sequence[str],
    venues: Sequence[Venue],
    impact: Any,
    volume: Any,
) -> list[Any]:
    """Return the impact curve of each market, from its law and the money traded per day."""
    laws = list_by_market(names, "impact", impact)
    volumes = list_by_market(names, "volume", volume)
    curves = []
    for law, money, venue in zip(laws, volumes, venues, strict=True):
        curves.append(law.curve(money, None, venue.contract))
    return curves


def check_venues(names: Sequence[str], venues: Sequence[Venue]) -> None:
    """Refuse venues that a cascade of several markets does not model."""
    for name, venue in zip(names, venues, strict=True):
        if venue.contract.kind != "linear" or venue.liquidation.mode != "close":
            raise core.ParameterError(
                f"venue of {name} must be linear with liquidation.mode 'close' in a cascade of "
                f"several markets, got {venue.contract.kind!r} and {venue.liquidation.mode!r}"
            )


def tabulate_rounds(
    book: Books,
    names: Sequence[str],
    insurance: float,
) -> pd.DataFrame:
    """Return a row for each round of a cascade that has run; round 0 is the shock alone."""
    of_shock = {"accounts": 0, "deficit": 0.0, "insurance": insurance, **dict.fromkeys(PAID, 0.0)}
    of_shock |= book.name_all("price", book.shocked)

    # The shock liquidates nobody: its row has 0 of what rounds close by market.
    columns = [*of_shock]
    if book.rows:
        columns += [f"long {name}" for name in names]
        columns += [f"short {name}" for name in names]
    rounds = pd.DataFrame([of_shock, *book.rows], columns=columns)
    return rounds.fillna(0.0).rename_axis("round")


def tabulate_losses(book: Books, names: Sequence[str]) -> pd.DataFrame:
    """Return the losses of the rounds of a cascade, by market."""
    index = pd.RangeIndex(1, len(book.rows) + 1, name="round")
    columns = [f"loss {name}" for name in names]
    losses = pd.DataFrame(book.rows, index, columns, np.float64)
    return losses.set_axis(list(names), axis=1)


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
    if isinstance(crowd, Crowd):
        if haircuts is not None:
            raise core.ParameterError(f"haircuts must be left out for one market, got {haircuts}")
        one: Any = {"venue": venue, "shock": shock, "impact": impact, "volume": volume}
        return shock_crowd(
            crowd,
            price=price,
            recovery=recovery,
            jump=jump,
            me=me,
            insurance=insurance,
            adl=adl,
            **one,
        )

    of_one_market = {"price": price, "recovery": recovery, "jump": jump or None, "me": me}
    if adl != "queue":
        of_one_market["adl"] = adl
    for name, value in of_one_market.items():
        if value is not None:
            raise core.ParameterError(
                f"{name} must be left out with several markets, got {value!r:.40}"
            )
    return spread_losses(
        crowd,
        venue=venue,
        shock=shock,
        impact=impact,
        volume=volume,
        haircuts=haircuts,
        insurance=insurance,
    )
