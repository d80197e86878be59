"""Greeks of option positions, and the profit of options explained by them.

Functions of arrays of shape (n_bars, K). Money is in the settlement currency: quote currency, or
coins. Greeks are those of :func:`backtest.options.greeks`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from backtest.core import BoolArray, FloatArray, Greeks, IntArray
from backtest.core.black_kernels import SCALES

EXPLAINED = ("delta", "gamma", "vega", "theta", "vanna", "volga", "rest")
STEPS = 80
"""Bisections that find a forward to the last places of a float."""


class OptionTerms(NamedTuple):
    """What K options are, arrays of shape (K,): ``signs`` is 1 for a call and -1 for a put.

    ``sizes`` are units of the underlying per contract, ``instruments`` the places of their
    underlyings, ``expiries`` in ns, and ``rates`` continuous discount rates per year.
    """

    names: tuple[str, ...]
    signs: FloatArray
    strikes: FloatArray
    sizes: FloatArray
    are_coin: BoolArray
    instruments: IntArray
    expiries: IntArray
    rates: FloatArray


class OptionQuotes(NamedTuple):
    """What options are valued at, at the open and at the close of each bar: shape (n_bars, K).

    ``index`` is the mark price of the underlying, ``value`` what one contract is worth at its mark,
    in the settlement currency. ``volatility`` is that which gives the mark. NaN where a contract is
    not listed. At the open at which it expires, ``years`` is 0 and ``value`` the payoff.
    """

    index_open: FloatArray
    forward_open: FloatArray
    volatility_open: FloatArray
    years_open: FloatArray
    value_open: FloatArray
    index_close: FloatArray
    forward_close: FloatArray
    volatility_close: FloatArray
    years_close: FloatArray
    value_close: FloatArray


class OptionState(NamedTuple):
    """What the model values options at, arrays of shape (m,); ``years`` are those to expiry.

    A volatility of NaN counts as 0: a mark at a bound has none.
    """

    forward: FloatArray
    volatility: FloatArray
    years: FloatArray


class Moves(NamedTuple):
    """Stretches of time in which a number of contracts was held, arrays of shape (m,).

    ``bars`` and ``options`` say where the profit is booked.
    """

    bars: IntArray
    options: IntArray
    quantities: FloatArray
    start: OptionState
    end: OptionState


def compute_greeks(
    terms: OptionTerms,
    options: IntArray,
    state: OptionState,
) -> Greeks:
    """Return the Greeks per unit of the underlying, of shape (m,) each.

    ``options`` (m,) are places in the terms.
    """
    from backtest.options.pricing import greeks  # noqa: PLC0415 - only with options

    return Greeks(*evaluate_rows(greeks, terms, options, state))


def compute_prices(
    terms: OptionTerms,
    options: IntArray,
    state: OptionState,
) -> FloatArray:
    """Return the prices per unit of the underlying, of shape (m,)."""
    from backtest.options.pricing import price  # noqa: PLC0415 - only with options

    return np.asarray(evaluate_rows(price, terms, options, state)[0])


def compute_volatilities(
    terms: OptionTerms,
    options: IntArray,
    forward: FloatArray,
    marks: FloatArray,
    years: FloatArray,
) -> FloatArray:
    """Return the volatilities that give some marks per unit, of shape (m,)."""
    from backtest.options.pricing import implied_volatility  # noqa: PLC0415 - only with options

    def invert(
        kind: Any,
        forward: Any,
        strike: Any,
        years: Any,
        mark: Any,
        rate: Any,
        settlement: Any,
    ) -> Any:
        return implied_volatility(
            kind,
            mark,
            forward,
            strike,
            years,
            rate,
            settlement,
        )

    # The volatility is what is sought: the mark takes its place in the state.
    state = OptionState(forward, volatility=marks, years=years)
    return np.asarray(evaluate_rows(invert, terms, options, state)[0])


def evaluate_rows(
    formula: Callable[..., Any],
    terms: OptionTerms,
    options: IntArray,
    state: OptionState,
) -> FloatArray:
    """Return what a formula of :mod:`backtest.options` gives for each option, of shape (7, m).

    A row for each Greek; of a formula that gives one number all rows are that number.
    """
    kinds = np.where(terms.signs[options] > 0.0, "call", "put")
    are_coin = terms.are_coin[options]
    values = np.full((len(Greeks._fields), len(options)), np.nan)

    # A call of the formula takes options of one settlement.
    for settlement in ("cash", "coin"):
        rows = np.flatnonzero(are_coin == (settlement == "coin"))
        if len(rows) == 0:
            continue

        places = options[rows]
        values[:, rows] = formula(
            kinds[rows],
            state.forward[rows],
            terms.strikes[places],
            np.maximum(state.years[rows], 0.0),
            np.nan_to_num(state.volatility[rows]),
            terms.rates[places],
            settlement,
        )
    return values


def measure_greeks(
    terms: OptionTerms,
    quotes: OptionQuotes,
    quantities: FloatArray,
) -> dict[str, FloatArray]:
    """Return the Greeks in money of what is held at each close, of shape (n_bars, K) by name.

    ``quantities`` (n_bars, K) are signed contracts; where none are held the Greeks are 0.
    """
    bars, options = np.nonzero(quantities)
    state = pick(quotes, "close", bars, options)
    greeks = compute_greeks(terms, options, state)
    amount = quantities[bars, options] * terms.sizes[options]
    index = quotes.index_close[bars, options]

    # In money: a Greek of one unit, times the units held and a power of the index. The divisor
    # makes it that of a usual step, as a day or a percent.
    table = {}
    for name, values, scale in zip(Greeks._fields, greeks, SCALES, strict=True):
        power, divisor = scale
        column = np.zeros(quantities.shape)
        column[bars, options] = values * amount * index**power / divisor
        table[name] = column
    return table


def pick(
    quotes: OptionQuotes,
    when: str,
    bars: IntArray,
    options: IntArray,
) -> OptionState:
    """Return the states of options at bars, an option and a bar each, of shape (m,).

    ``when`` is ``"open"`` or ``"close"``.
    """
    values = {}
    for name in OptionState._fields:
        table: FloatArray = getattr(quotes, f"{name}_{when}")
        values[name] = table[bars, options]
    return OptionState(**values)


def explain_profit(
    terms: OptionTerms,
    quotes: OptionQuotes,
    carried: FloatArray,
    opened: FloatArray,
    closed: FloatArray,
    profit: FloatArray,
    settled: FloatArray,
) -> dict[str, FloatArray]:
    """Return the parts of each option's profit in each bar, of shape (n_bars, K) by name.

    ``carried``, ``opened`` and ``closed`` (n_bars, K) are signed contracts at the last close, after
    the fills at the open, and at the close; ``profit`` is the price profit of the bar, ``settled``
    the price at which a contract expires inside the bar, else NaN.
    """
    # A bar's profit is that of the gap before its open, of the contracts held to its close, and
    # of those that ended inside it, which have what the other two leave.
    last_close = np.concatenate((quotes.value_open[:1], quotes.value_close[:-1]))
    profit_of_gap = multiply(carried, quotes.value_open - last_close)
    profit_to_close = multiply(closed, quotes.value_close - quotes.value_open)
    profit_of_ended = profit - profit_of_gap - profit_to_close

    all_moves = [
        follow_gap(quotes, carried),
        follow_bar(quotes, closed),
        follow_ended(terms, quotes, opened - closed, profit_of_ended, settled),
    ]
    parts = {name: np.zeros(profit.shape) for name in EXPLAINED}
    for moves in all_moves:
        for name, money in expand(terms, moves).items():
            np.add.at(parts[name], (moves.bars, moves.options), money)

    # What the expansion to second order leaves.
    parts["rest"] = profit - sum(parts.values())
    return parts


def follow_ended(
    terms: OptionTerms,
    quotes: OptionQuotes,
    ended: FloatArray,
    profit: FloatArray,
    settled: FloatArray,
) -> Moves:
    """Return the moves of contracts that ended inside a bar, from its open on.

    Those that expired end at the settlement, with no time left. Those that were traded end at the
    forward at which a contract is worth what they made: their ``profit`` over what they began with.
    """
    bars, options = np.nonzero(ended)
    quantities = ended[bars, options]
    start = pick(quotes, "open", bars, options)

    profit_of_one = profit[bars, options] / quantities
    value_at_end = quotes.value_open[bars, options] + profit_of_one
    value_per_unit = value_at_end / terms.sizes[options]
    forward_traded = find_forwards(terms, options, start, value_per_unit)

    settlement = settled[bars, options]
    has_expired = ~np.isnan(settlement)
    end = OptionState(
        forward=np.where(has_expired, settlement, forward_traded),
        volatility=start.volatility,
        years=np.where(has_expired, 0.0, start.years),
    )
    return Moves(
        bars=bars,
        options=options,
        quantities=quantities,
        start=start,
        end=end,
    )


def multiply(quantities: FloatArray, values: FloatArray) -> FloatArray:
    """Return products that are 0 where nothing is held, whatever the value (NaN too)."""
    return np.asarray(np.where(quantities != 0.0, quantities * values, 0.0))


def expand(terms: OptionTerms, moves: Moves) -> dict[str, FloatArray]:
    """Return the parts of the profit of some moves, to second order, of shape (m,) by name."""
    start = moves.start
    end = moves.end
    greeks = compute_greeks(terms, moves.options, start)
    forward_move = end.forward - start.forward
    volatility_move = np.nan_to_num(end.volatility - start.volatility)
    years_passed = start.years - end.years

    amount = moves.quantities * terms.sizes[moves.options]
    return {
        "delta": amount * (greeks.delta * forward_move),
        "gamma": amount * (0.5 * greeks.gamma * forward_move**2),
        "vega": amount * (greeks.vega * volatility_move),
        "theta": amount * (greeks.theta * years_passed),
        "vanna": amount * (greeks.vanna * forward_move * volatility_move),
        "volga": amount * (0.5 * greeks.volga * volatility_move**2),
    }


def follow_gap(quotes: OptionQuotes, carried: FloatArray) -> Moves:
    """Return the moves of what is held from a close to the next open."""
    bars, options = np.nonzero(carried[1:])
    return Moves(
        bars=bars + 1,
        options=options,
        quantities=carried[bars + 1, options],
        start=pick(quotes, "close", bars, options),
        end=pick(quotes, "open", bars + 1, options),
    )


def follow_bar(quotes: OptionQuotes, held: FloatArray) -> Moves:
    """Return the moves of what is held from an open to the close."""
    bars, options = np.nonzero(held)
    return Moves(
        bars=bars,
        options=options,
        quantities=held[bars, options],
        start=pick(quotes, "open", bars, options),
        end=pick(quotes, "close", bars, options),
    )


def find_forwards(
    terms: OptionTerms,
    options: IntArray,
    state: OptionState,
    value: FloatArray,
) -> FloatArray:
    """Return the forwards at which options have some values per unit, all else as in the state.

    By bisection in logarithms, from a thousandth of the forward of the state to a thousand times
    it. The value of a call rises with the forward, that of a put falls, in coins too.
    """
    if len(options) == 0:
        return state.forward

    low = state.forward / 1e3
    high = state.forward * 1e3
    for _ in range(STEPS):
        middle = np.sqrt(low * high)
        over = compute_prices(terms, options, state._replace(forward=middle)) - value

        # A call that is worth too little is sought above the middle, a put below it.
        is_above = terms.signs[options] * over < 0.0
        low = np.where(is_above, middle, low)
        high = np.where(is_above, high, middle)
    return np.asarray(np.sqrt(low * high))


def weigh_gamma(
    terms: OptionTerms,
    quotes: OptionQuotes,
    carried: FloatArray,
    opened: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Return the weight G S^2 dt of each option in each bar, and the weight times s_h^2.

    Both have the shape (n_bars, K). G is the gamma of all contracts at the start of a move, dt the
    years that it takes, s_h the implied volatility. An option hedged in its own settlement currency
    earns half of G S^2 (s^2 - s_h^2) dt, where s is the realized volatility. If that is a coin, G
    is still the gamma in cash, and the weight is divided by S.
    """
    weights = np.zeros(opened.shape)
    weighted_variances = np.zeros(opened.shape)
    in_cash = terms._replace(are_coin=np.zeros_like(terms.are_coin))

    # A bar has two moves: of what was carried from the last close to the open, and of what is held
    # from the open on to the close. An option that expires on the way ends with no time left.
    to_open = follow_gap(quotes, carried)
    to_close = follow_bar(quotes, opened)
    years_at_close = np.nan_to_num(to_close.end.years)
    to_close = to_close._replace(end=to_close.end._replace(years=years_at_close))

    for moves in (to_open, to_close):
        start = moves.start
        greeks = compute_greeks(in_cash, moves.options, start)
        amount = moves.quantities * terms.sizes[moves.options]

        # G S^2 dt, in a coin divided by S.
        power = np.where(terms.are_coin[moves.options], 1.0, 2.0)
        years = start.years - np.maximum(moves.end.years, 0.0)
        weight = amount * greeks.gamma * start.forward**power * years

        variance = np.nan_to_num(start.volatility) ** 2
        place = (moves.bars, moves.options)
        np.add.at(weights, place, weight)
        np.add.at(weighted_variances, place, weight * variance)
    return weights, weighted_variances
