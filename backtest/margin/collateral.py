"""Collateral: assets besides money that back cross positions at a rate; and rates of lending."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeAlias

import numpy as np

from backtest import core
from backtest.core import Fault, Faults, FloatArray, ParameterError, Real, Text, Value
from backtest.core.code_names import pd
from backtest.core.fields import COST, INNER_SHARE, SHARE, FloatSeries
from backtest.margin.portfolio_kernels import CollateralTables, compute_value_at_rate
from backtest.market import Market

Tier: TypeAlias = tuple[float, float, float]


class Tiers(core.Declaration):
    def read(self, value: Any) -> tuple[Tier, ...]:
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            raise Fault("must be a list of (floor, cap, rate), [(0, 1e6, 1.0)] for example")
        return tuple(map(read_tier, value))


def read_tier(row: Any) -> Tier:
    """Return floor, cap and rate of a tier as floats; raise Fault for anything else.

    A cap may be infinite, which TOML and JSON write as the text "inf"; a rate is from 0 to 1.
    """
    if not isinstance(row, Sequence) or isinstance(row, str) or len(row) != 3:
        rule = "must be rows of (floor, cap, rate), (0, 1e6, 0.95) for example"
        raise Fault(rule, core.repr_plain(row))

    floor, cap, rate = map(restore_infinity, row)
    try:
        return float(core.read_number(floor)), float(core.read_number(cap)), float(SHARE.read(rate))
    except Fault as fault:
        raise Fault(str(fault), core.repr_plain(row)) from None


def restore_infinity(number: Any) -> Any:
    """Return infinity for its text in TOML and JSON, and anything else as it is."""
    if number == "inf":
        return math.inf
    return number


class StoredMarket(Value, kw_only=True):
    instrument: str
    content: str


class Prices(core.Declaration):
    def read(self, value: Any) -> Market | StoredMarket | str | float:
        """Return the prices of a collateral as they were declared.

        A market, stored or not; the name of an instrument, whose price it then has; or a constant
        price over 0. Raises Fault for anything else.
        """
        if isinstance(value, Mapping):
            return StoredMarket.from_dict(value)
        if isinstance(value, Market | StoredMarket):
            return value
        if isinstance(value, str):
            return Text().read(value)

        # A bool is an int of Python, and no price.
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(Real(0, open_low=True).read(value))
        raise Fault("must be a Market, the name of an instrument of the run, or a number")


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
        Its price path in the settlement currency: a market, the name of an instrument of the run,
        or a constant price.
    rate : float
        The share of its value that backs positions, from 0 to 1.
    tiers : sequence of (floor, cap, rate)
        Instead of ``rate``: marginal rates by the value of the asset in the settlement currency,
        from 0 on, falling; nothing counts beyond the last cap.
    slippage : float
        How much under the open a conversion sells it, as a fraction of the price.
    cancels_risk : str, optional
        The group of a :class:`ScenarioMargin` whose losses its changes of value offset.
    """

    name: Annotated[str, Text()]
    amount: Annotated[float, Real()]
    prices: Annotated[StoredMarket | Market | str | float, Prices()]
    rate: Annotated[float | None, SHARE] = None
    tiers: Annotated[Sequence[Sequence[float]] | None, Tiers()] = None
    slippage: Annotated[float, COST] = 0.0
    cancels_risk: Annotated[str | None, Text()] = None

    def faults(self) -> Faults:
        """Yield the faults of what a collateral counts for: a rate or tiers, not both.

        Tiers (floor, cap, rate) must join, from 0 on, and their rates never rise.
        """
        if (self.rate is None) == (self.tiers is None):
            yield "rate", "must be given, or tiers, and not both"

        last_cap = 0.0
        last_rate = 1.0
        for k, (floor, cap, rate) in enumerate(self.tiers or ()):
            if floor != last_cap:
                yield f"tiers.{k}", f"must begin at {last_cap:.12g}, where the one before it ends"
            elif not cap > floor or rate > last_rate:
                yield f"tiers.{k}", "must end over its floor, and rates must fall"
            last_cap = cap
            last_rate = rate

    def value_at(self, price: float) -> float:
        """Return what it counts for at a price, in the settlement currency."""
        return float(compute_value_at_rate(pack_collateral([self]), 0, self.amount * price))

    def last_price(self) -> float:
        """Return its constant price, or the last mark close of its market."""
        if isinstance(self.prices, Market):
            return float(self.prices.mark_close[-1])
        if isinstance(self.prices, float):
            return self.prices
        raise ParameterError(
            f"collateral {self.name!r} needs a price to be valued, its prices are {self.prices!r}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain data; a market by its name and content hash."""
        data = super().to_dict()
        if isinstance(self.prices, Market):
            market = self.prices
            data["prices"] = {"instrument": market.instrument, "content": market.content_hash}
        return data


def check_collateral(
    collateral: Sequence[Collateral], instruments: Sequence[str], currency: str
) -> None:
    """Raise ParameterError if an asset is the account's money, or its prices are not in the run."""
    for asset in collateral:
        if currency and asset.name == currency:
            raise ParameterError(
                f"collateral must not be the money in which the account settles, got {currency!r}; "
                "add it to the capital"
            )
        if isinstance(asset.prices, str) and asset.prices not in instruments:
            raise ParameterError(
                f"prices of collateral {asset.name!r} must be a Market or name an instrument of "
                f"the run, got {asset.prices!r}{core.did_you_mean(asset.prices, instruments)}"
            )


def pack_rows(rows: Sequence[Sequence[float]], width: int = 1) -> tuple[core.IntArray, FloatArray]:
    """Return rows of different lengths as one array: their lengths, and the rows padded.

    The lengths have the shape (rows,). The array has the shape (rows, longest), at least ``width``
    columns; a row ends with copies of its last number, or is NaN if it has none.
    """
    counts = np.array([*map(len, rows)], dtype=np.int64)
    longest = int(counts.max(initial=width))
    padded = np.full((len(rows), longest), math.nan)

    # First all of the row is its last number, then its own numbers come.
    for k, row in enumerate(rows):
        if row:
            padded[k, :] = row[-1]
            padded[k, : len(row)] = row
    return counts, padded


def pack_collateral(
    collateral: Sequence[Collateral], groups: Sequence[str] = ()
) -> CollateralTables:
    """Return the rates of C assets as arrays of shape (C, tiers); a single rate is one tier.

    ``groups`` are those of scenarios, in their order: each asset gets the number of the group whose
    risk it cancels, -1 without one.
    """
    floors_by_asset = []
    caps_by_asset = []
    rates_by_asset = []
    for asset in collateral:
        # A single rate is one tier that holds for any value.
        tiers = asset.tiers or [(0.0, math.inf, float(asset.rate or 0.0))]
        floors, caps, rates = zip(*tiers, strict=True)
        floors_by_asset.append(floors)
        caps_by_asset.append(caps)
        rates_by_asset.append(rates)

    # Floors, caps and rates of an asset are as many, so one count is that of all three.
    counts, packed_floors = pack_rows(floors_by_asset)
    _, packed_caps = pack_rows(caps_by_asset)
    _, packed_rates = pack_rows(rates_by_asset)

    group_numbers = {group: number for number, group in enumerate(groups)}
    of_groups = [group_numbers.get(asset.cancels_risk or "", -1) for asset in collateral]
    return CollateralTables(
        counts=counts,
        floors=packed_floors,
        caps=packed_caps,
        rates=packed_rates,
        groups=np.array(of_groups, dtype=np.int64),
        slippages=np.array([asset.slippage for asset in collateral], dtype=np.float64),
    )


SLOPE = Real(0, 100)


class RateCurve(Value):
    """Rates per year of borrowing and supplying, by the utilization of a lending market.

    With U the utilization, borrowed over supplied, ``R = base + slope1 U / U_opt`` up to U_opt,
    then ``R = base + slope1 + slope2 (U - U_opt) / (1 - U_opt)``; suppliers earn ``R U (1 -
    reserve_factor)``. Rates are without compounding, charged for the time of each bar. Source: Aave
    (2022), Aave V3 Technical Paper, and ``DefaultReserveInterestRateStrategy`` in
    github.com/aave/aave-v3-core.

    Parameters
    ----------
    base : float
        The borrow rate at a utilization of 0.
    slope1, slope2 : float
        How much it rises up to the optimal utilization, and from there to a utilization of 1.
    optimal : float
        The utilization at the kink, over 0 and under 1.
    reserve_factor : float
        The share of the interest that the protocol keeps, from 0 to 1.

    Examples
    --------
    >>> curve = RateCurve(base=0.0, slope1=0.04, slope2=0.6, optimal=0.9, reserve_factor=0.1)
    >>> round(curve.borrow(0.45), 6), round(curve.borrow(0.95), 6), round(curve.supply(0.45), 6)
    (0.02, 0.34, 0.0081)
    """

    base: Annotated[float, SLOPE]
    slope1: Annotated[float, SLOPE]
    slope2: Annotated[float, SLOPE]
    optimal: Annotated[float, INNER_SHARE]
    reserve_factor: Annotated[float, Real(0, 1)] = 0.0

    def borrow(self, utilization: Any) -> Any:
        """Return the borrow rate per year at a utilization, or at each of an array or Series."""
        used = np.asarray(utilization, dtype=np.float64)
        # Written so that NaN is out of range too.
        bad = used[~((used >= 0.0) & (used <= 1.0))]
        if bad.size:
            raise ParameterError(f"utilization must be from 0 to 1, got {float(bad.flat[0]):g}")

        # The rate up to the kink, and from there on the steeper slope.
        up_to_kink = self.base + self.slope1 * np.minimum(utilization, self.optimal) / self.optimal
        part_beyond = np.maximum(utilization - self.optimal, 0.0) / (1.0 - self.optimal)
        return core.float_if_single(up_to_kink + self.slope2 * part_beyond)

    def supply(self, utilization: Any) -> Any:
        """Return the supply rate per year at a utilization, or at each of an array or Series."""
        return self.borrow(utilization) * utilization * (1.0 - self.reserve_factor)

    def rates(self, market: Market, utilization: float | str) -> dict[str, FloatSeries | float]:
        """Return ``borrow_rate`` and ``cash_rate`` of a venue, by a utilization through time.

        ``utilization`` is a constant, or the column of the market with the utilization known at
        each close: it sets the rate from the next open on, and the first bar has that of the
        second.
        """
        columns = market.columns
        if not isinstance(utilization, str):
            used: Any = core.ANY_NUMBER.check("utilization", utilization)
        elif utilization in columns:
            # The close of a bar is known from the next open on.
            closes = columns[utilization]
            used = pd.Series([*closes[:1], *closes[:-1]], core.utc_index(market.time))
        else:
            listed = ", ".join(columns) or "none"
            hint = core.did_you_mean(utilization, columns)
            raise core.DataError(f"market must have a column {utilization!r}, has {listed}{hint}")

        return {"borrow_rate": self.borrow(used), "cash_rate": self.supply(used)}
