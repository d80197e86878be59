"""A shock of prices, the liquidations it causes, and those that they cause."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from backtest import core
from backtest.core import FloatArray
from backtest.core.number_text import Head
from backtest.core.result_parts import MONEY, Headline, Part, ShownChart, ShownTable
from backtest.core.units import MINUTE
from backtest.results import Result
from backtest.results.settings_result import SettingsResult
from backtest.results.tables import price_of
from backtest.risk.crowd import ARRAYS_OF_CROWD, Crowd, find_price
from backtest.risk.crowd_books import Books, read_terms
from backtest.venue import Venue, read_venue

PAYERS = {
    "fund_paid": "insurance fund",
    "adl_paid": "auto-deleveraging (ADL)",
    "haircuts": "haircuts on profits",
    "unpaid": "unpaid: the venue owes it",
}
COLUMNS = (
    "mark", "price", "accounts", "long", "short", "insurance", "adl", "fees", "deficit", *PAYERS,
    "off",
)  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class Cascade(SettingsResult):
    """The outcome of :func:`backtest.cascade`.

    Attributes
    ----------
    rounds : DataFrame
        Row 0 is the shock alone, then a row per round: ``mark`` (the price at which accounts
        failed) and ``price`` (after their flow); ``long`` and ``short``, the notionals liquidated
        in the market, and ``adl``, closed against accounts in profit, all at the price before the
        shock; ``insurance``, the fund afterwards; ``fees``; ``deficit``, what bankrupt accounts
        lacked, and who paid it: ``fund_paid``, ``adl_paid``, ``haircuts``, ``unpaid``; and
        ``off``, the error of the books as a share.
    accounts : DataFrame
        A row per account: ``quantity`` left, the ``round`` in which it failed (0: never),
        ``close_price``, contracts ``deleveraged``, and the ``haircut`` in money.
    ladder : DataFrame
        The notional liquidated by price before the shock; see :meth:`Crowd.ladder`.
    price, shock, final_price : float
        The price before the shock, the move that began it, a fraction, and the price after the last
        round, at which no account fails.
    multiplier : float
        The final move over the shock; 1 if nobody was liquidated.
    reproduction : float
        The forced notional that one unit of forced notional causes at the start.
    deficit : float
        Losses of bankrupt accounts beyond what backed them, in the settlement currency.
    liquidated : int
        The accounts of the crowd that were.
    me : dict or None
        This account: ``liquidated``, in which ``round``, the ``quantity`` left, the mean
        ``close_price``, ``equity_before`` the shock and ``equity`` now, their difference ``loss``,
        contracts ``deleveraged``, the ``haircut``, and the ``liquidation_price`` of what is left.
    """

    rounds: pd.DataFrame
    accounts: pd.DataFrame
    ladder: pd.DataFrame
    price: float
    shock: float
    final_price: float
    multiplier: float
    reproduction: float
    deficit: float
    liquidated: int
    me: dict[str, Any] | None = None

    kind = "cascade"
    call = "bt.cascade"
    numbers = ("price", "shock", "final_price", "multiplier", "reproduction", "deficit",
               "liquidated", "me")  # fmt: skip

    @property
    def haircuts(self) -> FloatArray:
        """What was taken from the profit of each account, in the settlement currency."""
        return self.accounts["haircut"].to_numpy(dtype=np.float64)

    def payers(self) -> dict[str, float]:
        """Return who paid the deficit, in the settlement currency."""
        return {name: float(self.rounds[name].sum()) for name in PAYERS}

    @property
    def title(self) -> str:
        shock = core.format_percent(self.shock, is_signed=True)
        return f"{self.settings['crowd'].get('accounts', 0):,} accounts after {shock}"

    @property
    def note(self) -> str:
        return f"{self.multiplier:.2f} times the shock"

    @property
    def move(self) -> float:
        """The move of the price from before the shock to the end, a fraction."""
        return self.final_price / self.price - 1.0

    @property
    def verdict(self) -> str:
        return (
            f"After a shock of {core.format_percent(self.shock)}, {len(self.rounds) - 1} rounds of "
            f"liquidations moved the price by {core.format_percent(self.move)} in all."
        )

    @property
    def details(self) -> str:
        me = self.me
        if me is None:
            return ""
        fate = f"was liquidated in round {me['round']}" if me["liquidated"] else "survived"
        return (
            f"This account {fate}: its equity went from {me['equity_before']:z,.2f} to "
            f"{me['equity']:z,.2f}."
        )

    def list_numbers(self) -> list[Headline]:
        shock = core.format_percent(self.shock)
        return [
            Headline("move", "final move", self.move, "percent", f"shock {shock}"),
            Headline("multiplier", "multiplier", self.multiplier, "turns", "final move over shock"),
            Headline(
                "reproduction",
                "reproduction",
                self.reproduction,
                "decimals",
                "forced notional by each unit of it; unstable from 1 on",
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
                "losses beyond what backed the accounts",
            ),
        ]

    def list_parts(self) -> list[Part]:
        return [self._show_ladder(), self._show_rounds(), self._show_payers()]

    def _show_ladder(self) -> Part:
        chart = ShownChart(
            key="ladder",
            title="Notional liquidated by price",
            caption="",
            table=self.ladder[["long", "short"]],
            kind="bars",
            colors={"long": "loss", "short": "accent"},
            x="price",
            y="notional",
            marks=(self.price, self.final_price),
            has_legend=True,
            mark_names=("before the shock", "after the cascade"),
            height=320,
        )
        return Part(
            key="ladder",
            title="The ladder of liquidations",
            lead="What is liquidated at each price, before the shock.",
            blocks=(chart,),
        )

    def _show_rounds(self) -> Part:
        heads = {
            "price": Head("price", "quoted", "price"),
            "accounts": Head("accounts", "liquidated", "count"),
            "long": Head("longs", "money", "money"),
            "short": Head("shorts", "money", "money"),
            "adl": Head("deleveraged", "money", "money"),
            "insurance": Head("fund", "money", "money"),
            "deficit": Head("deficit", "money", "money"),
        }
        price = ShownChart(
            key="rounds",
            title="Price after each round",
            caption="Round 0 is only the shock.",
            table=self.rounds["price"],
            kind="points",
            x="round",
            y="price",
            size="beside",
            height=280,
        )
        insurance = self.rounds["insurance"]
        fund = ShownChart(
            key="fund",
            title="Insurance fund after each round",
            caption="",
            table=insurance if insurance.nunique() > 1 else None,
            kind="steps",
            x="round",
            y="money",
            size="half",
            height=280,
        )
        table = ShownTable(
            self.rounds,
            "Rounds",
            "",
            Head("round", "", "count"),
            heads,
            tuple(heads),
            most=60,
        )
        note = (
            "Longs, shorts and deleveraged are closed notionals at the price before the shock, "
            "all positive; the fund is what is left of it, the deficit what bankrupt accounts "
            f"lacked. {MONEY}"
        )
        return Part(
            key="rounds",
            title="The rounds",
            lead="The price, and what each round liquidated.",
            blocks=(note, table, price, fund),
            shows="both",
        )

    def _show_payers(self) -> Part:
        paid = pd.DataFrame({"money": self.payers()}).rename(index=PAYERS)
        paid["share"] = paid["money"] / max(self.deficit, 1e-300)
        paid = paid[paid["money"] != 0.0]
        heads = {
            "money": Head("paid", "money", "money"),
            "share": Head("share", "of the deficit", "percent"),
        }
        none = "No account went bankrupt: there was no deficit to pay."
        table = ShownTable(paid, "Who paid", labels=Head("payer"), heads=heads, empty=none)
        return Part(
            key="payers",
            title="Who paid",
            lead="Where the deficit of bankrupt accounts went.",
            blocks=(table,),
            shows="both",
        )


def shock_crowd(
    crowd: Crowd,
    venue: Any,
    shock: Any,
    impact: Any,
    volume: Any,
    *,
    price: float | None,
    recovery: str | None,
    jump: bool,
    me: Result | Mapping[str, Any] | None,
    **terms: Any,
) -> Cascade:
    """Follow the cascade of one market; arguments as those of :func:`backtest.cascade`."""
    venue = read_venue(venue)
    check_venue(crowd, venue)
    start = find_price(price, crowd.price)
    known = replace(crowd, contract=venue.contract)
    curve = impact.curve(volume, crowd.market, venue.contract)
    core.Real(-1.0, 10.0, open_low=True).check("shock", shock)
    decay = 1.0
    if recovery is not None:
        decay = 0.5 ** (MINUTE / core.parse_duration(recovery, "recovery"))

    # The own account is the last one of the crowd.
    everyone = known
    my_account = None if me is None else read_own_account(me)
    if my_account is not None:
        columns: dict[str, Any] = {}
        for name, value in my_account.items():
            columns[name] = np.append(getattr(known, name), value)
        everyone = replace(known, **columns)

    books = Books(
        [read_terms(venue, curve)],
        np.array([start]),
        np.array([float(shock)]),
        quantity=everyone.quantity[:, None],
        entry=everyone.entry[:, None],
        money=everyone.collateral,
        safe=everyone.equity - everyone.collateral,
        is_jump=jump,
        **terms,
    )
    equity_before = books.measure_equity(books.start)
    final = books.run(decay)

    accounts = tabulate_accounts(books, venue)
    rounds = tabulate_rounds(books, start)
    mine_after = None
    if my_account is not None:
        mine_after = describe_mine(books, accounts, final, float(equity_before[-1]))

    final_price = float(final[0])
    multiplier = math.nan
    if shock != 0.0:
        multiplier = (final_price / start - 1.0) / shock
    return Cascade(
        rounds=rounds,
        accounts=accounts.head(len(known)),
        ladder=known.ladder(venue, price=start),
        settings={
            "crowd": {**known.origin, "content_hash": known.content_hash},
            "venue": venue.to_dict(),
            "impact": impact.to_dict() | {"law": type(impact).__name__},
            "curve": curve._asdict(),
            **terms,
            "recovery": recovery,
            "jump": bool(jump),
            "me": my_account,
        },
        price=start,
        shock=float(shock),
        final_price=final_price,
        multiplier=multiplier,
        reproduction=measure_reproduction(books),
        deficit=float(rounds["deficit"].sum()),
        liquidated=int(np.sum(books.failed[: len(known)] > 0)),
        me=mine_after,
        market=known.market,
    )


def check_venue(crowd: Crowd, venue: Venue) -> None:
    """Raise ParameterError if a crowd cannot be liquidated at a venue."""
    if venue.contract.is_spot:
        raise core.ParameterError("venue must have margined positions, got one of kind 'spot'")
    if venue.liquidation.full_below_health > 0.0:
        raise core.ParameterError(
            "liquidation.full_below_health must be left out for a crowd, "
            f"got {venue.liquidation.full_below_health:g}"
        )

    # Positions that were drawn by leverage are counted in contracts of the crowd.
    mine = crowd.contract
    theirs = venue.contract
    is_drawn = crowd.origin.get("made_from") == "leverage"
    if is_drawn and (mine.kind, mine.size) != (theirs.kind, theirs.size):
        raise core.ParameterError(
            f"contract must match the venue, {theirs.kind} of {theirs.size:g}, the crowd "
            f"has {mine.kind} of {mine.size:g}"
        )


def tabulate_accounts(books: Books, venue: Venue) -> pd.DataFrame:
    """Return a row per account of one market: what is left, and how it was closed."""
    with np.errstate(invalid="ignore", divide="ignore"):
        closed_at = price_of(venue.contract, books.closed_money / books.closed)
    columns = {
        "quantity": books.quantity[:, 0],
        "round": books.failed,
        "close_price": np.where(books.closed > 0.0, closed_at, np.nan),
        "deleveraged": books.deleveraged,
        "haircut": books.haircut,
    }
    return pd.DataFrame(columns)


def tabulate_rounds(books: Books, start: float) -> pd.DataFrame:
    """Return a row per round, after one of the shock alone."""
    first = dict.fromkeys(COLUMNS, 0.0)
    first["mark"] = start
    first["price"] = float(books.shocked[0])
    first["accounts"] = 0
    first["insurance"] = books.insurance
    rounds = pd.DataFrame([first, *books.rows])[list(COLUMNS)]
    return rounds.rename_axis("round")


def describe_mine(
    books: Books,
    accounts: pd.DataFrame,
    final: FloatArray,
    equity_before: float,
) -> dict[str, Any]:
    """Return what became of the last account, at the final prices."""
    row: dict[Any, Any] = accounts.iloc[-1].to_dict()
    equity = float(books.measure_equity(final)[-1])
    return {
        "liquidated": row["round"] > 0,
        **row,
        "round": int(row["round"]),
        "equity_before": equity_before,
        "equity": equity,
        "loss": equity_before - equity,
        "liquidation_price": float(books.find_liquidations(slice(None))[-1]),
    }


def measure_reproduction(books: Books) -> float:
    """Return the forced notional of the second round for each unit of the first's flow."""
    rows = books.rows
    if len(rows) < 2 or rows[0]["flow"] == 0.0:
        return 0.0
    return rows[1]["fresh"] / abs(rows[0]["flow"])


def read_own_account(me: Result | Mapping[str, Any]) -> dict[str, float]:
    """Return the fields of the crowd that one account has: of a mapping, or the end of a run."""
    if isinstance(me, Mapping):
        row = Crowd.from_positions(pd.DataFrame([dict(me)]))
        return {name: float(getattr(row, name)[0]) for name in ARRAYS_OF_CROWD}

    last = {name: float(values[-1]) for name, values in me.record.of_one().items()}
    quantity = last["quantity"]
    entry = last["entry"]
    if quantity == 0.0:
        raise core.ParameterError("me must be a run that ends with a position, got a flat end")

    # What backs the position, and what the account has beside it.
    if me.account.margin == "isolated":
        collateral = last["margin"]
        beside = last["cash"] + last["reserve"]
    else:
        collateral = last["cash"] + quantity * entry
        beside = last["reserve"]

    price = float(price_of(me.venue.contract, np.asarray(entry)))
    values = (quantity, price, collateral, collateral + beside)
    return dict(zip(ARRAYS_OF_CROWD, values, strict=True))
