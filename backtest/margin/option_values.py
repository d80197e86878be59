"""The options of an account and their values, in functions that also compile.

The index moves at a constant basis: the forward moves with it. Time stands still. An option that
settles in coins is worth its cash value over the moved forward.
"""

from __future__ import annotations

from typing import NamedTuple

from backtest.core import BoolArray, FloatArray, Greeks, IntArray
from backtest.core import black_kernels as b
from backtest.core.kernels import of_options
from backtest.margin.portfolio_kernels import Holdings, PortfolioRules

NONE, LONG, NET = 0, 1, 2
"""Which option values back the account: none, those of longs, all with their sign."""


BY_BRACKETS, BY_SCENARIOS, PER_OPTION, BY_STRATEGIES = 0, 1, 2, 3
"""How options are margined; brackets have no rule for a short."""


class OptionPositions(NamedTuple):
    """n options held: what they are, and what their values depend on; arrays of shape (n,).

    ``signs`` is 1 for a call and -1 for a put, ``sizes`` the units of the underlying per contract,
    ``bases`` the forward of the expiry over the index. ``values`` (by the model) and ``marks`` are
    those of one contract in the settlement currency.
    """

    signs: FloatArray
    strikes: FloatArray
    sizes: FloatArray
    are_coin: BoolArray
    groups: IntArray
    expiries: IntArray
    pairs: IntArray
    years: FloatArray
    rates: FloatArray
    volatilities: FloatArray
    bases: FloatArray
    indices: FloatArray
    quantities: FloatArray
    values: FloatArray
    marks: FloatArray


class ShockTables(NamedTuple):
    """What scenarios are for options; arrays of shape (G, K) as those of ``ScenarioTables``.

    ``logs`` is ln(1 + move) and ``roots`` the root of 1 + move. The others are those of
    ``OptionShocks``; ``discounts``, ``skew`` and ``expiry_charge`` are empty if there are none.
    """

    moves: FloatArray
    logs: FloatArray
    roots: FloatArray
    volatilities: FloatArray
    reliefs: FloatArray
    days: float
    least_days: float
    least_volatility: float
    power: FloatArray
    short_charge: FloatArray
    delta_charge: FloatArray
    discounts: FloatArray
    skew: FloatArray
    expiry_charge: FloatArray


class OptionRates(NamedTuple):
    initial: float
    least: float
    maintenance: float
    of_mark: float
    factor: float
    naked: float
    least_call: float
    least_put: float
    covered_itm: float
    conversion: float
    loan_value: float
    loan_days: float


class OptionScratch(NamedTuple):
    """Room for one evaluation of n options, E expiries, P pairs and K + 4 rows.

    ``table`` (n, K + 4) has the value of each option in each row, then in the two rows of the skew
    and the two of the charge by expiry. It stays right until an index, a volatility or the time
    changes. ``sums`` is (E, K + 4), ``totals`` (E,), ``nets`` (P,), ``matches`` (n, n + 1),
    ``rows`` (5, n + 1) and ``paths`` (2, n + 1).
    """

    table: FloatArray
    sums: FloatArray
    totals: FloatArray
    nets: FloatArray
    matches: FloatArray
    rows: FloatArray
    paths: IntArray


class OptionRules(NamedTuple):
    kind: int
    counted: int
    underlyings: IntArray
    shocks: ShockTables
    rates: OptionRates
    scratch: OptionScratch


class OptionPool(NamedTuple):
    """The options of an account with what else it holds, and the rules of both."""

    packed: PortfolioRules
    held: Holdings
    options: OptionPositions
    rules: OptionRules


DAYS_PER_YEAR = 365.0


SMALL_VEGA = 1e-4
"""A vega under this share of the forward says nothing of a spread in volatility."""


def compute_option_value(
    options: OptionPositions, i: int, ratio: float, volatility: float
) -> float:
    forward, strike = options.indices[i] * options.bases[i] * ratio, options.strikes[i]
    sign, years, rate = options.signs[i], options.years[i], options.rates[i]
    price = b.scalar_price(sign, forward, strike, years, volatility, rate, options.are_coin[i])
    return float(options.sizes[i] * price)


def compute_option_delta(options: OptionPositions, i: int) -> float:
    return float(options.sizes[i] * compute_greeks(options, i, 0.0).delta)


def is_vega_small(options: OptionPositions, i: int) -> bool:
    forward = options.indices[i] * options.bases[i]
    return bool(compute_greeks(options, i, options.rates[i]).vega < SMALL_VEGA * forward)


def compute_greeks(options: OptionPositions, i: int, rate: float) -> Greeks:
    forward, strike = options.indices[i] * options.bases[i], options.strikes[i]
    years, volatility = options.years[i], options.volatilities[i]
    return b.scalar_greeks(options.signs[i], forward, strike, years, volatility, rate, False)


def compute_counted_rate(rules: OptionRules, options: OptionPositions, i: int) -> float:
    if rules.counted == NET:
        return 1.0
    if options.quantities[i] <= 0.0:
        return 0.0
    if rules.counted == LONG:
        return 1.0
    is_lasting = DAYS_PER_YEAR * options.years[i] > rules.rates.loan_days
    if not (rules.rates.loan_value > 0.0 and is_lasting):
        return 0.0
    shorts = 0
    for j in range(len(options.signs)):
        is_alike = options.groups[j] == options.groups[i] and options.signs[j] == options.signs[i]
        shorts += is_alike and options.quantities[j] < 0.0
    return rules.rates.loan_value if shorts == 0 else 0.0


@of_options(returns=0.0)
def compute_counted_value(rules: OptionRules, options: OptionPositions) -> float:
    total = 0.0
    for i in range(len(options.signs)):
        if options.quantities[i] != 0.0:
            rate = compute_counted_rate(rules, options, i)
            total += rate * (options.quantities[i] * options.marks[i])
    return total


@of_options(returns=0.0)
def compute_options_value(options: OptionPositions) -> float:
    total = 0.0
    for i in range(len(options.signs)):
        if options.quantities[i] != 0.0:
            total += options.quantities[i] * options.marks[i]
    return total


def is_first(options: OptionPositions, i: int) -> bool:
    count = 0
    for j in range(i):
        count += options.expiries[j] == options.expiries[i]
    return count == 0


def compute_otm(options: OptionPositions, i: int, price: float) -> float:
    return float(max(0.0, options.signs[i] * (options.strikes[i] - price)))


def compute_payoff(options: OptionPositions, i: int, price: float) -> float:
    return float(max(0.0, options.signs[i] * (price - options.strikes[i])))
