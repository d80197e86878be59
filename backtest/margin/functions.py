"""Maintenance margin, initial margin and liquidation price of positions.

The functions of one position take a venue, and scalars or arrays; inside compiled policies they
take ``account.venue``. Each broadcasts the scalar function of its name, which also compiles. The
formulas are explained in :mod:`backtest.margin.brackets`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from backtest.core import Fault, FloatArray, ParameterError, Real, did_you_mean, repr_plain
from backtest.core.units import TOLERANCE
from backtest.core.values import float_if_single
from backtest.margin import brackets as b
from backtest.margin import option_kernels, option_values, strategy_kernels
from backtest.margin import option_packing as o
from backtest.margin import portfolio_kernels as kernels
from backtest.margin import requirement_rule as r
from backtest.margin.brackets import MarginRules, read_rules
from backtest.margin.collateral import Collateral
from backtest.margin.option_values import OptionPool, OptionPositions, OptionRules
from backtest.margin.portfolio_kernels import Holdings, PortfolioRules
from backtest.margin.preset_tables import find_asset
from backtest.margin.requirement_rule import MarginRule, RequirementRule
from backtest.margin.rule_tables import pack_spot
from backtest.venue.contract import agree_settlement
from backtest.venue.contract_value import compute_value
from backtest.venue.option_contract import OptionPosition
from backtest.venue.venue import Venue, read_venue
from backtest.venue.venue import VenueLike as Venues

Numeric = float | FloatArray
Options = OptionPosition | Sequence[OptionPosition]
Numbers = float | Mapping[str, float]
Assets = Collateral | Sequence[Collateral]

HAS_COMPILED_VERSIONS = True
"""Compiled code has other functions for those of this module, of the same names."""


def scalar_maintenance(rules: MarginRules, notional: float, multiplier: float) -> float:
    return b.compute_maintenance(rules, abs(notional), multiplier)


def scalar_largest_notional(rules: MarginRules, equity: float, leverage: float) -> float:
    """Return the largest notional that an equity opens at a leverage set at the venue: money.

    An infinite leverage stands for the best setting for the order: that of the bracket which allows
    most. The multiplier of initial margin divides the leverages of the brackets.
    """
    if leverage < math.inf:
        cap = b.compute_cap(rules, leverage, rules.initial_multiplier)
        return max(0.0, min(cap, equity * leverage))

    # The best setting for the order.
    largest = 0.0
    for k in range(len(rules.caps)):
        carried = equity * rules.leverages[k] / rules.initial_multiplier
        largest = max(largest, min(rules.caps[k], carried))
    return largest


def scalar_survivable_notional(rules: MarginRules, equity: float, ratio: float) -> float:
    """Return the largest notional that survives a move of the price to ``ratio`` times the price.

    It survives if the backing after the loss still covers the maintenance margin. In cross margin
    the ``equity``, money, is the backing. In isolated margin only the posted margin is, which is
    the notional / leverage set at the venue; the equity limits how much can be posted. Infinite if
    any notional survives.
    """
    if equity <= 0.0:
        return 0.0
    # The value of an inverse contract moves the other way.
    value_ratio = ratio
    if rules.is_inverse:
        value_ratio = 1.0 / ratio
    lost = abs(1.0 - value_ratio)
    if not rules.is_isolated:
        return find_survivable(rules, backing=equity, lost=lost, move=value_ratio)

    # Isolated: each unit of notional has posted 1 / setting, which pays for as much of the loss.
    # There is no other backing: 0.
    setting = b.compute_setting(rules, rules.initial_multiplier)
    lost_over_margin = lost - 1.0 / setting
    notional = find_survivable(rules, backing=0.0, lost=lost_over_margin, move=value_ratio)
    return min(notional, equity * setting)


def find_survivable(rules: MarginRules, backing: float, lost: float, move: float) -> float:
    """Return the largest notional N with ``N * lost + MM(N * move) <= backing``; infinite if any.

    In a move of the price a notional of 1 loses ``lost``, and is worth ``move`` after it. MM is the
    maintenance margin, of the notional after the move, or at venues that say so at the entry.
    ``backing`` is money.

    In a bracket of the margin table MM(x) is rate * x - amount. So the loop finds the bracket of
    the answer, and the last line solves the inequality there.
    """
    # The notional that the venue margins, per unit of the notional at the entry.
    tested = 1.0 if rules.is_valued_at_entry else move

    # The answer lies in the last bracket whose floor survives: N with N * tested = floor. Both
    # sides of the inequality are multiplied by ``tested``, so that nothing is divided.
    rate = b.compute_rate(rules, 0, rules.multiplier)
    amount = 0.0
    for k in range(1, len(rules.floors)):
        floor = rules.floors[k]
        if floor * (lost + rate * tested) > (backing + amount) * tested:
            break

        # MM has no jump at a floor, so the amount grows by what the rate grows there.
        next_rate = b.compute_rate(rules, k, rules.multiplier)
        amount += floor * (next_rate - rate)
        rate = next_rate

    # What is lost and required together does not grow with the notional: any notional survives.
    slope = lost + rate * tested
    if slope <= 0.0:
        return math.inf
    return (backing + amount) / slope


def scalar_liquidation_price(
    rules: MarginRules,
    quantity: float,
    entry: float,
    collateral: float,
    multiplier: float,
    other_backing: float,
    other_maintenance: float,
) -> float:
    """Return the price at which a position is liquidated while other prices stay; NaN if none.

    ``quantity`` are signed contracts, ``entry`` their average price. The position is backed by
    ``collateral`` and by what the other positions of its pool leave: ``other_backing`` less their
    ``other_maintenance``, all money.
    """
    if quantity == 0.0:
        return math.nan
    value = compute_value(rules.size, rules.is_inverse, entry)
    backing = collateral + (other_backing - other_maintenance)
    # The backing at a contract value of 0: the profit quantity * (v - value) grows from there.
    base = backing - quantity * value
    root = b.compute_liquidation_value(rules, quantity, value, base, multiplier)
    if not math.isnan(root):
        return b.compute_price(rules.size, rules.is_inverse, root)

    # No price is the point of failure: the position fails at every price, also at its entry, or at
    # none. Rounding counts against the trader.
    needed = b.compute_maintenance(rules, abs(quantity * value), multiplier)
    if backing <= needed * (1.0 + TOLERANCE):
        return entry
    return math.nan


def scalar_bankruptcy_price(
    rules: MarginRules, quantity: float, entry: float, collateral: float
) -> float:
    if quantity == 0.0:
        return math.nan
    value = compute_value(rules.size, rules.is_inverse, entry) - collateral / quantity
    price = b.compute_price(rules.size, rules.is_inverse, value)
    if price > 0.0:
        return price
    return math.nan


OF_PRICES = (scalar_survivable_notional, scalar_liquidation_price, scalar_bankruptcy_price)
"""What a spot leg has only together with its account."""
PRICE = Real(0, open_low=True)
OVER_ZERO = Real(0, open_low=True, may_be_infinite=True)
DEFAULT, REG_T = r.Brackets(), r.Strategy()


def maintenance(
    venue: Venue | MarginRules | str, notional: Numeric, multiplier: Numeric | None = None
) -> Any:
    """Return the maintenance margin MM(N), in the settlement currency, of the broadcast shape.

    ``venue`` is ``account.venue`` inside a policy. The sign of ``notional`` is ignored. Default of
    ``multiplier``: 1 for a venue, whose own multipliers belong to times; this bar's for
    ``account.venue``.

    Examples
    --------
    >>> from backtest import Venue
    >>> maintenance(Venue.preset("binance-usdm", "BTCUSDT@2024-10-24"), 550_000)
    2700.0
    """
    return _broadcast(scalar_maintenance, venue, notional, _read(multiplier, venue))


def largest_notional(
    venue: Venue | MarginRules | str, equity: Numeric, leverage: Numeric = math.inf
) -> Any:
    """Return the largest notional that initial margin allows, before costs; 0 where it allows none.

    It is under the multiplier of initial margin: this bar's for ``account.venue``, 1 for a venue.
    ``equity`` is in the settlement currency. ``leverage`` is set at the venue: the largest cap
    whose bracket still allows it, and at most ``equity leverage``. Infinite: the best setting for
    the order, ``max_k min(C_k, equity X_k)``.
    """
    check_each("leverage", leverage, OVER_ZERO, is_nan_allowed=False)
    return _broadcast(scalar_largest_notional, venue, equity, leverage)


def liquidation_price(
    venue: Venue | MarginRules | str,
    quantity: Numeric,
    entry: Numeric,
    collateral: Numeric,
    multiplier: Numeric | None = None,
    other_backing: Numeric = 0.0,
    other_maintenance: Numeric = 0.0,
) -> Any:
    """Return the price at which the collateral and the profit equal the maintenance margin.

    It is the entry where the requirement fails at every price, and NaN where no price liquidates.

    Parameters
    ----------
    quantity, entry : float or array
        Signed contracts and their average entry price.
    collateral : float or array
        What backs the position, in the settlement currency: the posted margin, or the wallet
        balance in cross margin.
    multiplier : float or array, optional
        Of maintenance margin, as in :func:`maintenance`.
    other_backing, other_maintenance : float or array
        Of other cross positions, at prices that stay where they are: unrealized profit with
        collateral at its rates, and maintenance margin.
    """
    check_each("entry", entry, OVER_ZERO, is_nan_allowed=False)
    return _broadcast(
        scalar_liquidation_price,
        venue,
        quantity,
        entry,
        collateral,
        _read(multiplier, venue),
        other_backing,
        other_maintenance,
    )


def survivable_notional(venue: Venue | MarginRules | str, equity: Numeric, ratio: Numeric) -> Any:
    """Return the largest notional, before a move of the price, that the move does not liquidate.

    With u the value of a contract after the move over that before, it is the largest N with ``N |1
    - u| + MM(u N) <= equity``. ``ratio`` is the price after the move over that before: under 1 for
    a long, over 1 for a short. In isolated margin (inside a policy) the margin that is posted backs
    the position: at most the equity times the leverage set at the venue, and 0 where that setting
    alone brings the liquidation price nearer than the move.

    Examples
    --------
    >>> from backtest import Venue
    >>> venue = Venue.preset("binance-usdm", "BTCUSDT")
    >>> notional = survivable_notional(venue, 10_000, 0.9)
    >>> round(liquidation_price(venue, notional / 100.0, 100.0, 10_000), 9)
    90.0
    """
    check_each("ratio", ratio, OVER_ZERO)
    return _broadcast(scalar_survivable_notional, venue, equity, ratio)


def bankruptcy_price(
    venue: Venue | MarginRules | str, quantity: Numeric, entry: Numeric, collateral: Numeric
) -> Any:
    """Return the price at which a position has lost all that backs it; NaN where none does."""
    check_each("entry", entry, OVER_ZERO, is_nan_allowed=False)
    return _broadcast(scalar_bankruptcy_price, venue, quantity, entry, collateral)


def _read(multiplier: Numeric | None, venue: Venue | MarginRules | str) -> Numeric:
    if multiplier is None:
        return venue.multiplier if isinstance(venue, MarginRules) else 1.0
    check_each("multiplier", multiplier, OVER_ZERO, is_nan_allowed=False)
    return multiplier


def _broadcast(
    function: Callable[..., float], venue: Venue | MarginRules | str, *numbers: Numeric
) -> Any:
    """Call ``function(rules, *numbers)`` for single numbers or arrays, broadcast as in NumPy.

    ``rules`` are the margin rules of the venue. The answer has the broadcast shape of the numbers;
    it is a float if all of them are single. Raises ParameterError for a venue that is none, for
    numbers that are none or whose shapes do not fit, and for a spot contract if the function is one
    of OF_PRICES: the price that fails a spot leg depends on its whole account.
    """
    rules: Any = venue
    if isinstance(venue, str):
        rules = read_venue(venue)
    if not isinstance(rules, MarginRules):
        if not hasattr(rules, "brackets"):
            raise ParameterError(f"venue must be a Venue, got {repr_plain(rules)}")
        if rules.contract.is_spot and function in OF_PRICES:
            raise ParameterError(
                "contract.kind must be margined, as the price that fails a spot leg is one of its "
                "whole account, got 'spot'; bt.calculate_book needs the account"
            )
        rules = read_rules(rules)

    to_floats = partial(np.asarray, dtype=np.float64)
    try:
        arrays = np.broadcast_arrays(*map(to_floats, numbers))
    except (TypeError, ValueError, OverflowError) as error:
        problem = f"arguments must be numbers, or arrays of shapes that fit: {error}"
        raise ParameterError(problem) from error
    scalar = np.vectorize(partial(function, rules), otypes=[np.float64])
    return float_if_single(scalar(*arrays))


def check_each(
    name: str, value: object, number: Real, *, is_nan_allowed: bool = True
) -> FloatArray:
    """Return a number or an array as floats; raise ParameterError for the first out of range.

    ``number`` declares the range, ``name`` is that of the argument, for messages.
    """
    # Objects may be numbers: Decimal, or a row of several types.
    array = np.asarray(value)
    if array.dtype.kind == "O":
        with contextlib.suppress(TypeError, ValueError):
            array = array.astype(np.float64)
    # Integers and floats; texts, bools and times are no numbers.
    if array.dtype.kind not in "iuf":
        raise ParameterError(f"{name} must be numbers, got {repr_plain(value)}")

    numbers = array.astype(np.float64)
    bad = numbers[~(number.admits(numbers) | (is_nan_allowed & np.isnan(numbers)))]
    if bad.size:
        # The declaration says the rule that the first of them breaks.
        try:
            number.read(float(bad.flat[0]))
        except Fault as fault:
            places = f" in {bad.size} of {numbers.size} places" if numbers.size > 1 else ""
            raise ParameterError(f"{name} {fault}, got {bad.flat[0]:g}{places}") from None
    return numbers


@dataclass(frozen=True)
class Book:  # REPLACE
    """Cross positions on one collateral, by arrays in the order of ``names``, and options.

    ``cash`` is the balance less margined positions at their entries. ``followed`` is the instrument
    whose price each collateral has, empty if none. ``listed`` are the options as they were given,
    ``options`` their arrays; ``offsets`` is mark less value of each.
    """

    names: tuple[str, ...]
    rule: MarginRule
    packed: PortfolioRules
    held: Holdings
    prices: FloatArray
    entries: FloatArray
    balance: float
    cash: float
    followed: tuple[str, ...]
    listed: tuple[OptionPosition, ...]
    groups: tuple[str, ...]
    options: OptionPositions
    option_rules: OptionRules
    offsets: FloatArray

    @property
    def option_groups(self) -> list[str]:
        """The name of the group of each option."""
        return [self.groups[number] for number in self.options.groups.tolist()]

    def list_linked(self, group: str) -> list[str]:
        """Return the instruments that move with the index of a group of options."""
        labels = set()
        for position, option_group in zip(self.listed, self.option_groups, strict=True):
            if option_group == group:
                labels.add(position.label)
        assets = {*map(find_asset, (group, *labels))}
        return [name for name in self.names if name in labels or find_asset(name) in assets]

    def move(self, moving: Collection[str], ratio: float) -> Book:
        """Return the book after a move: prices of what is ``moving`` times a ratio, others stay.

        ``moving`` names instruments and groups of options. Collateral that has the price of an
        instrument moves with it, and an index of options with its group and with linked
        instruments. Marks of options keep their distance to the values by the model.
        """
        # An inverse contract is worth size / price, so its value moves the other way.
        is_moving = [name in moving for name in self.names]
        price_factors = np.where(is_moving, ratio, 1.0)
        powers = np.where(self.packed.brackets.are_inverse, -1.0, 1.0)
        values = self.held.values * price_factors**powers

        is_asset_moving = [name in moving for name in self.followed]
        asset_factors = np.where(is_asset_moving, ratio, 1.0)
        prices = self.held.prices * asset_factors
        held = self.held._replace(values=values, prices=prices)

        # An index moves with its group, and with any instrument that is linked to it.
        moved_groups = set()
        for group in {*self.option_groups}:
            linked = {group, *self.list_linked(group)}
            if not linked.isdisjoint(moving):
                moved_groups.add(group)
        are_moved = [group in moved_groups for group in self.option_groups]
        indices = self.options.indices * np.where(are_moved, ratio, 1.0)
        options = self.options._replace(indices=indices, values=self.options.values.copy())
        option_kernels.fill_options(options, self.option_rules)

        # Marks keep their distance to the model's values.
        marks = np.maximum(0.0, options.values + self.offsets)
        return replace(self, held=held, options=options._replace(marks=marks))

    def option_value(self) -> float:
        return float(option_values.compute_counted_value(self.option_rules, self.options))

    def backing(self) -> float:
        of_positions = kernels.compute_portfolio_backing(self.packed, self.held, self.cash)
        return float(of_positions) + self.option_value()

    def requirement(
        self, gross_values: FloatArray | None = None, *, is_initial: bool = False
    ) -> float:
        """Return the margin that the book requires, money: maintenance margin, or initial margin.

        ``gross_values`` are contract values at index prices, of shape (n instruments,). Scenario
        rules compute their minimum and contingencies from the notional at these, while losses are
        computed at the prices of the book. None, and rules without scenarios, use those alone.
        """
        # Writes the value of each option in each scenario, which the kernels below read.
        option_kernels.fill_options(self.options, self.option_rules)
        counts_at_index = self.packed.has_scenarios and self.packed.own == 0
        if gross_values is None or not counts_at_index:
            return float(option_kernels.compute_option_requirement(self.pool(), is_initial))

        # The requirement in its parts: the loss at the prices of the book, the rest at the index.
        loss = option_kernels.compute_option_loss(self.pool())
        charge = option_kernels.compute_short_charge(self.options, self.option_rules, is_initial)
        held = self.held._replace(values=gross_values)
        return charge + kernels.combine_scenarios(self.packed, held, loss, is_initial)

    def pool(self) -> OptionPool:
        return OptionPool(self.packed, self.held, self.options, self.option_rules)

    def distance(self) -> float:
        return self.backing() - self.packed.level * self.requirement()

    def is_failing(self) -> bool:
        needed = self.packed.level * self.requirement()
        return not self.is_flat() and self.backing() <= needed * (1.0 + TOLERANCE)

    def is_flat(self) -> bool:
        return not (self.held.quantities.any() or self.options.quantities.any())


def requirement(
    venues: Venues,
    quantities: Numbers,
    prices: Numbers,
    rule: RequirementRule | MarginRule = DEFAULT,
    *,
    collateral: Assets = (),
    collateral_prices: Numbers | None = None,
    entries: Numbers | None = None,
    index: Numbers | None = None,
    options: Options = (),
) -> float:
    """Return R, the maintenance requirement of some positions on one collateral.

    The positions fail where what backs them is at most ``rule.level`` times R.

    Parameters
    ----------
    venues : Venue or Mapping
        The venue of all instruments, or of each by name.
    quantities, prices : float or Mapping
        Signed contracts, 0 if left out, and mark price of each instrument by name.
    rule : RequirementRule
        :class:`Brackets` (default), :class:`ScenarioMargin`, the name of a preset, or an object
        with the two methods of :class:`RequirementRule`.
    collateral : Collateral or sequence of them
        Assets; those that cancel risk lower the losses of their group.
    collateral_prices : float or Mapping
        The price of each; default: its constant price, or the last mark close of its market.
    entries : float or Mapping
        Average entry prices, for venues that value maintenance at entry; default: the prices.
    index : float or Mapping
        The prices at which ``minimum`` and the contingencies value gross notional, if at an index;
        default: the prices.
    options : OptionPosition or sequence of them
        Options of the same account, whose margin the rule knows: :class:`ScenarioMargin`,
        :class:`Standard`, :class:`Strategy`, or a preset with options.

    Examples
    --------
    >>> import backtest as bt
    >>> venues = bt.Venue.preset("binance-usdm", ["BTCUSDT", "ETHUSDT"])
    >>> held, prices = {"BTCUSDT": 1.0, "ETHUSDT": -20.0}, {"BTCUSDT": 60_000, "ETHUSDT": 3_000}
    >>> hedged = bt.ScenarioMargin(moves=[-0.1, 0.1], groups={"coins": ["BTCUSDT", "ETHUSDT"]},
    ...                            minimum=0.005)
    >>> [bt.margin.requirement(venues, held, prices, rule) for rule in (bt.Brackets(), hedged)]
    [480.0, 600.0]
    """
    book = read_book(
        venues, quantities, prices, rule, entries=entries, collateral=collateral,
        collateral_prices=collateral_prices, options=options,
    )  # fmt: skip
    return book.requirement(read_index(book, index))


def read_index(book: Book, index: Numbers | None) -> FloatArray | None:
    """Return the contract values of a book's instruments at index prices; None without them.

    ``index`` is a price for each instrument by name, or one number for a single instrument.
    """
    if index is None:
        return None

    prices = read_numbers("index", index, book.names)
    brackets = book.packed.brackets
    values = []
    for i, price in enumerate(prices.values()):
        values.append(compute_value(brackets.sizes[i], brackets.are_inverse[i], price))
    return np.array(values)


def initial(
    venues: Venues,
    quantities: Numbers,
    prices: Numbers,
    rule: RequirementRule | MarginRule = DEFAULT,
    *,
    collateral: Assets = (),
    collateral_prices: Numbers | None = None,
    index: Numbers | None = None,
    venue_leverage: Numbers | None = None,
    options: Options = (),
) -> float:
    """Return the initial margin of some positions on one collateral; see :func:`requirement`.

    Under brackets it is the sum of each notional over the largest leverage of the bracket that
    holds it, or over ``venue_leverage``, the leverage set at the venue, which scenarios do not use.
    That of a long spot leg is without its haircut, which what backs the positions does not contain.
    """
    book = read_book(
        venues, quantities, prices, rule, collateral=collateral,
        collateral_prices=collateral_prices, options=options, venue_leverage=venue_leverage,
    )  # fmt: skip
    return book.requirement(read_index(book, index), is_initial=True)


def collateral_value(collateral: Assets, prices: Numbers | None = None) -> float:
    """Return what collateral counts for at prices: its value at its rates, debts in full.

    ``prices`` are by name, in the settlement currency; default: constant prices, or the last mark
    close of each market.
    """
    assets = r.list_given("collateral", collateral, Collateral)
    worth = list_worth(assets, prices, {})
    return float(sum(map(Collateral.value_at, assets, worth)))


def read_book(
    venues: Venues,
    quantities: Numbers,
    prices: Numbers,
    rule: RequirementRule | MarginRule | str,
    *,
    balance: float = 0.0,
    entries: Numbers | None = None,
    collateral: Assets = (),
    collateral_prices: Numbers | None = None,
    options: Options = (),
    venue_leverage: Numbers | None = None,
) -> Book:
    """Return the positions, collateral and options that a user names as one book under a rule.

    The arguments are those of :func:`requirement`, ``balance`` is realized money. All is checked,
    and packed into the arrays that compiled code reads. Raises ParameterError.
    """
    positions = read_positions(venues, quantities, prices, entries, venue_leverage)
    names = positions.names

    # Collateral, which may follow the price of an instrument.
    assets = r.list_given("collateral", collateral, Collateral)
    followed = list_followed(assets, names)
    worth = list_worth(assets, collateral_prices, positions.prices)

    # Options, and the rule that margins all of it.
    declared: MarginRule = r.Requirement().check("rule", rule)
    listed = r.list_given("options", options, OptionPosition)
    resolved = declared.resolve(names, [position.label for position in listed])
    book_options = pack_options(listed, resolved, positions)
    packed = resolved.pack(positions.rules, assets, underlyings=book_options.groups)
    packed = packed._replace(spot=pack_spot(positions.haircuts))

    held = Holdings(
        quantities=np.array(positions.quantities, dtype=np.float64),
        entries=value_contracts(positions.rules, positions.entries),
        values=value_contracts(positions.rules, positions.prices),
        amounts=np.array([asset.amount for asset in assets], dtype=np.float64),
        prices=np.array(worth, dtype=np.float64),
    )

    # Spot was paid for with its notional at the entry, a margined position with nothing.
    money = Real().check("balance", balance)
    notionals = held.quantities * held.entries
    is_margined = ~packed.spot.are_spot
    return Book(
        names=names,
        rule=resolved,
        packed=packed,
        held=held,
        prices=np.array([*positions.prices.values()]),
        entries=np.array([*positions.entries.values()]),
        balance=money,
        cash=money - float(np.sum(notionals * is_margined)),
        followed=followed,
        listed=listed,
        groups=book_options.groups,
        options=book_options.arrays,
        option_rules=book_options.rules,
        offsets=book_options.arrays.marks - book_options.arrays.values,
    )


class BookPositions(NamedTuple):
    """The positions of a book in the order of ``names``: contracts held, prices, entry prices.

    ``rules`` are the margin rules of the instruments. ``haircuts`` are those of spot contracts,
    None of margined ones.
    """

    names: tuple[str, ...]
    rules: Mapping[str, MarginRules]
    haircuts: list[float | None]
    quantities: list[float]
    prices: Mapping[str, float]
    entries: Mapping[str, float]


def read_positions(
    venues: Venues,
    quantities: Numbers,
    prices: Numbers,
    entries: Numbers | None,
    venue_leverage: Numbers | None,
) -> BookPositions:
    """Return the positions that a user names at the venues of their instruments; all is checked.

    Without ``entries`` they were opened at today's prices.
    """
    venue_by_name = read_venues(venues, quantities, prices)
    names = tuple(venue_by_name)
    held_contracts = read_numbers("quantities", quantities, names, Real(), missing=0.0)
    prices_now = read_numbers("prices", prices, names)
    entered = prices_now if entries is None else read_numbers("entries", entries, names)

    contracts = {name: venue.contract for name, venue in venue_by_name.items()}
    agree_settlement(contracts)
    rules = {name: read_rules(venue) for name, venue in venue_by_name.items()}
    if venue_leverage is not None:
        rules = set_leverage(rules, venue_leverage)

    return BookPositions(
        names=names,
        rules=rules,
        haircuts=[contract.haircut for contract in contracts.values()],
        quantities=[*held_contracts.values()],
        prices=prices_now,
        entries=entered,
    )


class BookOptions(NamedTuple):
    """The options of a book as arrays, what the rule needs of them, and the names of their groups.

    A group has the options of one underlying.
    """

    arrays: OptionPositions
    rules: OptionRules
    groups: tuple[str, ...]


def pack_options(
    listed: Sequence[OptionPosition],
    rule: MarginRule,
    positions: BookPositions,
) -> BookOptions:
    """Return options under a rule as arrays; one without a mark has its value by the model.

    Raises ParameterError if the rule margins no options, or not these.
    """
    if listed:
        o.check_options(listed, rule, positions.rules)
    labels = [position.label for position in listed]
    groups, group_numbers = o.number_groups(rule, labels, positions.names)
    arrays = o.pack_options(listed, group_numbers)
    rules = o.pack_option_rules(rule, arrays, groups, positions.names)

    option_kernels.fill_options(arrays, rules)
    is_unmarked = np.isnan(arrays.marks)
    arrays.marks[is_unmarked] = arrays.values[is_unmarked]
    return BookOptions(arrays, rules, groups)


def read_venues(venues: Venues, quantities: Numbers, prices: Numbers) -> dict[str, Venue]:
    """Return the venue of each instrument by name.

    Each argument is a table by instrument, or one value. The first that is a table names the
    instruments; one venue is that of all of them. Without a table there is one instrument, "0".
    """
    venues = read_venue(venues)

    names: tuple[str, ...] = ("0",)
    for table in (venues, quantities, prices):
        if isinstance(table, Mapping):
            names = tuple(map(str, table))
            break

    by_name: Any = venues
    if not isinstance(venues, Mapping):
        by_name = dict.fromkeys(names, venues)
    missing = [name for name in names if not hasattr(by_name.get(name), "brackets")]
    if missing:
        raise ParameterError(
            f"venues must give a Venue for every instrument, got {repr_plain(venues):.80} "
            f"for {', '.join(missing)}"
        )
    return {name: by_name[name] for name in names}


def set_leverage(
    rules: Mapping[str, MarginRules], venue_leverage: Numbers
) -> dict[str, MarginRules]:
    """Return rules with the leverage set at the venue, one for all or one for each."""
    by_name: Any = venue_leverage
    if not isinstance(venue_leverage, Mapping):
        by_name = dict.fromkeys(rules, venue_leverage)
    settings = read_numbers("venue_leverage", by_name, rules)
    return {name: row._replace(setting=settings[name]) for name, row in rules.items()}


def list_followed(assets: Sequence[Collateral], names: Sequence[str]) -> tuple[str, ...]:
    """Return for each asset the name of the instrument whose price it has, empty if it has its own.

    ``names`` are the instruments of the book; raises ParameterError for any other.
    """
    followed = []
    for asset in assets:
        instrument = ""
        if isinstance(asset.prices, str):
            instrument = asset.prices

        if instrument and instrument not in names:
            raise ParameterError(
                f"prices of collateral {asset.name!r} must be a number or an instrument of the "
                f"book, {', '.join(names)}, got {instrument!r}"
            )
        followed.append(instrument)
    return tuple(followed)


def value_contracts(rules: Mapping[str, MarginRules], prices: Mapping[str, float]) -> FloatArray:
    """Return the contract value of a contract of each instrument at a price."""
    values = []
    for name, row in rules.items():
        values.append(compute_value(row.size, row.is_inverse, prices[name]))
    return np.array(values, dtype=np.float64)


def list_worth(
    assets: Sequence[Collateral], prices: Numbers | None, instrument_prices: Mapping[str, float]
) -> list[float]:
    """Return the price of each collateral asset, in their order.

    That of ``prices`` by name, if these are given; else that of the instrument that the asset
    follows (``instrument_prices`` by name), or the asset's own last price.
    """
    if prices is not None:
        asset_names = [asset.name for asset in assets]
        by_name = read_numbers("prices", prices, asset_names)
        return [by_name[name] for name in asset_names]

    worth = []
    for asset in assets:
        if isinstance(asset.prices, str) and asset.prices in instrument_prices:
            worth.append(instrument_prices[asset.prices])
        else:
            worth.append(asset.last_price())
    return worth


def read_numbers(
    noun: str,
    numbers: Any,
    names: Iterable[str],
    number: Real = PRICE,
    missing: float | None = None,
) -> dict[str, float]:
    """Return a number for each of ``names``, in their order, from what a user gave.

    That is a table by name, or one number if there is a single name. ``missing`` is the number of
    names that a table leaves out; with None it must have all. ``number`` declares the range, and
    ``noun`` is the argument in messages. Raises ParameterError.
    """
    order = list(names)
    is_table = isinstance(numbers, Mapping)
    by_name = dict(numbers) if is_table else dict.fromkeys(order[:1], numbers)

    # A single number is that of the first name: with more names the others are absent.
    unknown = [name for name in by_name if name not in order]
    is_any_absent = not {*order} <= {*by_name}
    if unknown or (is_any_absent and (missing is None or not is_table)):
        hint = did_you_mean(unknown[0], order) if unknown else ""
        raise ParameterError(
            f"{noun} must have one number for each of {', '.join(order)}, "
            f"got {repr_plain(numbers)}{hint}"
        )

    checked = {}
    for name in order:
        checked[name] = float(number.check(f"{noun}.{name}", by_name.get(name, missing)))
    return checked


def strategy_deposit(
    venues: Venues,
    quantities: Numbers,
    prices: Numbers,
    rule: MarginRule | str = REG_T,
    *,
    options: Options,
    proceeds: bool = True,
) -> float:
    """Return the money that a broker asks for when an option strategy is opened at its marks.

    It is the initial margin and, with ``proceeds``, the premiums: what longs cost, less what the
    shorts that they cover bring, and less the loan value of longs. Premiums of naked shorts, and of
    shorts that shares cover, do not count. Cboe's margin manual counts in this way. LEAN publishes
    the initial margin alone, which is ``proceeds=False``. Simulated accounts use
    :func:`requirement`, not the deposit.

    Shares are given as in :func:`requirement`, ``{}`` without any; the options are settled in cash.
    Raises ParameterError without options, or under a rule that is not a Strategy.

    Examples
    --------
    >>> import backtest as bt
    >>> def leg(strike, quantity, mark):
    ...     call = bt.Option(kind="call", strike=strike, expiry="2026-06-19", size=100,
    ...                      underlying="XYZ")
    ...     return bt.OptionPosition(call, quantity, index=550, at="2026-06-01", mark=mark)
    >>> butterfly = [leg(545, 1, 12.4), leg(550, -2, 8.8), leg(565, 1, 2.0)]
    >>> round(bt.margin.strategy_deposit({}, {}, {}, options=butterfly), 6)
    680.0
    """
    book = read_book(venues, quantities, prices, rule, options=options)
    if not book.listed or not isinstance(book.rule, r.Strategy):
        got = "no options"
        if book.listed:
            got = type(book.rule).__name__
        raise ParameterError(f"a deposit is of options under a bt.Strategy, got {got}")

    needed = book.requirement(is_initial=True)
    if not proceeds:
        return needed

    premiums = strategy_kernels.compute_premiums(book.pool())
    return float(needed + premiums - book.option_value())


def option_value(options: Options, rule: MarginRule | str) -> float:
    """Return what options add to the backing of an account under a rule, at their marks.

    Under portfolio margin the value of all options, of shorts negative; under :class:`Standard`
    what its ``option_value`` says; under :class:`Strategy` the loan value of longs.
    """
    return read_book({}, {}, {}, rule, options=options).option_value()
