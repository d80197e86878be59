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


class Moves(NamedTuple):
    """Stretches of time in which a number of contracts was held, arrays of shape (m,).

    ``bars`` and ``options`` say where the profit is booked. ``start`` and ``end`` have forward,
    volatility and years, of shape (3, m).
    """

    bars: IntArray
    options: IntArray
    quantities: FloatArray
    start: FloatArray
    end: FloatArray


def compute_greeks(terms: OptionTerms, options: IntArray, state: FloatArray) -> FloatArray:
    """Return the Greeks per unit of the underlying, of shape (7, m).

    ``options`` (m,) are places in the terms; ``state`` (3, m) has forward, volatility and years. A
    volatility of NaN counts as 0: a mark at a bound has none.
    """
    from backtest.options.pricing import greeks  # noqa: PLC0415 - only with options

    return evaluate_rows(greeks, terms, options, state)


def compute_prices(terms: OptionTerms, options: IntArray, state: FloatArray) -> FloatArray:
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

    state = np.stack([forward, marks, years])
    return np.asarray(evaluate_rows(invert, terms, options, state)[0])


def evaluate_rows(
    formula: Callable[..., Any],
    terms: OptionTerms,
    options: IntArray,
    state: FloatArray,
) -> FloatArray:
    """Return what a formula of :mod:`backtest.options` gives by row, of shape (values, m)."""
    forward, volatility, years = state
    kinds = np.where(terms.signs[options] > 0.0, "call", "put")
    values = np.full((len(Greeks._fields), len(options)), np.nan)
    for settlement in ("cash", "coin"):
        rows = np.flatnonzero(terms.are_coin[options] == (settlement == "coin"))
        if len(rows) == 0:
            continue

        values[:, rows] = formula(
            kinds[rows],
            forward[rows],
            terms.strikes[options[rows]],
            np.maximum(years[rows], 0.0),
            np.nan_to_num(volatility[rows]),
            terms.rates[options[rows]],
            settlement,
        )
    return values


def measure_greeks(
    terms: OptionTerms,
    quotes: OptionQuotes,
    quantities: FloatArray,
) -> dict[str, FloatArray]:
    """Return the Greeks in money of what is held at each close, of shape (n_bars, K) by name."""
    bars, options = np.nonzero(quantities)
    state = pick(quotes, "close", bars, options)
    greeks = compute_greeks(terms, options, state)
    amount = quantities[bars, options] * terms.sizes[options]
    index = quotes.index_close[bars, options]

    # In money: a Greek of one contract times contracts, a power of the index, and its unit.
    table = {}
    for name, values, scale in zip(Greeks._fields, greeks, SCALES, strict=True):
        power, per = scale
        column = np.zeros(quantities.shape)
        column[bars, options] = values * amount * index**power / per
        table[name] = column
    return table


def pick(
    quotes: OptionQuotes,
    when: str,
    bars: IntArray,
    options: IntArray,
) -> FloatArray:
    """Return forward, volatility and years at the open or the close of bars, of shape (3, m)."""
    rows = []
    for name in ("forward", "volatility", "years"):
        table: FloatArray = getattr(quotes, f"{name}_{when}")
        rows.append(table[bars, options])
    return np.stack(rows)


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
    years = start[2]

    profit_of_one = profit[bars, options] / quantities
    value_at_end = quotes.value_open[bars, options] + profit_of_one
    value_per_unit = value_at_end / terms.sizes[options]
    forward_traded = find_forwards(terms, options, start, value_per_unit)

    settlement = settled[bars, options]
    has_expired = ~np.isnan(settlement)
    end = start.copy()
    end[0] = np.where(has_expired, settlement, forward_traded)
    end[2] = np.where(has_expired, 0.0, years)
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
    greeks = Greeks(*compute_greeks(terms, moves.options, moves.start))
    forward_move = moves.end[0] - moves.start[0]
    volatility_move = np.nan_to_num(moves.end[1] - moves.start[1])
    years_passed = moves.start[2] - moves.end[2]

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
    state: FloatArray,
    value: FloatArray,
) -> FloatArray:
    """Return the forwards at which options have some values per unit, all else as in the state.

    The value of a call rises with the forward, that of a put falls, in coins too.
    """
    low = state[0] / 1e3
    high = state[0] * 1e3
    n_steps = STEPS if len(options) else 0

    for _ in range(n_steps):
        middle = np.sqrt(low * high)
        at_middle = np.stack([middle, *state[1:]])
        over = compute_prices(terms, options, at_middle) - value
        is_under = terms.signs[options] * over < 0.0
        low = np.where(is_under, middle, low)
        high = np.where(is_under, high, middle)
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
    to_close.end[2] = np.nan_to_num(to_close.end[2])

    for moves in (to_open, to_close):
        forward, volatility, years_at_start = moves.start
        years_at_end = np.maximum(moves.end[2], 0.0)
        greeks = Greeks(*compute_greeks(in_cash, moves.options, moves.start))
        amount = moves.quantities * terms.sizes[moves.options]

        # G S^2 dt, in a coin divided by S.
        power = np.where(terms.are_coin[moves.options], 1.0, 2.0)
        years = years_at_start - years_at_end
        weight = amount * greeks.gamma * forward**power * years
        place = (moves.bars, moves.options)
        np.add.at(weights, place, weight)
        np.add.at(weighted_variances, place, weight * np.nan_to_num(volatility) ** 2)
    return weights, weighted_variances
