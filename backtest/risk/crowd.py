"""Crowd: the leveraged accounts of one market, as arrays; their liquidation prices and ladder.

The formulas of margin are those of :mod:`backtest.venue`, on arrays. An account's money is kept as
``beside``, its equity without the position: ``equity(P) = beside + q u(P)``.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from backtest import core
from backtest import margin as margins
from backtest.core.units import TOLERANCE
from backtest.market import Market, Markets, unwrap_market
from backtest.results.tables import price_of, value_of
from backtest.venue import Contract, Venue, read_venue

MOST_ACCOUNTS = 10_000_000
COLUMNS = ("side", "quantity", "entry", "collateral")
ARRAYS_OF_CROWD = ("quantity", "entry", "collateral", "equity")
LEAST_SKEW = 0.005
"""A difference of leverage below it, in x, is shown as none."""


class Skew(dict[str, float]):
    """The numbers of :meth:`Crowd.skew` by name; ``str`` says them in a sentence, with units."""

    def __init__(self, within: float, **numbers: float) -> None:
        super().__init__(numbers)
        self.span = within

    def __str__(self) -> str:
        return f"{self._say_leverage()}; {self._say_liquidations()}."

    def _say_leverage(self) -> str:
        gap = self["leverage"]
        if math.isnan(gap):
            return "Only one side is held, so leverage has no skew"
        if abs(gap) < LEAST_SKEW:
            return "Longs and shorts have the same leverage"

        side = "less"
        if gap > 0.0:
            side = "more"
        return f"Longs have {abs(gap):.2f}x {side} leverage than shorts ({gap:+z.2f}x)"

    def _say_liquidations(self) -> str:
        log_ratio = self["liquidations"]  # below the price, over above it
        span = f"within {100.0 * self.span:g} % of the price"
        if math.isnan(log_ratio):
            return f"nothing is liquidated {span}"

        more, less = "above", "below"
        if log_ratio > 0.0:
            more, less = "below", "above"
        number = f"(log ratio {log_ratio:+z.2f})"
        if math.isinf(log_ratio):
            return f"{span} all that is liquidated is {more} it {number}"
        if abs(log_ratio) < LEAST_SKEW:
            return f"{span} as much is liquidated below it as above {number}"
        times = f"{math.exp(abs(log_ratio)):,.2f} times the notional"
        return f"{span} {times} is liquidated {more} it that is {less} {number}"


ROUNDS = 64
"""How often an entry is drawn again if the account would not have survived since."""


@core.checked_fields
@dataclass(frozen=True, eq=False, repr=False)
class Crowd:
    """The accounts that trade one contract with leverage; one row each.

    Make one with :meth:`from_positions` or :meth:`from_leverage`.

    Attributes
    ----------
    quantity, entry, collateral, equity : FloatArray of shape (n_accounts,)
        Signed contracts, longs positive; entry prices; what backs each position, in the settlement
        currency; and all the money of the account at its entry price. What exceeds the collateral
        is never touched by a liquidation.
    price : float or None
        The price at which the crowd was made.
    market : Market or None
        The market that the entries come from.
    contract : Contract
        The contract that quantities count.
    origin : mapping
        How the crowd was made, for manifests.
    """

    quantity: core.FloatArray
    entry: core.FloatArray
    collateral: core.FloatArray
    equity: core.FloatArray
    price: float | None = None
    market: Market | None = None
    contract: Contract = field(default_factory=Contract)
    origin: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ARRAYS_OF_CROWD:
            values = np.asarray(getattr(self, name), dtype=np.float64)
            object.__setattr__(self, name, core.freeze(values))

    def __len__(self) -> int:
        return len(self.quantity)

    def __repr__(self) -> str:
        return f"<Crowd of {core.count_nouns(len(self), 'account')}, {self.content_hash}>"

    @classmethod
    @core.checked
    def from_positions(cls, frame: pd.DataFrame, *, price: float | None = None) -> Crowd:
        """Return a crowd of given positions.

        Parameters
        ----------
        frame : DataFrame
            One row per account: ``side`` ("long" or "short", or 1 or -1), ``quantity`` in contracts
            (positive), ``entry`` price, ``collateral`` in the settlement currency, and optionally
            ``equity``, at least the collateral. It may be empty.
        price : float, optional
            The price now; a cascade starts from it.
        """
        check_columns(frame, COLUMNS)
        quantity = read_column(frame, "quantity")
        entry = read_column(frame, "entry")
        collateral = read_column(frame, "collateral")
        equity = collateral
        if "equity" in frame:
            equity = read_column(frame, "equity")

        is_less = equity < collateral * (1.0 - 1e-12)
        if np.any(is_less):
            raise core.ParameterError(
                f"equity must be at least the collateral, got less in row {int(np.argmax(is_less))}"
            )

        if price is not None:
            price = find_price(price)

        return cls(
            quantity=read_sides(frame["side"]) * quantity,
            entry=entry,
            collateral=collateral,
            equity=equity,
            price=price,
            origin={"made_from": "positions", "accounts": len(frame)},
        )

    @classmethod
    @core.checked
    def from_leverage(
        cls,
        *,
        open_interest: float | None = None,
        leverage: float | str = "loguniform:1:50",
        entries: Any = None,
        long_share: float = 0.5,
        accounts: int = 100_000,
        seed: int = 0,
        price: float | None = None,
        venue: Venue | str | None = None,
        lookback: str = "30d",
    ) -> Crowd:
        """Return a crowd with a distribution of leverage.

        Parameters
        ----------
        open_interest : float, optional
            The notional of all accounts at the price now, longs and shorts together, in the
            settlement currency. Every account has the same notional. By default twice the last
            known ``open_interest_value`` of the market in ``entries``, a column of ``backtest data
            fetch --with metrics``: a venue counts a contract once, and it has a long and a short.
        leverage : str or float
            Notional over collateral at the entry: ``"loguniform:LOW:HIGH"``,
            ``"uniform:LOW:HIGH"``, ``"constant:X"``, or a number.
        entries : Market (or Markets of one) or float
            Where the entry prices come from. A market: its closes within ``lookback`` of its end,
            in proportion to volume, for accounts that survived since. None: the price now.
        long_share : float
            The share of the open interest that is long, from 0 to 1.
        accounts, seed : int
            The number of accounts, and the seed of the draws.
        price : float, optional
            The price now; the last close of the market by default.
        venue : Venue or str, optional
            The venue: no account has met its lowest maintenance rate since its entry, and
            quantities are of its contract. Without one, none has lost everything, some fail at any
            venue before a cascade begins, and the contract is linear, of one unit.
        lookback : str
            How far back entries go, such as ``"30d"``.
        """
        market = None
        last = entries
        if isinstance(entries, Market | Markets):
            market = unwrap_market(entries)
            last = float(market.close[-1])

        if open_interest is None:
            open_interest = find_open_interest(market)
        core.check_range("open_interest", open_interest, low=0.0, high=1e300, open_low=True)
        core.check_range("long_share", long_share, low=0.0, high=1.0)
        n = int(core.Range(1, MOST_ACCOUNTS).check("accounts", accounts, whole=True))
        start = int(core.Range(0, 2**63 - 1).check("seed", seed, whole=True))

        # The order of the draws is part of a crowd: leverage, sides, entries.
        rng = np.random.default_rng(start)
        ratio = draw_leverage(leverage, n, rng)
        is_long = np.arange(n) < round(long_share * n)
        rng.shuffle(is_long)

        now = find_price(price, last)
        contract, maintenance = read_contract(venue)
        if market is None:
            entry = np.full(n, find_price(entries, now))
        else:
            entry = draw_entries(
                market,
                ratio,
                is_long,
                lookback,
                rng,
                maintenance,
                is_inverse=contract.kind == "inverse",
            )

        # Contracts follow from the notional now, and collateral from the leverage at the entry.
        share = share_open_interest(is_long, long_share)
        size = open_interest * share / abs(value_of(contract, now))
        collateral = size * np.abs(value_of(contract, entry)) / ratio
        origin = {
            "made_from": "leverage",
            "open_interest": float(open_interest),
            "leverage": leverage,
            "long_share": float(long_share),
            "accounts": n,
            "seed": start,
            "lookback": lookback,
            "maintenance_rate": maintenance,
        }
        return cls(
            quantity=np.where(is_long, size, -size),
            entry=entry,
            collateral=collateral,
            equity=collateral,
            price=now,
            market=market,
            contract=contract,
            origin=origin,
        )

    @property
    def content_hash(self) -> str:
        """A hash of all accounts."""
        arrays = b"".join(getattr(self, name).tobytes() for name in ARRAYS_OF_CROWD)
        return hashlib.sha256(arrays).hexdigest()[:16]

    @property
    def leverage(self) -> core.FloatArray:
        """Notional at entry over collateral, signed."""
        value = value_of(self.contract, self.entry)
        return np.asarray(self.quantity * np.abs(value) / self.collateral)

    @core.checked
    def notional(self, price: float | None = None) -> core.FloatArray:
        """Return the signed notional of each account at a price, by default that of the crowd."""
        at = find_price(price, self.price)
        return np.asarray(self.quantity * abs(value_of(self.contract, at)))

    @core.checked
    def liquidation_prices(self, venue: Venue | str) -> core.FloatArray:
        """Return the price at which a venue liquidates each account, NaN where none does."""
        value = value_of(self.contract, self.entry)
        beside = self.collateral - self.quantity * value
        return find_liquidation_prices(read_venue(venue), self.quantity, value, beside)

    @core.checked
    def skew(
        self,
        venue: Venue | str | None = None,
        *,
        within: float = 0.05,
        price: float | None = None,
    ) -> Skew:
        """Return how differently longs and shorts are leveraged, and where they are liquidated.

        ``leverage`` is the mean leverage of longs less that of shorts, at entry, weighted by the
        open interest of each account at the price now: in x, positive where longs are the more
        leveraged. ``liquidations`` is the natural log of the notional that is liquidated down to
        ``within`` (a fraction) below the price now over that up to as far above it, of bankruptcy
        prices without a venue: a number without unit, positive where more is liquidated below;
        infinite where one side has none, NaN where both have none. ``str`` of what is returned says
        both in a sentence. The map of both is :meth:`ladder`.
        """
        core.check_range("within", within, low=0.0, high=10.0, open_low=True)
        notional = self.notional(price)
        leverage = np.abs(self.leverage)
        of_longs = average_by_size(leverage, notional, notional > 0.0)
        of_shorts = average_by_size(leverage, notional, notional < 0.0)
        gap = of_longs - of_shorts

        # Longs are liquidated below the price now, shorts above it.
        ladder = self.ladder(venue, price=price, bins=1000, span=within)
        long = float(ladder["long"].sum())
        short = float(ladder["short"].sum())
        if long == short == 0.0:
            log_ratio = math.nan
        elif min(long, short) > 0.0:
            log_ratio = math.log(long / short)
        else:
            log_ratio = math.copysign(math.inf, long - short)
        return Skew(within, leverage=gap, liquidations=log_ratio)

    @core.checked
    def ladder(
        self,
        venue: Venue | str | None = None,
        *,
        price: float | None = None,
        bins: int = 100,
        span: float = 0.5,
    ) -> pd.DataFrame:
        """Return the notional that is liquidated at each level of the price.

        Accounts are liquidated at their liquidation prices at the venue, without one at their
        bankruptcy prices. ``bins`` levels reach to both sides by ``span``, a fraction of the price
        now. The index is the middle of each level; ``long``, ``short``, and what is liquidated
        between the price now and the level, ``cumulative``, are notionals at the price now.
        """
        price_now = find_price(price, self.price)
        n_levels = int(core.Range(2, 100_000).check("bins", bins, whole=True))
        core.check_range("span", span, low=0.0, high=10.0, open_low=True)

        # The price at which each account is liquidated, NaN without one.
        prices = self._find_bankruptcy_prices()
        if venue is not None:
            prices = self.liquidation_prices(venue)
        is_liquidated = ~np.isnan(prices)

        # The notional of each side whose price lies between two edges.
        notional = self.notional(price_now)
        lowest = max(1.0 - span, 0.0)
        edges = price_now * np.linspace(lowest, 1.0 + span, n_levels + 1)
        is_long = is_liquidated & (notional > 0.0)
        is_short = is_liquidated & (notional < 0.0)
        sizes = np.abs(notional)
        longs, _ = np.histogram(prices[is_long], edges, weights=sizes[is_long])
        shorts, _ = np.histogram(prices[is_short], edges, weights=sizes[is_short])

        # A fall from the price now to a level liquidates longs, a rise shorts. So longs are summed
        # up from the price now downwards, and shorts upwards.
        middle = 0.5 * (edges[:-1] + edges[1:])
        is_below = middle < price_now
        longs_below = np.where(is_below, longs, 0.0)
        shorts_above = np.where(is_below, 0.0, shorts)
        by_fall = np.cumsum(longs_below[::-1])[::-1]
        by_rise = np.cumsum(shorts_above)

        levels = {
            "long": longs,
            "short": shorts,
            "cumulative": np.where(is_below, by_fall, by_rise),
        }
        return pd.DataFrame(levels, pd.Index(middle, name="price"))

    def _find_bankruptcy_prices(self) -> core.FloatArray:
        """Return the price at which each account has lost its collateral."""
        with np.errstate(divide="ignore"):
            value = value_of(self.contract, self.entry) - self.collateral / self.quantity
        return np.asarray(price_of(self.contract, value))


def average_by_size(
    values: core.FloatArray,
    notional: core.FloatArray,
    is_side: core.BoolArray,
) -> float:
    """Return the mean of one side's values, weighted by notional; NaN of an empty side."""
    if not is_side.any():
        return math.nan
    return float(np.average(values[is_side], weights=np.abs(notional[is_side])))


def find_liquidation_prices(
    venue: Venue,
    quantity: Any,
    entry: Any,
    beside: Any,
) -> core.FloatArray:
    """Return the prices that liquidate positions entered at values ``entry``; NaN where none.

    ``beside`` is the equity of each account without its position, in the settlement currency.
    """
    # The contract value at which equity is the maintenance margin, NaN where there is none.
    rules = margins.read_rules(venue)
    root = margins.compute_liquidation_value(rules, quantity, entry, beside, 1.0)

    # Without such a value an account either never fails, or fails at any price, its entry too.
    # There it is liquidated.
    signed_notional = quantity * entry
    needed = margins.compute_maintenance(rules, np.abs(signed_notional), 1.0)
    is_failing = beside + signed_notional <= needed * (1.0 + TOLERANCE)
    fails_always = np.isnan(root) & is_failing
    value = np.where(fails_always, entry, root)

    price = price_of(venue.contract, value)
    is_held = quantity != 0.0
    return np.asarray(np.where(is_held, price, np.nan))


def check_columns(frame: pd.DataFrame, names: Sequence[str]) -> None:
    """Refuse a table that lacks columns."""
    if missing := [name for name in names if name not in frame]:
        raise core.ParameterError(
            f"frame must have the columns {', '.join(names)}, it has no {', '.join(missing)}"
        )


def read_sides(sides: pd.Series[Any]) -> core.FloatArray:
    """Return 1 of longs and -1 of shorts, (n,)."""
    words = {"long": 1.0, "short": -1.0, 1: 1.0, -1: -1.0}
    signs = sides.map(words).to_numpy(dtype=np.float64)
    if np.isnan(signs).any():
        row = int(np.argmax(np.isnan(signs)))
        raise core.ParameterError(
            f"side must be 'long' or 'short', or 1 or -1, got {sides.iloc[row]!r} in row {row}"
        )
    return np.asarray(signs)


def read_column(frame: pd.DataFrame, name: str) -> core.FloatArray:
    """Return the positive numbers of a column, (n,)."""
    values = pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=np.float64)
    is_bad = ~((values > 0.0) & np.isfinite(values))
    if not is_bad.any():
        return values

    row = int(np.argmax(is_bad))
    text = f"{name} must be positive and finite, got {frame[name].iloc[row]} in row {row}"
    if name == "quantity":
        text = f"{text}; the side gives the direction"
    raise core.ParameterError(text)


def find_price(*given: float | None) -> float:
    """Return the first price that is given."""
    for price in given:
        if price is not None:
            return core.check_range("price", price, low=0.0, high=1e300, open_low=True)
    raise core.ParameterError(
        "price must be given, got None; price=, or entries=market to use its last close"
    )


VALUE_COLUMN = "open_interest_value"


def find_open_interest(market: Market | None) -> float:
    """Return the notional of all longs and shorts at the end of a market, from its column."""
    if market is not None and VALUE_COLUMN in market.columns:
        values = market.columns[VALUE_COLUMN]
        known = values[np.isfinite(values)]
        if len(known):
            return 2.0 * float(known[-1])
    raise core.ParameterError(
        f"open_interest must be given where entries are no market with the column "
        f"{VALUE_COLUMN}, which backtest data fetch --with metrics has"
    )


def read_contract(venue: Venue | str | None) -> tuple[Contract, float]:
    """Return the contract of a venue, and its lowest maintenance rate, a fraction of the notional.

    Without a venue they are a linear contract of one unit, and 0.
    """
    if venue is None:
        return Contract(), 0.0
    known = read_venue(venue)
    lowest_rate = margins.read_rules(known).rates[0]
    return known.contract, lowest_rate


def share_open_interest(is_long: core.BoolArray, long_share: float) -> core.FloatArray:
    """Return each account's share of the open interest, (n_accounts,): equal within a side."""
    n_long = int(np.sum(is_long))
    n_short = len(is_long) - n_long
    share_of_a_long = long_share / max(n_long, 1)
    share_of_a_short = (1.0 - long_share) / max(n_short, 1)
    return np.where(is_long, share_of_a_long, share_of_a_short)


def draw_leverage(
    leverage: Any,
    n: int,
    rng: np.random.Generator,
) -> core.FloatArray:
    """Return the leverage of each account, (n,), from a law such as ``"uniform:2:20"``."""
    name, low, high = read_leverage(leverage)
    share = rng.random(n)
    if name == "loguniform":
        return np.asarray(low * (high / low) ** share)
    return low + (high - low) * share


def read_leverage(leverage: Any) -> tuple[str, float, float]:
    """Return the name of a law of leverage and its range; of a constant, both ends are it."""
    law = leverage
    if not isinstance(leverage, str):
        law = f"constant:{leverage}"
    name, *ends = law.split(":")
    try:
        numbers = [float(end) for end in ends]
    except ValueError:
        numbers = []

    if name == "constant" and len(numbers) == 1:
        low = high = numbers[0]
    elif name in ("uniform", "loguniform") and len(numbers) == 2:
        low, high = numbers
    else:
        low = high = 0.0  # refused below
    if not 0.0 < low <= high < np.inf:
        raise core.ParameterError(
            "leverage must be 'loguniform:LOW:HIGH', 'uniform:LOW:HIGH', 'constant:X' or a "
            f"positive number, got {core.repr_plain(leverage)}"
        )
    return name, low, high


def draw_entries(
    market: Market,
    leverage: core.FloatArray,
    is_long: core.BoolArray,
    lookback: str,
    rng: np.random.Generator,
    margin: float,
    *,
    is_inverse: bool,
) -> core.FloatArray:
    """Return an entry price for each account, a close drawn in proportion to volume, (n_accounts,).

    Only the bars of ``lookback`` count. It is drawn again where the account would not have survived
    since then, at a maintenance rate of ``margin``; an account that survives no draw enters at the
    last close. Each round draws a number for each account that still waits: the order of the draws
    decides the crowd of a seed.
    """
    length = core.parse_duration(lookback, "lookback")
    n_recent = max(1, length // market.interval)
    recent = slice(-n_recent, None)
    close = market.close[recent]
    last = len(close) - 1

    # The extremes after each bar, and the factors of the entry price at which accounts would fail.
    lowest, highest = find_extremes_after(market.low[recent], market.high[recent])
    long_fails, short_fails = find_failing_moves(1.0 / leverage, margin, is_inverse=is_inverse)

    # A uniform number falls into a bar with a chance in proportion to its volume. Bars without any
    # volume are equally likely.
    volume = market.volume[recent].astype(np.float64)
    if not volume.sum() > 0.0:
        volume = np.ones(len(close))
    edges = np.cumsum(volume) / np.sum(volume)

    # The bar of each account's entry, and the accounts that have not survived a draw yet.
    n_accounts = len(leverage)
    bars = np.full(n_accounts, last)
    waiting = np.arange(n_accounts)
    for _ in range(ROUNDS):
        uniforms = rng.random(len(waiting))
        drawn = np.searchsorted(edges, uniforms, side="right").clip(max=last)
        entry = close[drawn]
        long_survives = lowest[drawn] > entry * long_fails[waiting]
        short_survives = highest[drawn] < entry * short_fails[waiting]
        survives = np.where(is_long[waiting], long_survives, short_survives)

        bars[waiting[survives]] = drawn[survives]
        waiting = waiting[~survives]
    return np.asarray(close[bars])


def find_extremes_after(
    low: core.FloatArray, high: core.FloatArray
) -> tuple[core.FloatArray, core.FloatArray]:
    """Return the lowest and the highest price after the close of each bar, up to the end.

    After the last bar there is none: they are inf and -inf, which no account fails at.
    """
    lows_after = np.append(low[1:], np.inf)
    highs_after = np.append(high[1:], -np.inf)

    # From the end backward.
    lowest = np.minimum.accumulate(lows_after[::-1])[::-1]
    highest = np.maximum.accumulate(highs_after[::-1])[::-1]
    return lowest, highest


def find_failing_moves(
    share: core.FloatArray,
    margin: float,
    *,
    is_inverse: bool,
) -> tuple[core.FloatArray, core.FloatArray]:
    """Return the price over that of the entry at which a long and a short fail.

    Each has collateral of ``share`` of its notional at the entry, in the settlement currency, and
    fails where collateral and profit are ``margin`` times the notional then. An inverse short with
    its whole notional in coins never does: infinite.
    """
    long_fails = (1.0 - share) / (1.0 - margin)
    short_fails = (1.0 + share) / (1.0 + margin)
    if not is_inverse:
        return long_fails, short_fails

    # In coins the notional is 1 / price, in which a long is the short, and the other way round.
    with np.errstate(divide="ignore"):
        return 1.0 / short_fails, 1.0 / np.maximum(long_fails, 0.0)
