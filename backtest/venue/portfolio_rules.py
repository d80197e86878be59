"""The margin rules of a portfolio of positions on one collateral, as arrays for the kernels.

Arrays have one row per instrument, group or collateral, in the order in which they were given, and
are padded on the right. Values ``u`` are those of one contract in the settlement currency
(:mod:`backtest.venue.contract_value`). :mod:`backtest.venue.portfolio_tables` builds the records.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from backtest.base import BoolArray, FloatArray, IntArray
from backtest.venue.requirement import MarginRules


class BracketTables(NamedTuple):
    """The bracket rules of n instruments: :class:`MarginRules` with one row for each.

    ``floors``, ``caps``, ``rates``, ``amounts`` and ``leverages`` have shape (n, K), of which row i
    uses the first ``counts[i]``; all others have shape (n,). A run writes the multipliers of its
    bar into ``multipliers`` and ``initial_multipliers``.
    """

    counts: IntArray
    floors: FloatArray
    caps: FloatArray
    rates: FloatArray
    amounts: FloatArray
    leverages: FloatArray
    close_fees: FloatArray
    takers: FloatArray
    sizes: FloatArray
    settings: FloatArray
    are_inverse: BoolArray
    are_isolated: BoolArray
    are_valued_at_entry: BoolArray
    multipliers: FloatArray
    initial_multipliers: FloatArray


class ScenarioTables(NamedTuple):
    """The scenarios of G groups of instruments, and what is added to their worst loss.

    ``moves`` and ``weights`` have shape (G, K), of which row g uses the first ``counts[g]``.
    ``members`` has the instruments sorted by group, those of group g from ``starts[g]`` up to
    ``starts[g + 1]``. ``products`` is the product of each group, of ``n_products``; the groups of
    one product have as many rows each. If ``is_same_row``, a product's loss is that of its worst
    row; otherwise each group has its own worst row. ``initial_factor`` and
    ``initial_contingency`` take the place of ``factor`` and ``contingency`` in initial margin.
    ``nets``, of shape (G, 2), is room in which the net notionals are written: like the multipliers,
    it belongs to one run.
    """

    counts: IntArray
    moves: FloatArray
    weights: FloatArray
    members: IntArray
    starts: IntArray
    products: IntArray
    n_products: int
    is_same_row: bool
    offset: float
    factor: float
    minimum: float
    contingency: float
    pair_contingency: float
    initial_factor: float
    initial_contingency: float
    nets: FloatArray


class CollateralTables(NamedTuple):
    """The rates of C collateral assets, in marginal tiers of their value.

    ``floors``, ``caps`` and ``rates`` have shape (C, T), of which row c uses the first
    ``counts[c]``. ``groups`` is the group whose risk the asset cancels, -1 for none. ``slippages``
    is how much under the open a conversion sells, as a fraction of the price.
    """

    counts: IntArray
    floors: FloatArray
    caps: FloatArray
    rates: FloatArray
    groups: IntArray
    slippages: FloatArray


class SpotTables(NamedTuple):
    """Which of n instruments are spot legs, and the haircut of each; of shape (1,) without any."""

    has_any: bool
    are_spot: BoolArray
    haircuts: FloatArray


class PortfolioRules(NamedTuple):
    brackets: BracketTables
    scenarios: ScenarioTables
    collateral: CollateralTables
    has_scenarios: bool
    level: float
    spot: SpotTables


class Holdings(NamedTuple):
    """What an account holds, and the prices at which it is valued.

    ``quantities`` (signed contracts), ``entries`` and ``values`` (u at the entry and now) have
    shape (n,); ``amounts`` (a debt is negative) and ``prices`` of collateral have shape (C,). The
    value of an instrument that is not held is not read, so that it may be NaN.
    """

    quantities: FloatArray
    entries: FloatArray
    values: FloatArray
    amounts: FloatArray
    prices: FloatArray


def pick_rules(tables: BracketTables, i: int) -> MarginRules:
    count = tables.counts[i]
    floors: Any = tables.floors[i, :count]
    caps: Any = tables.caps[i, :count]
    rates: Any = tables.rates[i, :count]
    amounts: Any = tables.amounts[i, :count]
    leverages: Any = tables.leverages[i, :count]
    return MarginRules(
        floors=floors,
        caps=caps,
        rates=rates,
        amounts=amounts,
        leverages=leverages,
        close_fee=tables.close_fees[i],
        taker=tables.takers[i],
        size=tables.sizes[i],
        setting=tables.settings[i],
        is_inverse=tables.are_inverse[i],
        is_isolated=tables.are_isolated[i],
        is_valued_at_entry=tables.are_valued_at_entry[i],
        multiplier=tables.multipliers[i],
        initial_multiplier=tables.initial_multipliers[i],
    )


def is_spot_leg(rules: PortfolioRules, i: int) -> bool:
    return bool(rules.spot.has_any and rules.spot.are_spot[i])


def is_cross(quantity: float, is_isolated: bool) -> bool:
    return quantity != 0.0 and not is_isolated


def is_in_pool(rules: PortfolioRules, held: Holdings, i: int) -> bool:
    return is_cross(held.quantities[i], rules.brackets.are_isolated[i])
