"""Cascade: the rounds of a cascade, what they did to each account, and who paid."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd

from backtest.base import (
    Head,
    Headline,
    ParameterError,
    Part,
    SavedResult,
    ShownChart,
    ShownTable,
    checked,
    format_percent,
    from_plain,
    list_records,
    to_plain,
)

if TYPE_CHECKING:
    from backtest.base import FloatArray
    from backtest.crowd.crowd import Crowd

MOST_ROWS = 60
"""The rounds that a page shows."""
PAYERS = {
    "fund_paid": "insurance fund",
    "adl_paid": "deleveraged winners",
    "haircuts": "haircuts on profits",
    "unpaid": "unpaid: the venue owes it",
}


class Cascade(SavedResult):
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
    manifest : mapping
        Crowd, venue, arguments, versions and numbers.
    """

    kind = "cascade"
    table_names = ("rounds", "accounts", "ladder")

    @checked
    def __init__(
        self,
        tables: Mapping[str, pd.DataFrame],
        manifest: Mapping[str, Any],
        crowd: Crowd | None = None,
    ) -> None:
        self.tables = dict(tables)
        self.manifest = manifest
        self._crowd = crowd

    @cached_property
    def outcome(self) -> dict[str, Any]:
        """The numbers of the result by name."""
        found: dict[str, Any] = from_plain(self.manifest["outcome"])
        return found

    @property
    def crowd(self) -> Crowd:
        """The crowd, at the venue of the cascade; not stored with a saved one."""
        if self._crowd is None:
            raise ParameterError("a loaded cascade has no crowd; its ladder is in Cascade.ladder")
        return self._crowd

    @property
    def rounds(self) -> pd.DataFrame:
        """The rounds, one row each."""
        return self.tables["rounds"]

    @property
    def accounts(self) -> pd.DataFrame:
        """The accounts, one row each."""
        return self.tables["accounts"]

    @property
    def ladder(self) -> pd.DataFrame:
        """The notional liquidated by price before the shock; see :meth:`Crowd.ladder`."""
        return self.tables["ladder"].set_index("price")

    @property
    def haircuts(self) -> FloatArray:
        """What was taken from the profit of each account, in the settlement currency."""
        return self.accounts["haircut"].to_numpy(dtype=np.float64)

    @property
    def price(self) -> float:
        """The price before the shock."""
        return float(self.outcome["price"])

    @property
    def shock(self) -> float:
        """The move that began it, a fraction."""
        return float(self.outcome["shock"])

    @property
    def final_price(self) -> float:
        """The price after the last round, at which no account fails."""
        return float(self.outcome["final_price"])

    @property
    def multiplier(self) -> float:
        """The final move over the shock; 1 if nobody was liquidated."""
        return float(self.outcome["multiplier"])

    @property
    def reproduction(self) -> float:
        """The forced notional that one unit of forced notional causes at the start."""
        return float(self.outcome["reproduction"])

    @property
    def deficit(self) -> float:
        """Losses of bankrupt accounts beyond what backed them, in the settlement currency."""
        return float(self.outcome["deficit"])

    @property
    def days_empty(self) -> float:
        """The time in days during which rounds left the insurance fund empty."""
        return float(self.outcome["days_empty"])

    @property
    def clearing_prices(self) -> tuple[float, ...]:
        """All prices at which the market clears without recovery, the nearest first."""
        return tuple(self.outcome["clearing_prices"])

    @property
    def is_ambiguous(self) -> bool:
        """Whether there is more than one clearing price."""
        return len(self.clearing_prices) > 1

    @property
    def me(self) -> dict[str, Any] | None:
        """The outcome of the own account; None without one.

        ``liquidated``, in which ``round``, the ``quantity`` left, the mean ``close_price``,
        ``equity_before`` the shock and ``equity`` now, their difference ``loss``, contracts
        ``deleveraged``, the ``haircut``, and the ``liquidation_price`` of what is left.
        """
        found: dict[str, Any] | None = self.outcome["me"]
        return found

    def payers(self) -> dict[str, float]:
        """Return who paid the deficit, in the settlement currency."""
        return {name: float(self.rounds[name].sum()) for name in PAYERS}

    @property
    def title(self) -> str:
        """The accounts and the shock."""
        shock = format_percent(self.shock, is_signed=True)
        return f"Cascade of {self.manifest['crowd'].get('accounts', 0):,} accounts after {shock}"

    @property
    def heading(self) -> str:
        """The title of the page."""
        return self.title

    @property
    def about(self) -> str:
        """That there are positions and no market."""
        return "" if self.manifest["data"]["bars"] else "Positions given, without a market"

    @property
    def note(self) -> str:
        """The final move over the shock."""
        return f"{self.multiplier:.2f} times the shock"

    @property
    def move(self) -> float:
        """The move of the price from before the shock to the end, a fraction."""
        return self.final_price / self.price - 1.0

    @property
    def verdict(self) -> str:
        """How far the liquidations moved the price."""
        text = (
            f"After a shock of {format_percent(self.shock)}, {len(self.rounds) - 1} rounds of "
            f"liquidations moved the price by {format_percent(self.move)} in all."
        )
        if self.is_ambiguous:
            text += " The market also clears at other prices; the nearest was taken."
        return text

    @property
    def details(self) -> str:
        """What happened to the own account."""
        me = self.me
        if me is None:
            return ""
        fate = f"was liquidated in round {me['round']}" if me["liquidated"] else "survived"
        return f"The own account {fate}: {me['equity_before']:,.2f} became {me['equity']:,.2f}."

    def list_numbers(self) -> list[Headline]:
        """Return the move, the two multipliers, the accounts liquidated, and the deficit."""
        shock, n = format_percent(self.shock), f"of {len(self.accounts):,} accounts"
        beyond = "losses beyond what backed the accounts"
        return [
            Headline("move", "final move", self.move, "percent", f"shock {shock}"),
            Headline("multiplier", "multiplier", self.multiplier, "decimals",
                     "final move over shock", "less"),
            Headline("reproduction", "reproduction", self.reproduction, "decimals",
                     "unstable from 1 on", "less"),
            Headline("liquidated", "liquidated", self.outcome["liquidated"], "count", n, "less"),
            Headline("deficit", "deficit", self.deficit, "count", beyond, "less"),
        ]  # fmt: skip

    def list_parts(self) -> list[Part]:
        """Return the ladder before the shock, the rounds, and who paid."""
        ends = "Solid and dashed: before the shock, and where the cascade ended."
        price, fund = self.rounds["price"], self.rounds["insurance"]
        paid = pd.DataFrame({"money": self.payers()}).rename(index=PAYERS)
        paid["share"] = paid["money"] / max(self.deficit, 1e-300)
        return [
            Part("ladder", "The ladder of liquidations", "What is liquidated at each price, before "
                 "the shock.", (
                ShownChart("ladder", "Notional liquidated by price", ends,
                           self.ladder[["long", "short"]], "bars", {"long": "loss",
                           "short": "accent"}, "price", "notional",
                           marks=(self.price, self.final_price), has_legend=True,
                           height=320),
            )),
            Part("rounds", "The rounds", "The price, and what each round liquidated.", (
                ShownChart("rounds", "Price after each round", "Round 0 is the shock alone.",
                           price, "points", x="round", y="price", size="half", height=280),
                ShownChart("fund", "Insurance fund after each round", "Empty where the fund is "
                           "infinite.", fund, "steps", x="round", y="money", size="half",
                           height=280),
                self._tabulate_rounds(),
            )),
            Part("payers", "Who paid", "Where the deficit of bankrupt accounts went.",
                 (ShownTable(paid, "Who paid", labels=Head("payer"),
                             heads={"money": Head("money", "", "count")}),)),
        ]  # fmt: skip

    def _tabulate_rounds(self) -> ShownTable:
        rounds, half = self.rounds, MOST_ROWS // 2
        titles = {"accounts": "accounts", "long": "longs", "short": "shorts",
                  "adl": "deleveraged", "insurance": "fund", "deficit": "deficit"}  # fmt: skip
        heads = {name: Head(title, "", "count") for name, title in titles.items()}
        note = "Notionals at the price before the shock."
        if len(rounds) > MOST_ROWS:
            note += f" The first and last {half} of {len(rounds) - 1} rounds."
            rounds = pd.concat([rounds.head(half), rounds.tail(half)])
        return ShownTable(rounds, "Rounds", note, Head("round", "", "count"), heads,
                          ("price", *titles))  # fmt: skip

    @classmethod
    def _read_line(cls, folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG003
        found = cls({}, manifest)
        return {"policy": found.title, "title": found.title, "note": found.note}

    def to_dict(self) -> dict[str, Any]:
        """Return the result as data for JSON; tables of more than 10,000 rows are left out."""
        tables = {name: list_records(table) for name, table in self.tables.items()}
        data: dict[str, Any] = to_plain(
            {
                self.kind: self.manifest,
                "verdict": self.verdict,
                "numbers": {each.name: each.value for each in self.list_numbers()},
                **{name: rows for name, rows in tables.items() if rows is not None},
            }
        )
        return data

    def _lay_out(self) -> dict[str, pd.DataFrame]:
        return {name: self.tables[name] for name in self.table_names}

    @classmethod
    def _read_back(
        cls,
        manifest: dict[str, Any],
        tables: Mapping[str, pd.DataFrame],
        folder: Path,  # noqa: ARG003
    ) -> Self:
        tables["rounds"].index.name = "round"
        return cls(tables, manifest)

    def __repr__(self) -> str:
        return f"<Cascade of {format_percent(self.shock)}, {len(self.rounds) - 1} rounds>"

    def summary(self) -> str:
        """Return the outcome as text."""
        forced = float(self.rounds["long"].sum() + self.rounds["short"].sum())
        adl = float(self.rounds["adl"].sum())
        lines = [
            self.verdict,
            f"  multiplier       {self.multiplier:.3f}",
            f"  reproduction     {self.reproduction:.3f}",
            f"  liquidated       {self.outcome['liquidated']:,} of {len(self.accounts):,}, "
            f"notional {forced:,.0f}; deleveraged {adl:,.0f}",
            f"  deficit          {self.deficit:,.0f}",
        ]
        paid = self.payers()
        lines += [f"    {PAYERS[name]:<28}{paid[name]:,.0f}" for name in PAYERS if paid[name]]
        return "\n".join([*lines, *filter(None, [self.details])])
