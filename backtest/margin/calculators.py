"""Calculators of liquidation: of one position with its probability, and of a whole book.

The logarithm of the price is modeled as a Brownian motion, ``ln P_t = ln P_0 + drift t + sigma
W_t``, observed continuously. Distances are logarithms of price ratios, sigma and drift are annual,
horizons are in years. Numbers and arrays broadcast as in numpy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from backtest.core import Choice, FloatArray, ParameterError, Real, checked, float_if_single
from backtest.core.code_names import pd, sp
from backtest.core.fields import NOT_NEGATIVE, POSITIVE, SHARE
from backtest.core.units import TOLERANCE, YEAR_DAYS
from backtest.margin import functions as margin_functions
from backtest.margin import portfolio_kernels as kernels
from backtest.margin.functions import DEFAULT, Assets, Book, Numbers, Options, check_each, read_book
from backtest.margin.option_values import compute_option_delta, compute_options_value
from backtest.margin.requirement_rule import MarginRule, OwnMargin, RequirementRule
from backtest.venue.contract_value import compute_value
from backtest.venue.venue import Venue, read_venue
from backtest.venue.venue import VenueLike as Venues

OneOrMany: TypeAlias = float | FloatArray


@checked
def touch_probability(
    distance: OneOrMany,
    sigma: OneOrMany,
    horizon: OneOrMany,
    drift: OneOrMany = 0.0,
    *,
    degrees_of_freedom: OneOrMany = math.inf,
) -> Any:
    """Return the probability, in [0, 1], that a price touches a level within a horizon.

    Raises ParameterError if an argument is out of range, or fat tails have a drift. NaN gives NaN.

    Parameters
    ----------
    distance : float or array
        ln(level / price): negative for a level below, as the liquidation price of a long is.
    sigma : float or array
        Volatility, per sqrt(year).
    horizon : float or array
        In years.
    drift : float or array
        Of the logarithm of the price, per year: ``mu - sigma^2 / 2`` for a price that grows by mu.
    degrees_of_freedom : float or array
        Of Student's t, over 2; infinite for the normal distribution, which a drift needs. They
        depend on the horizon: hourly prices of BTC, ETH and LTC in 2020 and 2021 are fit by 4 for a
        day, 8 for 7 days and 12 for 30. With 4, forecasts of 7 days are too low.

    Notes
    -----
    With a = abs(distance), s = sigma sqrt(horizon) and v the drift over the horizon away from the
    level: ``Phi((-a - v) / s) + exp(-2 v a / s^2) Phi((-a + v) / s)``; with Student's t and no
    drift ``2 t(-a / s)``. Source: Harrison (1985), Brownian Motion and Stochastic Flow Systems,
    section 1.8. A price that is observed only m times touches less often, as if the level were
    farther away by ``0.5826 sigma sqrt(horizon / m)``. Source: Broadie, Glasserman and Kou (1997),
    A continuity correction for discrete barrier options, Mathematical Finance 7(4).
    """
    check_each("distance", distance, Real(may_be_infinite=True))
    check_each("drift", drift, Real())
    spread = _find_spread(sigma, horizon)
    freedom = check_each("degrees_of_freedom", degrees_of_freedom, DEGREES, is_nan_allowed=False)
    moved = np.asarray(drift) * np.asarray(horizon)
    far, away, s, freedom = np.broadcast_arrays(distance, moved, spread, freedom)
    if np.any((away != 0.0) & np.isfinite(freedom)):
        raise ParameterError("drift must be 0 with finite degrees_of_freedom")
    away, a = np.where(far < 0.0, away, -away), np.abs(far)
    with np.errstate(all="ignore"):
        # exp(-z1^2) erfcx(z2) in the tails, where the product would be a huge number by a tiny one
        first, second = (a + away) / (s * math.sqrt(2.0)), (a - away) / (s * math.sqrt(2.0))
        near = np.exp(-first * first) * sp.special.erfcx(np.maximum(second, 0.0))
        beyond = np.exp(-2.0 * away * a / (s * s)) * sp.special.erfc(np.minimum(second, 0.0))
        chance = 0.5 * (sp.special.erfc(first) + np.where(second >= 0.0, near, beyond))
        fat = 2.0 * sp.special.stdtr(freedom, -a / s * np.sqrt(freedom / (freedom - 2.0)))
    chance = np.where(np.isinf(freedom), chance, fat)
    chance = np.where(np.isinf(a) | (s == 0.0), 0.0, chance)
    chance = np.where((a == 0.0) | ((s == 0.0) & (a + away <= 0.0)), 1.0, chance)
    is_unknown = np.isnan(far) | np.isnan(away) | np.isnan(s)
    return float_if_single(np.where(is_unknown, np.nan, np.minimum(chance, 1.0)))


@checked
def touch_distance(
    probability: OneOrMany,
    sigma: OneOrMany,
    horizon: OneOrMany,
    *,
    degrees_of_freedom: OneOrMany = math.inf,
) -> Any:
    """Return abs(ln(level / price)) of a level that is touched with a given probability.

    The same above and below, without drift: the inverse of :func:`touch_probability`, whose
    arguments these are; ``probability`` is in [0, 1].

    Examples
    --------
    >>> distance = touch_distance(0.01, 0.8, 1 / 365)
    >>> round(distance, 4), round(touch_probability(-distance, 0.8, 1 / 365), 12)
    (0.1079, 0.01)
    """
    factor = find_touch_factor(probability, degrees_of_freedom)
    with np.errstate(invalid="ignore"):
        return float_if_single(np.asarray(_find_spread(sigma, horizon) * factor))


def find_touch_factor(probability: OneOrMany, degrees: OneOrMany) -> FloatArray:
    half = 0.5 * check_each("probability", probability, SHARE, is_nan_allowed=False)
    freedom = check_each("degrees_of_freedom", degrees, DEGREES, is_nan_allowed=False)
    with np.errstate(invalid="ignore"):
        fat = sp.special.stdtrit(freedom, half) * np.sqrt((freedom - 2.0) / freedom)
    factor = np.where(np.isinf(freedom), sp.special.ndtri(half), fat)
    return np.asarray(np.where(half == 0.0, math.inf, 0.0 - factor))


DEGREES = Real(2, open_low=True, may_be_infinite=True)


def _find_spread(sigma: OneOrMany, horizon: OneOrMany) -> FloatArray:
    deviation = check_each("sigma", sigma, NOT_NEGATIVE)
    return np.asarray(deviation * np.sqrt(check_each("horizon", horizon, NOT_NEGATIVE)))


DAYS = (1.0, 7.0, 30.0)


class Calculation(NamedTuple):
    """Margins of a position and its distance to liquidation; money in the settlement currency.

    ``quantity`` is in contracts, negative for a short. ``distance`` is the move from the entry to
    the liquidation price, a fraction, and ``daily_sigmas`` its logarithm in standard deviations of
    a day. ``probabilities`` maps days to the probability of a liquidation within them. NaN: no
    price liquidates, or there is no volatility.
    """

    side: str
    margin: str
    entry: float
    leverage: float
    quantity: float
    notional: float
    collateral: float
    initial_margin: float
    maintenance_margin: float
    liquidation_price: float
    bankruptcy_price: float
    distance: float
    volatility: float
    daily_sigmas: float
    probabilities: dict[float, float]


@checked
def calculate_liquidation(
    venue: Venue | str,
    *,
    side: str,
    entry: float,
    leverage: float,
    margin: str = "isolated",
    capital: float | None = None,
    quantity: float | None = None,
    volatility: float | None = None,
    multiplier: float = 1.0,
    days: Sequence[float] = DAYS,
) -> Calculation:
    """Return margins, liquidation price, and bankruptcy price of a position, with probabilities.

    Raises ParameterError if an argument is out of its range, the venue does not allow the leverage
    for the notional, or the capital does not cover the initial margin.

    Parameters
    ----------
    side : str
        ``"long"`` or ``"short"``.
    entry : float
        The price at which the position is opened, without fees.
    leverage : float
        The leverage set at the venue: the initial margin is the notional over it.
    margin : str
        ``"isolated"``: the initial margin backs the position; ``"cross"``: the capital does.
    capital : float, optional
        The account, in the settlement currency. Default: the initial margin.
    quantity : float, optional
        Contracts, positive, not rounded to lots. Default: what ``capital`` opens at the leverage,
        or one coin without it.
    volatility : float, optional
        Volatility of the price, per sqrt(year), of a geometric Brownian motion without drift.
    multiplier : float
        Of dynamic margin: scales maintenance rates and divides the allowed leverages.
    days : sequence of float
        The horizons of the probabilities.

    Examples
    --------
    >>> venue = Venue.preset("binance-usdm", "BTCUSDT")
    >>> found = calculate_liquidation(venue, side="long", entry=30_000, leverage=10)
    >>> found.initial_margin, found.maintenance_margin, round(found.liquidation_price, 2)
    (3000.0, 120.0, 27108.43)
    """
    Choice("long", "short").check("side", side)
    sign = 1.0 if side == "long" else -1.0
    Choice("isolated", "cross").check("margin", margin)
    for name, value in (("entry", entry), ("leverage", leverage), ("capital", capital),
                        ("quantity", quantity), ("volatility", volatility),
                        ("multiplier", multiplier)):  # fmt: skip
        if value is not None:
            POSITIVE.check(name, value)
    own: Venue = read_venue(venue)
    is_inverse = own.contract.kind == "inverse"
    unit = abs(compute_value(own.contract.size, is_inverse, entry))
    if quantity is not None:
        size = float(quantity)
    elif capital is not None:
        size = capital * leverage / unit
    else:
        size = (1.0 if is_inverse else float(entry)) / unit
    notional = size * unit
    room, largest = notional * (1.0 - TOLERANCE), own.brackets[-1].cap
    if room > largest:
        name = "quantity" if quantity is not None or capital is None else "capital"
        raise ParameterError(
            f"{name} must give a notional of at most {largest:,.12g}, where the venue's table "
            f"ends, got {notional:,.12g}"
        )
    allowed = next(row.max_leverage / multiplier for row in own.brackets if row.cap >= room)
    if leverage * (1.0 - TOLERANCE) > allowed:
        raise ParameterError(
            f"leverage must be at most {allowed:g} for a notional of {notional:,.12g}, "
            f"got {leverage:g}"
        )
    initial = notional / leverage
    collateral = initial if margin == "isolated" or capital is None else float(capital)
    if capital is not None and capital * (1.0 + TOLERANCE) < initial:
        raise ParameterError(
            f"capital must cover the initial margin, {initial:,.12g}, got {capital:,.12g}"
        )
    price = margin_functions.liquidation_price(own, sign * size, entry, collateral, multiplier)
    distance = math.log(price / entry) if price > 0.0 else math.nan
    sigma = math.nan if volatility is None else float(volatility)
    known = math.inf if math.isnan(distance) else distance
    return Calculation(
        side=side,
        margin=margin,
        entry=float(entry),
        leverage=float(leverage),
        quantity=sign * size,
        notional=notional,
        collateral=collateral,
        initial_margin=initial,
        maintenance_margin=margin_functions.maintenance(own, notional, multiplier),
        liquidation_price=price,
        bankruptcy_price=margin_functions.bankruptcy_price(own, sign * size, entry, collateral),
        distance=price / entry - 1.0,
        volatility=sigma,
        daily_sigmas=abs(distance) / (sigma / math.sqrt(YEAR_DAYS)),
        probabilities={
            float(n): float(touch_probability(known, sigma, n / YEAR_DAYS)) for n in days
        },
    )


SQUARINGS = 5
"""Times the ratio of a price is squared, from 2 and from 1/2 on."""
FARTHEST, SCAN = 0.9, 32
"""The largest move that is searched with options, and the prices that are tested up to it."""


class BookCalculation(NamedTuple):
    """Margins of a book of cross positions and its distance to failure.

    ``backing`` is the balance with profits and collateral at its rates, ``equity`` with collateral
    in full. The book fails where the backing is at most ``level`` times ``requirement``:
    ``distance`` is the difference, ``margin_ratio`` their quotient. ``option_value`` is what
    options add to the backing, and ``options_leverage`` their net exposure over equity.
    ``first`` is the instrument whose move alone fails the book soonest, None if no move does.

    Of ``positions``, ``share`` is the Euler share of the requirement, ``quantity * d requirement /
    d quantity``: under scenarios the shares and ``collateral_share`` add up to the requirement; NaN
    for a rule of the user's own and with options. ``down`` and ``up`` are the moves of the price
    alone, as fractions, that fail the book, NaN if none does; options on it move along.
    ``liquidation_price`` is that of the nearer. ``moves`` has the same for groups, indices of
    options with what moves with them, and all.
    """

    balance: float
    equity: float
    backing: float
    collateral: float
    requirement: float
    collateral_share: float
    initial: float
    level: float
    margin_ratio: float
    distance: float
    is_failing: bool
    gross_leverage: float
    net_leverage: float
    positions: pd.DataFrame
    moves: pd.DataFrame
    first: str | None
    options: pd.DataFrame
    option_value: float
    options_leverage: float


def calculate_book(
    venues: Venues,
    quantities: Numbers,
    prices: Numbers,
    *,
    balance: float,
    entries: Numbers | None = None,
    rule: RequirementRule | MarginRule = DEFAULT,
    collateral: Assets = (),
    collateral_prices: Numbers | None = None,
    options: Options = (),
) -> BookCalculation:
    """Return requirement, margin ratio and distance to failure of a book of cross positions.

    Parameters
    ----------
    venues, quantities, prices, rule, collateral, collateral_prices, entries, options
        As in :func:`backtest.margin.brackets`. Collateral whose ``prices`` name an instrument
        has its price and moves with it.
    balance : float
        The settlement balance: realized money, without unrealized profit, collateral and the
        value of spot legs; what was paid for options has left it.

    Examples
    --------
    >>> import backtest as bt
    >>> venues = bt.Venue.preset("binance-usdm", ["BTCUSDT", "ETHUSDT"])
    >>> book = bt.calculate_book(venues, {"BTCUSDT": 1.0, "ETHUSDT": 10.0},
    ...     {"BTCUSDT": 60_000, "ETHUSDT": 3_000}, balance=9_000)
    >>> book.requirement, round(book.margin_ratio, 4), book.first
    (360.0, 0.04, 'BTCUSDT')
    """
    book = read_book(
        venues, quantities, prices, rule, balance=balance, entries=entries, collateral=collateral,
        collateral_prices=collateral_prices, options=options,
    )  # fmt: skip
    needed, backing = book.requirement(), book.backing()
    threshold, held, of_assets = book.packed.level * needed, book.held, 0.0
    shares = np.full(len(book.names), math.nan)
    if not book.given and not isinstance(book.rule, OwnMargin):
        parts = np.zeros(len(book.names) + len(held.amounts))
        kernels.fill_shares(book.packed, held, parts)
        shares, of_assets = parts[: len(shares)], float(parts[len(shares) :].sum())
    backed = float(kernels.compute_collateral_value(book.packed.collateral, held))
    equity = float(kernels.compute_full_backing(book.packed, held, book.cash)) - backed
    equity += kernels.compute_full_value(held) + compute_options_value(book.options)
    positions, of_options = tabulate_positions(book, shares), tabulate_options(book)
    nearest = positions[["down", "up"]].abs().min(axis=1).dropna()

    def divide(amount: float) -> float:
        return 0.0 if amount == 0.0 else amount / equity if equity > 0.0 else math.inf

    return BookCalculation(
        balance=book.balance,
        equity=equity,
        backing=backing,
        collateral=backed,
        requirement=needed,
        collateral_share=of_assets,
        initial=book.requirement(is_initial=True),
        level=book.packed.level,
        margin_ratio=0.0 if book.is_flat() else threshold / backing if backing > 0.0 else math.inf,
        distance=backing - threshold,
        is_failing=book.is_failing(),
        gross_leverage=divide(float(positions["notional"].abs().sum())),
        net_leverage=divide(float(positions["notional"].sum())),
        positions=positions,
        moves=tabulate_moves(book),
        first=None if nearest.empty else str(nearest.idxmin()),
        options=of_options,
        option_value=book.option_value(),
        options_leverage=divide(float(of_options.groupby("group")["exposure"].sum().abs().sum())),
    )


def tabulate_positions(book: Book, shares: FloatArray) -> pd.DataFrame:
    held, moves = book.held, [find_moves(book, (name,)) for name in book.names]
    columns = {
        "quantity": held.quantities,
        "price": book.prices,
        "entry": book.entries,
        "notional": held.quantities * np.abs(held.values),
        "profit": held.quantities * (held.values - held.entries) + 0.0,
        "share": shares,
        "down": [down for down, _ in moves],
        "up": [up for _, up in moves],
    }
    table = pd.DataFrame(columns, pd.Index(book.names, name="instrument"), dtype=np.float64)
    is_down = table["up"].isna() | (table["down"].abs() <= table["up"])
    table["liquidation_price"] = table["price"] * (1.0 + table["down"].where(is_down, table["up"]))
    return table


def tabulate_options(book: Book) -> pd.DataFrame:
    held, count = book.options, range(len(book.given))
    delta = held.quantities * [compute_option_delta(held, k) for k in count]
    columns = {
        "group": book.option_groups,
        "quantity": held.quantities,
        "price": held.indices,
        "days": 365.0 * held.years,
        "mark": held.marks,
        "value": held.quantities * held.marks,
        "delta": delta,
        "exposure": delta * np.where(held.are_coin, 1.0, held.indices),
    }
    names = [str(each.option.name) for each in book.given]
    return pd.DataFrame(columns, pd.Index(names, name="option", dtype=object))


def tabulate_moves(book: Book) -> pd.DataFrame:
    names = book.names
    moved = tuple(dict.fromkeys(book.option_groups))
    rows: dict[str, tuple[Any, ...]] = {}
    for group, members in book.rule.list_groups(names).items():
        if len(members) > 1 and set(members) != set(names) and group not in moved:
            rows[f"group {group}"] = members, *find_moves(book, members)
    for group in moved:
        linked = tuple(book.list_linked(group))
        rows[f"index {group}"] = linked, *find_moves(book, (group, *linked))
    if len(names) + len(moved) > 1:
        rows["all"] = names, *find_moves(book, (*names, *moved))
    index = pd.Index([*rows], name="name", dtype=object)
    return pd.DataFrame([*rows.values()], index, ["instruments", "down", "up"])


def find_moves(book: Book, moving: Sequence[str]) -> tuple[float, float]:
    """Return the moves of some prices by one ratio, down and up, that fail the book."""
    if book.is_flat():
        return math.nan, math.nan
    if book.is_failing():
        return 0.0, 0.0

    def left(ratio: float) -> float:
        return book.move(moving, ratio).distance()

    def search(ratios: Iterable[float], rtol: float) -> float:
        sound = 1.0
        for ratio in ratios:
            if left(ratio) <= 0.0:
                return float(sp.optimize.brentq(left, sound, ratio, xtol=1e-300, rtol=rtol)) - 1.0
            sound = ratio
        return math.nan

    if not book.given:
        down, up = (search((x**2**k for k in range(SQUARINGS)), 1e-14) for x in (0.5, 2.0))
        return down, up
    reach = [FARTHEST * (step / SCAN) ** 2 for step in range(1, SCAN + 1)]
    return search((1.0 - x for x in reach), 1e-12), search((1.0 + x for x in reach), 1e-12)
