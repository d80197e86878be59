"""Collateral: assets besides money that back cross positions at a rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeAlias

from backtest.base import (
    Number,
    ParameterError,
    Text,
    Value,
    check_number,
    did_you_mean,
    repr_plain,
)
from backtest.base.fields import COST, SHARE
from backtest.venue.collateral_value import compute_value_at_rate
from backtest.venue.lending import PriceHistory
from backtest.venue.portfolio_tables import pack_collateral

OWN_EQUITY = ("equity", "account", "portfolio")

Tier: TypeAlias = tuple[float, float, float]


@dataclass(frozen=True)
class Tiers:
    kind: ClassVar[type] = object

    def check(self, name: str, value: Any, *, where: str) -> tuple[Tier, ...]:
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            raise ParameterError(
                f"{name} must be a list of (floor, cap, rate), got {repr_plain(value)}",
                where=where,
                cure="give tiers=[(0, 1e6, 1.0), (1e6, 2e6, 0.95)]",
            )
        rows = tuple(read_tier(row, where=f"{where}, row {k + 1}") for k, row in enumerate(value))
        defects = [
            f"row {k + 1}: {defect}"
            for k, row in enumerate(rows)
            for defect in find_defects(rows[k - 1] if k else None, row)
        ]
        if defects:
            raise ParameterError(
                f"{name} must be rows that follow each other, with falling rates: "
                + "; ".join(defects),
                where=where,
                cure="correct those rows; amounts beyond the last cap do not count",
            )
        return rows


def read_tier(row: Any, *, where: str) -> Tier:
    if not isinstance(row, Sequence) or isinstance(row, str) or len(row) != 3:
        raise ParameterError(
            f"a tier must be (floor, cap, rate), got {repr_plain(row)}",
            where=where,
            cure="write (0, 1e6, 0.95)",
        )
    floor, cap, rate = (math.inf if each == "inf" else each for each in row)
    return (
        float(check_number("floor", floor, where=where)),
        float(check_number("cap", cap, where=where)),
        float(SHARE.check("rate", rate, where=where)),
    )


def find_defects(before: Tier | None, row: Tier) -> list[str]:
    floor, cap, rate = row
    begin = 0.0 if before is None else before[1]
    rules = (
        (floor == begin,
         f"floor must be {begin:.12g}, where the one before it ends, got {floor:.12g}"),
        (cap > floor, f"cap must be over its floor, got {cap:.12g}"),
        (before is None or rate <= before[2],
         f"rate must be at most the one before it, got {rate:g}"),
    )  # fmt: skip
    return [problem for holds, problem in rules if not holds]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class StoredMarket(Value):
    instrument: str
    content: str

    is_written_plainly: ClassVar[bool] = True


@dataclass(frozen=True)
class Prices:
    kind: ClassVar[type] = object

    def check(
        self, name: str, value: object, *, where: str
    ) -> PriceHistory | StoredMarket | str | float:
        if isinstance(value, PriceHistory):
            if value.source.endswith(".index(...)"):
                raise_cyclic(repr_plain(value), where)
            return value
        if isinstance(value, StoredMarket):
            return value
        if isinstance(value, str):
            if value.lower() in OWN_EQUITY:
                raise_cyclic(repr_plain(value), where)
            return Text().check(name, value, where=where)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(Number(0, open_low=True).check(name, value, where=where))
        raise ParameterError(
            f"{name} must be a Market, the name of an instrument of the run, or a number, "
            f"got {value!r:.80}",
            where=where,
            cure="give prices=bt.Market.load(...), prices='BTCUSDT', or prices=1.0",
        )


def raise_cyclic(found: str, where: str) -> None:
    raise ParameterError(
        f"prices must not be those of the account's own equity, of which the collateral is a part, "
        f"got {found}",
        where=where,
        cure="give the market of an asset that is held beside the account's money",
    )


@dataclass(frozen=True, eq=False, repr=False)
class Collateral(Value):
    """A collateral asset of an account; policies do not trade it.

    It counts in full in the equity, and at its rate in what backs the cross positions. A debt, a
    negative amount, counts in full in both.

    Parameters
    ----------
    name : str
        What it is called in tables and events.
    amount : float
        Units of the asset; negative for a debt.
    prices : Market, str or float
        Its price path, in the currency of the pool that it serves: a market, the name of an
        instrument of the run, or a constant price.
    rate : float
        The share of its value that backs positions, from 0 to 1.
    tiers : sequence of (floor, cap, rate)
        Instead of ``rate``: marginal rates by the value of the asset in the settlement currency,
        from 0 on, falling; nothing counts beyond the last cap.
    slippage : float
        How much under the open a conversion sells it, as a fraction of the price.
    cancels_risk : str, optional
        The group of a :class:`ScenarioMargin` whose losses its changes of value offset.
    currency : str, optional
        In an account with several currencies, the one whose pool it serves, in which its prices
        are. Default: that of the account.

    Examples
    --------
    >>> Collateral("USDC", amount=1000.0, prices=1.0, rate=0.99).value_at(1.0)
    990.0
    """

    name: Annotated[str, Text()]
    amount: Annotated[float, Number()]
    prices: Annotated[StoredMarket | PriceHistory | str | float, Prices()]
    rate: Annotated[float | None, SHARE] = None
    tiers: Annotated[Sequence[Sequence[float]] | None, Tiers()] = None
    slippage: Annotated[float, COST] = 0.0
    cancels_risk: Annotated[str | None, Text()] = None
    currency: Annotated[str | None, Text()] = None

    _omitted = frozenset({"currency"})

    def _check_rules(self) -> None:
        if (self.rate is None) == (self.tiers is None):
            found = "got neither" if self.rate is None else "got both"
            raise ParameterError(
                f"either rate or tiers must be given, {found}",
                where=f"Collateral {self.name!r}",
                cure="give rate=0.95, or tiers=[(0, 1e6, 1.0), (1e6, 2e6, 0.95)]",
            )

    def list_tiers(self) -> tuple[Tier, ...]:
        """Return the tiers as (floor, cap, rate); a rate is one tier of any value."""
        if self.tiers is None:
            return ((0.0, math.inf, float(self.rate or 0.0)),)
        return tuple((row[0], row[1], row[2]) for row in self.tiers)

    def value_at(self, price: float) -> float:
        """Return what it counts for at a price, in the settlement currency."""
        return float(compute_value_at_rate(pack_collateral([self]), 0, self.amount * price))

    def last_price(self) -> float:
        """Return its constant price, or the last mark close of its market.

        Raises ParameterError if ``prices`` only names them.
        """
        if isinstance(self.prices, PriceHistory):
            return float(self.prices.mark_close[-1])
        if isinstance(self.prices, float):
            return self.prices
        raise ParameterError(
            f"a price is needed to value collateral whose prices are {self.prices!r}",
            where=f"Collateral {self.name!r}",
            cure="give the prices of collateral, one for each",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain data; a market by its name and content hash."""
        data = super().to_dict()
        if isinstance(self.prices, PriceHistory):
            stored = StoredMarket(
                instrument=self.prices.instrument, content=self.prices.content_hash
            )
            data["prices"] = stored.to_dict()
        return data


def check_collateral(
    collateral: Sequence[Collateral], instruments: Sequence[str], currency: str
) -> None:
    """Require prices of the instruments of a run, and no collateral in the account's own money.

    ``currency`` is the settlement currency, empty if it is not known.
    """
    for each in collateral:
        if currency and each.name == currency:
            raise ParameterError(
                f"collateral must not be the money of the account, got {each.name!r}, in which the "
                "account settles",
                where=f"Collateral {each.name!r}",
                cure="add it to the capital of the account",
            )
        if isinstance(each.prices, str) and each.prices not in instruments:
            raise ParameterError(
                f"prices must name an instrument of the run, got {each.prices!r}"
                + did_you_mean(each.prices, instruments),
                where=f"Collateral {each.name!r}",
                cure=f"use {', '.join(instruments)}, or give a Market",
            )
