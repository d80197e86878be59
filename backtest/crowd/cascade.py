"""cascade(): a shock, the liquidations it causes, and those that they cause."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from backtest import base
from backtest.base.units import MINUTE
from backtest.crowd.crowd import ARRAYS_OF_CROWD, Crowd, find_price, to_price, to_value
from backtest.crowd.rounds import (
    Books,
    Impact,
    Round,
    Terms,
    check_books,
    do_round,
    find_failing,
    open_books,
    read_terms,
)
from backtest.engine import Result, describe_history
from backtest.venue import Venue, read_rules

MOST_ROUNDS = 200_000
MOST_ROWS = 60
"""The rounds that a page shows."""
PAYERS = {
    "fund_paid": "insurance fund",
    "adl_paid": "deleveraged winners",
    "haircuts": "haircuts on profits",
    "unpaid": "unpaid: the venue owes it",
}


@dataclass(frozen=True, eq=False, repr=False)
class Cascade(base.SettingsResult):
    """The outcome of :func:`backtest.cascade`.

    Attributes
    ----------
    rounds : DataFrame
        Row 0 is the shock alone, then a row per round: ``mark`` (the price at which accounts
        failed) and ``price`` (after their flow); ``long`` and ``short``, the notionals liquidated
        in the market, and ``adl``, closed against winners, all at the price before the shock;
        ``insurance``, the fund afterwards; ``fees``; ``deficit``, what bankrupt accounts lacked,
        and who paid it: ``fund_paid``, ``adl_paid``, ``haircuts``, ``unpaid``; and
        ``off``, the error of the books as a share.
    accounts : DataFrame
        A row per account: ``quantity`` left, the ``round`` in which it failed (0: never),
        ``close_price``, contracts ``deleveraged``, and the ``haircut`` in money.
    ladder : DataFrame
        The notional liquidated by price before the shock; see :meth:`Crowd.ladder`.
    settings : dict
        Crowd, venue and arguments.
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
        The accounts of the crowd that were liquidated.
    me : dict or None
        The own account: ``liquidated``, in which ``round``, the ``quantity`` left, the mean
        ``close_price``, ``equity_before`` the shock and ``equity`` now, their difference ``loss``,
        contracts ``deleveraged``, the ``haircut``, and the ``liquidation_price`` of what is left.
    crowd : Crowd or None
        The crowd, at the venue of the cascade; None for a loaded one.
    """

    rounds: pd.DataFrame
    accounts: pd.DataFrame
    ladder: pd.DataFrame
    settings: dict[str, Any]
    price: float
    shock: float
    final_price: float
    multiplier: float
    reproduction: float
    deficit: float
    liquidated: int
    me: dict[str, Any] | None = None
    crowd: Crowd | None = None

    kind = "cascade"
    table_names = ("rounds", "accounts", "ladder")
    numbers = ("price", "shock", "final_price", "multiplier", "reproduction", "deficit",
               "liquidated", "me")  # fmt: skip

    def describe_data(self) -> Mapping[str, Any]:
        crowd = self.crowd
        market = None if crowd is None else crowd.market
        found = dict(describe_history(market))
        if crowd is not None and market is None:
            found |= {"source": repr(crowd), "content_hash": crowd.content_hash}
        return found

    @property
    def haircuts(self) -> base.FloatArray:
        """What was taken from the profit of each account, in the settlement currency."""
        return self.accounts["haircut"].to_numpy(dtype=np.float64)

    def payers(self) -> dict[str, float]:
        """Return who paid the deficit, in the settlement currency."""
        return {name: float(self.rounds[name].sum()) for name in PAYERS}

    @property
    def title(self) -> str:
        shock = base.format_percent(self.shock, is_signed=True)
        return f"Cascade of {self.settings['crowd'].get('accounts', 0):,} accounts after {shock}"

    @property
    def heading(self) -> str:
        return self.title

    @property
    def about(self) -> str:
        return "" if self.manifest["data"]["bars"] else "Positions given, without a market"

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
            f"After a shock of {base.format_percent(self.shock)}, {len(self.rounds) - 1} rounds of "
            f"liquidations moved the price by {base.format_percent(self.move)} in all."
        )

    @property
    def details(self) -> str:
        me = self.me
        if me is None:
            return ""
        fate = f"was liquidated in round {me['round']}" if me["liquidated"] else "survived"
        return f"The own account {fate}: {me['equity_before']:,.2f} became {me['equity']:,.2f}."

    def list_numbers(self) -> list[base.Headline]:
        shock, n = base.format_percent(self.shock), f"of {len(self.accounts):,} accounts"
        beyond = "losses beyond what backed the accounts"
        return [
            base.Headline("move", "final move", self.move, "percent", f"shock {shock}"),
            base.Headline("multiplier", "multiplier", self.multiplier, "decimals",
                     "final move over shock", "less"),
            base.Headline("reproduction", "reproduction", self.reproduction, "decimals",
                     "unstable from 1 on", "less"),
            base.Headline("liquidated", "liquidated", self.liquidated, "count", n, "less"),
            base.Headline("deficit", "deficit", self.deficit, "count", beyond, "less"),
        ]  # fmt: skip

    def list_parts(self) -> list[base.Part]:
        ends = "Solid and dashed: before the shock, and where the cascade ended."
        price, fund = self.rounds["price"], self.rounds["insurance"]
        paid = pd.DataFrame({"money": self.payers()}).rename(index=PAYERS)
        paid["share"] = paid["money"] / max(self.deficit, 1e-300)
        return [
            base.Part("ladder", "The ladder of liquidations", "What is liquidated at each price, "
                 "before the shock.", (
                base.ShownChart("ladder", "Notional liquidated by price", ends,
                           self.ladder[["long", "short"]], "bars", {"long": "loss",
                           "short": "accent"}, "price", "notional",
                           marks=(self.price, self.final_price), has_legend=True,
                           height=320),
            )),
            base.Part("rounds", "The rounds", "The price, and what each round liquidated.", (
                base.ShownChart("rounds", "Price after each round", "Round 0 is the shock alone.",
                           price, "points", x="round", y="price", size="half", height=280),
                base.ShownChart("fund", "Insurance fund after each round", "Empty where the fund "
                           "is infinite.", fund, "steps", x="round", y="money", size="half",
                           height=280),
                self._tabulate_rounds(),
            ), shows="both"),
            base.Part("payers", "Who paid", "Where the deficit of bankrupt accounts went.",
                 (base.ShownTable(paid, "Who paid", labels=base.Head("payer"),
                             heads={"money": base.Head("money", "", "count")}),), shows="both"),
        ]  # fmt: skip

    def _tabulate_rounds(self) -> base.ShownTable:
        rounds, half = self.rounds, MOST_ROWS // 2
        titles = {"accounts": "accounts", "long": "longs", "short": "shorts",
                  "adl": "deleveraged", "insurance": "fund", "deficit": "deficit"}  # fmt: skip
        heads = {name: base.Head(title, "", "count") for name, title in titles.items()}
        note = "Notionals at the price before the shock."
        if len(rounds) > MOST_ROWS:
            note += f" The first and last {half} of {len(rounds) - 1} rounds."
            rounds = pd.concat([rounds.head(half), rounds.tail(half)])
        return base.ShownTable(rounds, "Rounds", note, base.Head("round", "", "count"), heads,
                          ("price", *titles))  # fmt: skip

    def __repr__(self) -> str:
        return f"<Cascade of {base.format_percent(self.shock)}, {len(self.rounds) - 1} rounds>"


@base.record_making
@base.checked_only("progress", "crowd", "venue", "impact")
def cascade(
    crowd: Crowd,
    venue: Venue,
    *,
    shock: float,
    impact: Impact,
    price: float | None = None,
    volume: float | None = None,
    insurance: float = 0.0,
    adl: str | None = "queue",
    recovery: str | None = None,
    jump: bool = False,
    me: Result | Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Cascade:
    """Shock a crowd of accounts, and follow its liquidations until no account fails.

    Parameters
    ----------
    crowd : Crowd
        The accounts.
    venue : Venue
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
        How bankrupt positions that the fund cannot cover are closed: ``"queue"`` (against winners,
        highest return x leverage first), ``"pro-rata"`` (against all of the other side), or None
        (in the market; the shortfall is taken from profits).
    recovery : str, optional
        The half-life of the impact, in rounds of a minute; None: it stays.
    jump : bool
        Whether the shock is a jump, on whose way nobody trades: all that fail in it trade at its
        end, and many are bankrupt. Otherwise the price moves through it, and each account trades
        at its liquidation price, or behind those that fail before it.
    me : Result or mapping, optional
        One's own account in the crowd: the state of a run at its end, or side, quantity, entry and
        collateral.
    progress : callable, optional
        Called with rounds done, and 0 as their number in all is not known.

    Notes
    -----
    The price is ``price (1 + shock - fall(Q))`` with Q the net flow that was forced so far, in
    notional at the price before the shock. Each round closes all accounts that fail at its price.
    So the last price is the clearing price nearest to that before the shock.
    """
    if venue.contract.is_spot:
        raise base.ParameterError("venue must have margined positions, got one of kind 'spot'")
    start = find_price(price, None, crowd.price)
    known = crowd.at_venue(venue)
    curve = impact.curve(volume, crowd.market, venue.contract)
    base.Number(-1.0, 10.0, open_low=True).check("shock", shock)
    base.check_range("insurance", insurance, low=0.0)
    if adl is not None:
        base.Choice("queue", "pro-rata").check("adl", adl)
    decay = 1.0 if recovery is None else 0.5 ** (MINUTE / base.parse_duration(recovery, "recovery"))
    own = read_own_account(me)
    terms = read_terms(venue, curve, start, float(shock), adl, jump=jump)
    everyone = known if own is None else join(known, own)
    books = open_books(everyone, terms.rules, insurance, start)
    rows, outcomes, final = run_rounds(books, terms, decay, progress)
    rounds = pd.DataFrame(rows)
    rounds.index.name = "round"
    first = outcomes[0].flow if outcomes else 0.0
    settings = {
        "crowd": {**known.origin, "content_hash": known.content_hash},
        "venue": venue.to_dict(),
        "impact": impact.to_dict() | {"law": type(impact).__name__},
        "curve": curve._asdict(),
        "insurance": insurance,
        "adl": adl,
        "recovery": recovery,
        "jump": bool(jump),
        "me": own,
    }
    return Cascade(
        rounds=rounds,
        accounts=tabulate_outcomes(books, len(known)),
        ladder=replace(known, price=start).ladder(),
        settings=settings,
        price=start,
        shock=float(shock),
        final_price=final,
        multiplier=(final / start - 1.0) / shock if shock != 0.0 else math.nan,
        reproduction=outcomes[1].fresh / abs(first) if len(outcomes) > 1 and first else 0.0,
        deficit=float(rounds["deficit"].sum()),
        liquidated=int(np.sum(books.first_round[: len(known)] > 0)),
        me=None if own is None else describe_own_account(books, start, final),
        crowd=known,
    )


def run_rounds(
    books: Books, terms: Terms, decay: float, progress: Callable[[int, int], None] | None
) -> tuple[list[dict[str, float]], list[Round], float]:
    mark, flow, level = terms.shocked, 0.0, terms.start
    names = ("accounts", "long", "short", "insurance", "adl", "fees", "deficit", *PAYERS, "off")
    rows = [{"mark": terms.start, "price": mark} | dict.fromkeys(names, 0.0)]
    rows[0] |= {"accounts": 0, "insurance": books.fund}
    outcomes: list[Round] = []
    while len(failing := find_failing(books, mark)):
        if len(rows) > MOST_ROUNDS:
            raise base.AccountingError(
                f"a cascade did not end in {MOST_ROUNDS:,} rounds, {len(failing)} still fail"
            )
        value = float(to_value(terms.rules, mark))
        before = books.sum_money(value)
        done = do_round(books, terms, failing, mark, flow, level, len(rows))
        off = check_books(books, value, before, len(rows))
        flow, level = flow + done.flow, done.level
        fall = float(terms.curve.fall(flow))
        found = {"mark": mark, "price": terms.find_price(fall), "accounts": len(failing)}
        found |= {"insurance": books.fund, "off": off}
        rows.append({name: found.get(name, getattr(done, name, 0.0)) for name in rows[0]})
        outcomes.append(done)
        if decay < 1.0:
            fall *= decay
            flow = terms.curve.flow_of(fall)
        mark = terms.find_price(fall)
        if progress is not None:
            progress(len(rows) - 1, 0)
    return rows, outcomes, mark


def tabulate_outcomes(books: Books, n: int) -> pd.DataFrame:
    closed = books.closed[:n]
    with np.errstate(invalid="ignore", divide="ignore"):
        value = books.closed_money[:n] / closed
    return pd.DataFrame(
        {
            "quantity": books.quantity[:n],
            "round": books.first_round[:n],
            "close_price": np.where(closed > 0.0, to_price(books.rules, value), np.nan),
            "deleveraged": books.deleveraged[:n],
            "haircut": books.haircut[:n],
        }
    )


# ----- one's own account -----


def join(crowd: Crowd, own: Mapping[str, float]) -> Crowd:
    added: dict[str, Any] = {
        name: np.append(getattr(crowd, name), own[name]) for name in ARRAYS_OF_CROWD
    }
    return replace(crowd, **added)


def read_own_account(me: Result | Mapping[str, Any] | None) -> dict[str, float] | None:
    if me is None or isinstance(me, Result):
        return None if me is None else read_result(me)
    if isinstance(me, Mapping):
        row = Crowd.from_positions(pd.DataFrame([dict(me)]))
        return {name: float(getattr(row, name)[0]) for name in ARRAYS_OF_CROWD}
    raise base.ParameterError(
        "me must be a Result, or a mapping of side, quantity, entry and collateral, got "
        f"{base.repr_plain(me)}"
    )


def read_result(result: Result) -> dict[str, float]:
    last = {name: float(values[-1]) for name, values in result.record.of_one().items()}
    quantity, entry = last["quantity"], last["entry"]
    if quantity == 0.0:
        raise base.ParameterError("me must be a run that ends with a position, got a flat end")
    if result.account.margin == "isolated":
        collateral, more = last["margin"], last["cash"] + last["reserve"]
    else:
        collateral, more = last["cash"] + quantity * entry, last["reserve"]
    price = float(to_price(read_rules(result.venue), np.asarray(entry)))
    return dict(zip(ARRAYS_OF_CROWD, (quantity, price, collateral, collateral + more), strict=True))


def describe_own_account(books: Books, start: float, final: float) -> dict[str, Any]:
    moved = float(to_value(books.rules, start)) - books.entry[-1]
    before = float(books.first_equity[-1] + books.first_quantity[-1] * moved)
    after = float(books.equity(float(to_value(books.rules, final)))[-1])
    row = tabulate_outcomes(books, len(books.quantity)).iloc[-1]
    return {
        "liquidated": bool(row["round"] > 0),
        "round": int(row["round"]),
        "quantity": float(row["quantity"]),
        "close_price": float(row["close_price"]),
        "equity_before": before,
        "equity": after,
        "loss": before - after,
        "deleveraged": float(row["deleveraged"]),
        "haircut": float(row["haircut"]),
        "liquidation_price": float(books.liquidation[-1]),
    }
