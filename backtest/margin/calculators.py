"""Calculators of liquidation: of one position with its probability, and of a whole book.

The logarithm of the price is modeled as a Brownian motion, ``ln P_t = ln P_0 + drift t + sigma
W_t``, observed continuously. Distances are logarithms of price ratios, sigma and drift are annual,
horizons are in years. Numbers and arrays broadcast as in numpy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    drifted = np.asarray(drift) * np.asarray(horizon)
    signed, upward, spread, freedom = np.broadcast_arrays(distance, drifted, spread, freedom)
    if np.any((upward != 0.0) & np.isfinite(freedom)):
        raise ParameterError("drift must be 0 with finite degrees_of_freedom")

    # a and v of the formula: the distance, and the drift away from the level.
    size = np.abs(signed)
    away = np.where(signed < 0.0, upward, -upward)
    normal = _touch_normal(size, away, spread)

    # A variable of Student's t has the variance freedom / (freedom - 2), so it is scaled to 1.
    with np.errstate(all="ignore"):
        scale = np.sqrt(freedom / (freedom - 2.0))
        fat = 2.0 * sp.special.stdtr(freedom, -size / spread * scale)
    chance = np.where(np.isinf(freedom), normal, fat)

    # Where the formulas would divide by zero: a price that never moves, or is at the level.
    chance = np.where(np.isinf(size) | (spread == 0.0), 0.0, chance)
    is_reached = (size == 0.0) | ((spread == 0.0) & (size + away <= 0.0))
    chance = np.where(is_reached, 1.0, chance)
    is_unknown = np.isnan(signed) | np.isnan(away) | np.isnan(spread)
    return float_if_single(np.where(is_unknown, np.nan, np.minimum(chance, 1.0)))


def _touch_normal(size: FloatArray, away: FloatArray, spread: FloatArray) -> FloatArray:
    """Return the probability that a Brownian motion touches a level by the end of a horizon.

    ``size`` is the distance a of the level, ``away`` the drift v over the horizon, away from it,
    and ``spread`` the standard deviation s at the end. The probability is::

        Phi((-a - v) / s) + exp(-2 v a / s^2) Phi((-a + v) / s)

    The first term has the paths that end beyond the level, the second those that touched it and
    came back. Phi, the normal distribution, is computed as Phi(z) = erfc(-z / sqrt 2) / 2.
    """
    with np.errstate(all="ignore"):
        scale = spread * math.sqrt(2.0)
        against = (size + away) / scale
        along = (size - away) / scale

        # In the second term a huge exponential may meet a tiny Phi, and the product would be lost.
        # There the exponents are added first: erfc(z) is exp(-z^2) erfcx(z).
        in_tail = np.exp(-against * against) * sp.special.erfcx(np.maximum(along, 0.0))
        factor = np.exp(-2.0 * away * size / (spread * spread))
        elsewhere = factor * sp.special.erfc(np.minimum(along, 0.0))
        reflected = np.where(along >= 0.0, in_tail, elsewhere)
        return np.asarray(0.5 * (sp.special.erfc(against) + reflected))


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
    """Return how many standard deviations away a level is that is touched with a probability.

    A level at distance a is touched with probability 2 Phi(-a / s), so a / s is minus the quantile
    of half of it. A variable of Student's t is scaled to a variance of 1. Infinite for 0.
    """
    half = 0.5 * check_each("probability", probability, SHARE, is_nan_allowed=False)
    freedom = check_each("degrees_of_freedom", degrees, DEGREES, is_nan_allowed=False)
    with np.errstate(invalid="ignore"):
        fat = sp.special.stdtrit(freedom, half) * np.sqrt((freedom - 2.0) / freedom)
    factor = np.where(np.isinf(freedom), sp.special.ndtri(half), fat)
    # Subtracted, as the negative of a quantile of 0 would be -0.
    return np.asarray(np.where(half == 0.0, math.inf, 0.0 - factor))


DEGREES = Real(2, open_low=True, may_be_infinite=True)


def _find_spread(sigma: OneOrMany, horizon: OneOrMany) -> FloatArray:
    """Return the standard deviation of the log price after a horizon; raise for a bad number."""
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
    Choice("isolated", "cross").check("margin", margin)
    for name, value in (("entry", entry), ("leverage", leverage), ("capital", capital),
                        ("quantity", quantity), ("volatility", volatility),
                        ("multiplier", multiplier)):  # fmt: skip
        if value is not None:
            POSITIVE.check(name, value)
    rules: Venue = read_venue(venue)

    # The position that is opened, if the venue allows it.
    contracts = _find_contracts(rules, entry, leverage, capital, quantity)
    notional = contracts * _find_contract_notional(rules, entry)
    is_sized_by_capital = quantity is None and capital is not None
    sized_by = "capital" if is_sized_by_capital else "quantity"
    _check_leverage(rules, notional, leverage, multiplier, sized_by)
    signed_contracts = contracts
    if side == "short":
        signed_contracts = -contracts

    # What backs it.
    initial = notional / leverage
    if capital is not None and capital * (1.0 + TOLERANCE) < initial:
        raise ParameterError(
            f"capital must cover the initial margin, {initial:,.12g}, got {capital:,.12g}"
        )
    collateral = initial
    if margin == "cross" and capital is not None:
        collateral = float(capital)

    price = margin_functions.liquidation_price(
        rules, signed_contracts, entry, collateral, multiplier
    )
    bankruptcy_price = margin_functions.bankruptcy_price(rules, signed_contracts, entry, collateral)

    # Without a price that liquidates, the level is infinitely far: its probability is 0.
    distance = math.nan
    level = math.inf
    if price > 0.0:
        distance = math.log(price / entry)
        level = distance
    sigma = math.nan if volatility is None else float(volatility)
    probabilities = {}
    for n_days in days:
        chance = touch_probability(level, sigma, n_days / YEAR_DAYS)
        probabilities[float(n_days)] = float(chance)

    return Calculation(
        side=side,
        margin=margin,
        entry=float(entry),
        leverage=float(leverage),
        quantity=signed_contracts,
        notional=notional,
        collateral=collateral,
        initial_margin=initial,
        maintenance_margin=margin_functions.maintenance(rules, notional, multiplier),
        liquidation_price=price,
        bankruptcy_price=bankruptcy_price,
        distance=price / entry - 1.0,
        volatility=sigma,
        daily_sigmas=abs(distance) / (sigma / math.sqrt(YEAR_DAYS)),
        probabilities=probabilities,
    )


def _find_contract_notional(rules: Venue, entry: float) -> float:
    is_inverse = rules.contract.kind == "inverse"
    return abs(compute_value(rules.contract.size, is_inverse, entry))


def _find_contracts(
    rules: Venue, entry: float, leverage: float, capital: float | None, quantity: float | None
) -> float:
    """Return the contracts to open, without sign.

    Those of ``quantity``; without it as many as ``capital`` opens at the leverage; without both as
    many as one coin is. ``entry`` is a price.
    """
    if quantity is not None:
        return float(quantity)
    contract_notional = _find_contract_notional(rules, entry)
    if capital is not None:
        return capital * leverage / contract_notional

    # The notional of one coin: an inverse contract settles in it.
    coin = float(entry)
    if rules.contract.kind == "inverse":
        coin = 1.0
    return coin / contract_notional


def _check_leverage(
    rules: Venue, notional: float, leverage: float, multiplier: float, sized_by: str
) -> None:
    """Raise ParameterError if the venue does not allow a leverage for a notional.

    ``multiplier`` divides the leverages of the table. ``sized_by`` names the argument that decides
    the notional, for the message.
    """
    # A notional or a leverage on the edge of a bracket is inside, give or take rounding.
    least_notional = notional * (1.0 - TOLERANCE)
    largest = rules.brackets[-1].cap
    if least_notional > largest:
        raise ParameterError(
            f"{sized_by} must give a notional of at most {largest:,.12g}, where the venue's table "
            f"ends, got {notional:,.12g}"
        )

    bracket = next(row for row in rules.brackets if row.cap >= least_notional)
    allowed = bracket.max_leverage / multiplier
    if leverage * (1.0 - TOLERANCE) > allowed:
        raise ParameterError(
            f"leverage must be at most {allowed:g} for a notional of {notional:,.12g}, "
            f"got {leverage:g}"
        )


SQUARINGS = 5
"""Times the ratio of a price is squared, from 2 and from 1/2 on."""
FARTHEST, SCAN = 0.9, 32
"""The largest move that is searched with options, and the prices that are tested up to it."""
FINEST, FINEST_OF_OPTIONS = 1e-14, 1e-12
"""Relative tolerance of the ratio at which a book fails; values of options are less exact."""


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
    backing = book.backing()
    requirement = book.requirement()
    threshold = book.packed.level * requirement
    equity = _compute_equity(book)

    shares, collateral_share = _find_shares(book)
    positions = tabulate_positions(book, shares)
    option_table = tabulate_options(book)
    exposures = option_table.groupby("group")["exposure"].sum().abs()

    # The instrument whose own move fails the book soonest.
    first = None
    nearest = positions[["down", "up"]].abs().min(axis=1).dropna()
    if not nearest.empty:
        first = str(nearest.idxmin())

    return BookCalculation(
        balance=book.balance,
        equity=equity,
        backing=backing,
        collateral=float(kernels.compute_collateral_value(book.packed.collateral, book.held)),
        requirement=requirement,
        collateral_share=collateral_share,
        initial=book.requirement(is_initial=True),
        level=book.packed.level,
        margin_ratio=_compute_margin_ratio(book, threshold, backing),
        distance=backing - threshold,
        is_failing=book.is_failing(),
        gross_leverage=_compute_leverage(float(positions["notional"].abs().sum()), equity),
        net_leverage=_compute_leverage(float(positions["notional"].sum()), equity),
        positions=positions,
        moves=tabulate_moves(book),
        first=first,
        options=option_table,
        option_value=book.option_value(),
        options_leverage=_compute_leverage(float(exposures.sum()), equity),
    )


def _compute_margin_ratio(book: Book, threshold: float, backing: float) -> float:
    """Return the requirement at its level over what backs it: the book fails at 1."""
    if book.is_flat():
        return 0.0
    if backing <= 0.0:
        return math.inf
    return threshold / backing


def _compute_equity(book: Book) -> float:
    """Return the equity of a book: all it has, with collateral in full and options at marks."""
    # The backing has collateral at its rates: that is taken out, and its full value comes in.
    counted = float(kernels.compute_collateral_value(book.packed.collateral, book.held))
    equity = float(kernels.compute_full_backing(book.packed, book.held, book.cash)) - counted
    return equity + (kernels.compute_full_value(book.held) + compute_options_value(book.options))


def _find_shares(book: Book) -> tuple[FloatArray, float]:
    """Return how much of the requirement is due to each position, and to all collateral: money.

    These Euler shares add up to the requirement. NaN and 0 with options or a rule of the user's
    own, whose shares are not known.
    """
    count = len(book.names)
    if book.listed or isinstance(book.rule, OwnMargin):
        return np.full(count, math.nan), 0.0
    shares = np.zeros(count + len(book.held.amounts))
    kernels.fill_shares(book.packed, book.held, shares)
    return shares[:count], float(shares[count:].sum())


def _compute_leverage(notional: float, equity: float) -> float:
    if notional == 0.0:
        return 0.0
    if equity <= 0.0:
        return math.inf
    return notional / equity


def tabulate_positions(book: Book, shares: FloatArray) -> pd.DataFrame:
    """Return what is held, a row for each instrument: prices, money, and moves that liquidate.

    ``down`` and ``up`` are relative moves of that price alone, NaN if none liquidates; ``shares``
    are the parts of the requirement.
    """
    held = book.held
    moves = [find_moves(book, (name,)) for name in book.names]
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

    # The liquidation price is that of the nearer move. A comparison with NaN, no move, is false.
    is_down_nearer = table["up"].isna() | (table["down"].abs() <= table["up"])
    nearer = table["down"].where(is_down_nearer, table["up"])
    table["liquidation_price"] = table["price"] * (1.0 + nearer)
    return table


def tabulate_options(book: Book) -> pd.DataFrame:
    """Return the options of a book, a row for each.

    ``mark`` is money per contract; ``value`` (money) and ``delta`` (units of the underlying) are
    those of the whole position, ``exposure`` the delta in the settlement currency.
    """
    held = book.options
    delta = held.quantities * [compute_option_delta(held, i) for i in range(len(book.listed))]
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
    names = [str(position.option.name) for position in book.listed]
    return pd.DataFrame(columns, pd.Index(names, name="option", dtype=object))


def tabulate_moves(book: Book) -> pd.DataFrame:
    """Return the moves that fail the book, down and up, of prices that move by one ratio.

    A row for each group of the rule, for each index of options with the instruments linked to it,
    and for all. An instrument by itself has its row in the table of positions.
    """
    names = book.names
    indices = tuple(dict.fromkeys(book.option_groups))
    rows: dict[str, tuple[Any, ...]] = {}

    # A group of one is a row of the positions, and one of all is the last row.
    for group, members in book.rule.list_groups(names).items():
        is_part = len(members) > 1 and set(members) != set(names)
        if is_part and group not in indices:
            down, up = find_moves(book, members)
            rows[f"group {group}"] = (members, down, up)

    for group in indices:
        linked = tuple(book.list_linked(group))
        down, up = find_moves(book, (group, *linked))
        rows[f"index {group}"] = (linked, down, up)

    everything = (*names, *indices)
    if len(everything) > 1:
        down, up = find_moves(book, everything)
        rows["all"] = (names, down, up)

    index = pd.Index([*rows], name="name", dtype=object)
    return pd.DataFrame([*rows.values()], index, ["instruments", "down", "up"])


def find_moves(book: Book, moving: Sequence[str]) -> tuple[float, float]:
    """Return the nearest moves, down and up, of some prices by one ratio that fail the book.

    Fractions of the prices: -0.1 is a fall of 10 %. NaN where no move fails it, 0 and 0 if it fails
    now. ``moving`` names the instruments and groups of options whose prices move.
    """
    if book.is_flat():
        return math.nan, math.nan
    if book.is_failing():
        return 0.0, 0.0

    # Without options, what the book has over its requirement is concave in the ratio: so a book
    # that fails goes on failing, and far steps find it.
    if not book.listed:
        down = find_failing_move(book, moving, list_squares(0.5), FINEST)
        up = find_failing_move(book, moving, list_squares(2.0), FINEST)
        return down, up

    # With options it may fail and recover: SCAN steps, denser near the price, up to FARTHEST.
    steps = np.array([FARTHEST * (step / SCAN) ** 2 for step in range(1, SCAN + 1)])
    down = find_failing_move(book, moving, (1.0 - steps).tolist(), FINEST_OF_OPTIONS)
    up = find_failing_move(book, moving, (1.0 + steps).tolist(), FINEST_OF_OPTIONS)
    return down, up


def list_squares(first: float) -> list[float]:
    """Return a ratio of the price, and the squares that follow from it."""
    ratios = [first]
    while len(ratios) < SQUARINGS:
        ratios.append(ratios[-1] * ratios[-1])
    return ratios


def find_failing_move(
    book: Book, moving: Sequence[str], ratios: Sequence[float], tolerance: float
) -> float:
    """Return the move of prices at which a book first fails, a fraction; NaN if it does not.

    ``ratios``, of prices to those now, lead away from 1, where the book holds. Between the first at
    which it fails and the one before, the failure is found to a relative ``tolerance``.
    """

    def compute_distance(ratio: float) -> float:
        """Return what the book has over its requirement at the moved prices: money."""
        return book.move(moving, ratio).distance()

    holding = 1.0
    for ratio in ratios:
        if compute_distance(ratio) <= 0.0:
            # The tolerance is relative alone: the absolute one is as good as 0.
            root = sp.optimize.brentq(compute_distance, holding, ratio, xtol=1e-300, rtol=tolerance)
            return float(root) - 1.0
        holding = ratio
    return math.nan
