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


def compute_forward(options: OptionPositions, i: int) -> float:
    """Return the forward of option i at its index, in quotes."""
    forward: float = options.indices[i] * options.bases[i]
    return forward


def find_cash_price(options: OptionPositions, i: int) -> float:
    """Return what a unit of the underlying of option i costs: 1 coin, or the index in cash."""
    if options.are_coin[i]:
        return 1.0
    price: float = options.indices[i]
    return price


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
    """Return the value of a contract of option i, its forward times a ratio."""
    price = b.scalar_price(
        options.signs[i],
        compute_forward(options, i) * ratio,
        options.strikes[i],
        options.years[i],
        volatility,
        options.rates[i],
        options.are_coin[i],
    )
    return float(options.sizes[i] * price)


def compute_option_delta(options: OptionPositions, i: int) -> float:
    """Return the delta of a contract of option i, undiscounted, in units of the underlying."""
    return float(options.sizes[i] * compute_greeks(options, i, 0.0).delta)


def is_vega_small(options: OptionPositions, i: int) -> bool:
    vega = compute_greeks(options, i, options.rates[i]).vega
    return bool(vega < SMALL_VEGA * compute_forward(options, i))


def compute_greeks(options: OptionPositions, i: int, rate: float) -> Greeks:
    """Return the greeks of a unit of option i at an interest rate, as if settled in cash."""
    return b.scalar_greeks(
        options.signs[i],
        compute_forward(options, i),
        options.strikes[i],
        options.years[i],
        options.volatilities[i],
        rate,
        False,
    )


def compute_counted_rate(rules: OptionRules, options: OptionPositions, i: int) -> float:
    """Return the share, 0 to 1, of the value of option i that counts as backing of the account.

    By ``rules.counted``. NET: longs and shorts count in full, shorts with their negative value.
    LONG: only longs count. NONE: no option counts, but a broker may lend a part of the value of
    longs (``loan_value``) that have more than ``loan_days`` to their expiry.
    """
    if rules.counted == NET:
        return 1.0
    # A short has no value that could back anything.
    if options.quantities[i] <= 0.0:
        return 0.0
    if rules.counted == LONG:
        return 1.0

    # The loan value. A long that may cover a short of its kind, call or put, has none.
    is_lasting = DAYS_PER_YEAR * options.years[i] > rules.rates.loan_days
    if not (rules.rates.loan_value > 0.0 and is_lasting):
        return 0.0
    for j in range(len(options.signs)):
        if is_alike(options, i, j) and options.quantities[j] < 0.0:
            return 0.0
    return rules.rates.loan_value


def is_alike(options: OptionPositions, i: int, j: int) -> bool:
    """Return whether two options are of one group, and both calls or both puts."""
    return bool(options.groups[j] == options.groups[i] and options.signs[j] == options.signs[i])


@of_options(returns=0.0)
def compute_counted_value(rules: OptionRules, options: OptionPositions) -> float:
    """Return what options add to the backing, at their marks."""
    total = 0.0
    for i in range(len(options.signs)):
        if options.quantities[i] != 0.0:
            rate = compute_counted_rate(rules, options, i)
            total += rate * (options.quantities[i] * options.marks[i])
    return total


@of_options(returns=0.0)
def compute_options_value(options: OptionPositions) -> float:
    """Return the value of all options at their marks, that of shorts negative."""
    total = 0.0
    for i in range(len(options.signs)):
        if options.quantities[i] != 0.0:
            total += options.quantities[i] * options.marks[i]
    return total


def is_first(options: OptionPositions, i: int) -> bool:
    """Return whether option i is the first of its expiry, which then stands for it."""
    for j in range(i):  # noqa: SIM110 - numba compiles no generators
        if options.expiries[j] == options.expiries[i]:
            return False
    return True


def compute_otm(options: OptionPositions, i: int, price: float) -> float:
    """Return how far a unit of option i is out of the money at a price, at least 0."""
    return float(max(0.0, options.signs[i] * (options.strikes[i] - price)))


def compute_payoff(options: OptionPositions, i: int, price: float) -> float:
    """Return the payoff of a unit of option i at a price of its underlying."""
    return float(max(0.0, options.signs[i] * (price - options.strikes[i])))
