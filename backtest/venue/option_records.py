"""Options of an account and the rules of their margin, as arrays for the kernels."""

from __future__ import annotations

from typing import NamedTuple

from backtest.base import BoolArray, FloatArray, IntArray

NONE, LONG, NET = 0, 1, 2
"""Which option values back the account: none, those of longs, all with their sign."""
BY_BRACKETS, BY_SCENARIOS, PER_OPTION, BY_STRATEGIES = 0, 1, 2, 3
"""How options are margined; brackets have no rule for a short."""


class OptionPositions(NamedTuple):
    """n options held: what they are, and what their values depend on; arrays of shape (n,).

    ``signs`` is 1 for a call and -1 for a put, ``sizes`` the units of the underlying per contract.
    ``bases`` is the forward of the expiry over the index, constant while the index moves.
    ``quantities`` (signed contracts) and ``indices`` are written before an evaluation; ``values``
    (of one contract by the model) and ``marks`` (its mark price) are in the settlement currency.
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
    """Scenarios of price and volatility of G groups with up to K rows each.

    ``moves`` (of the index), ``volatilities`` (relative, at ``days``) and ``weights`` have shape
    (G, K), of which row g uses the first ``counts[g]``. ``reliefs`` is what is taken off the loss
    of a row, and ``logs`` and ``roots`` have ln(1 + move) and the root of 1 + move.
    ``linear_moves`` is what futures are moved by. ``discounts`` has base, multiple of the rate and
    addition for long expiries, then for short ones. ``skew`` has cap and slope by root of time for
    the linear and the absolute row, least width, scale, level and slope of the volatility.
    ``expiry_charge`` has the move, the share of its loss, and the share per year.
    """

    counts: IntArray
    moves: FloatArray
    logs: FloatArray
    roots: FloatArray
    linear_moves: FloatArray
    volatilities: FloatArray
    weights: FloatArray
    reliefs: FloatArray
    short_power: float
    long_power: float
    days: float
    least_days: float
    least_volatility: float
    short_charge: float
    initial_short_charge: float
    delta_charge: float
    yearly_delta_charge: float
    has_discounts: bool
    discounts: FloatArray
    has_skew: bool
    skew: FloatArray
    has_expiry_charge: bool
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
    has_covered_itm: bool
    conversion: float
    loan_rate: float
    loan_years: float


class OptionScratch(NamedTuple):
    """Room for one evaluation of n options, E expiries, P pairs and K + 4 rows.

    ``table`` (n, K + 4) has the value of each option in each row, then in the two rows of the skew
    and the two of the charge by expiry. It stays right until an index, a volatility or the time
    changes. ``sums`` has shape (E, K + 4), ``losses`` (G, K), ``totals`` (E,), ``nets`` (P,),
    ``matches`` (n, n + 1), ``rows`` (6, n + 1) and ``paths`` (2, n + 1).
    """

    table: FloatArray
    sums: FloatArray
    losses: FloatArray
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
