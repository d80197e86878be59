"""Maintenance margin, initial margin and liquidation price of positions.

The functions of one position take a venue, and scalars or arrays; inside compiled policies they
take ``account.venue``. Each one broadcasts the scalar function of the same name, which also
compiles. The formulas and symbols are explained in :mod:`backtest.venue.requirement`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.base import FloatArray, Number, ParameterError, check_range, did_you_mean, repr_plain
from backtest.base.units import TOLERANCE
from backtest.venue import option_kernels, requirement_rule
from backtest.venue import portfolio_kernels as kernels
from backtest.venue.collateral import Collateral
from backtest.venue.option_contract import OptionPosition
from backtest.venue.option_kernels import OptionPool, compute_option_loss, compute_premiums
from backtest.venue.portfolio_kernels import Holdings, PortfolioRules, combine_scenarios
from backtest.venue.requirement import (
    MarginRules,
    compute_liquidation_value,
    compute_maintenance,
    compute_price,
    compute_rate,
    compute_setting,
    compute_value,
    read_rules,
)
from backtest.venue.requirement_rule import (
    MarginRule,
    Requirement,
    RequirementRule,
    Strategy,
    scenario_grid,
)
from backtest.venue.venue import agree_settlement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from backtest.venue.venue import Venue

    Numeric = float | FloatArray
    Options = OptionPosition | Sequence[OptionPosition]
    Venues = Venue | Mapping[str, Venue]
    Numbers = float | Mapping[str, float]
    Assets = Collateral | Sequence[Collateral]


__all__ = [
    "bankruptcy_price",
    "collateral_value",
    "initial",
    "largest_notional",
    "liquidation_price",
    "maintenance",
    "option_value",
    "requirement",
    "scenario_grid",
    "strategy_deposit",
    "survivable_notional",
]


def scalar_maintenance(rules: MarginRules, notional: float, multiplier: float) -> float:
    return compute_maintenance(rules, abs(notional), multiplier)


def scalar_largest_notional(rules: MarginRules, equity: float, leverage: float) -> float:
    if not leverage < math.inf:
        best = 0.0
        for k in range(len(rules.caps)):
            most = equity * rules.leverages[k] / rules.initial_multiplier
            best = max(best, min(rules.caps[k], most))
        return best
    cap = 0.0
    for k in range(len(rules.caps)):
        if rules.leverages[k] / rules.initial_multiplier >= leverage * (1.0 - TOLERANCE):
            cap = rules.caps[k]
    return max(0.0, min(cap, equity * leverage))


def scalar_survivable_notional(rules: MarginRules, equity: float, ratio: float) -> float:
    if equity <= 0.0:
        return 0.0
    move = 1.0 / ratio if rules.is_inverse else ratio
    lost, backing = abs(1.0 - move), equity
    if rules.is_isolated:
        setting = compute_setting(rules, rules.initial_multiplier)
        lost, backing = lost - 1.0 / setting, 0.0
    tested = 1.0 if rules.is_valued_at_entry else move
    rate = compute_rate(rules, 0, rules.multiplier)
    amount = 0.0
    for k in range(1, len(rules.floors)):
        if rules.floors[k] * (lost + rate * tested) > (backing + amount) * tested:
            break
        after = compute_rate(rules, k, rules.multiplier)
        amount += rules.floors[k] * (after - rate)
        rate = after
    slope = lost + rate * tested
    notional = math.inf if slope <= 0.0 else (backing + amount) / slope
    return min(notional, equity * setting) if rules.is_isolated else notional


def scalar_liquidation_price(
    rules: MarginRules,
    quantity: float,
    entry: float,
    collateral: float,
    multiplier: float,
    other_backing: float,
    other_maintenance: float,
) -> float:
    if quantity == 0.0:
        return math.nan
    value = compute_value(rules.size, rules.is_inverse, entry)
    backing = collateral + (other_backing - other_maintenance)
    base = backing - quantity * value
    root = compute_liquidation_value(rules, quantity, value, base, multiplier)
    if not math.isnan(root):
        return compute_price(rules.size, rules.is_inverse, root)
    needed = compute_maintenance(rules, abs(quantity * value), multiplier)
    return entry if backing <= needed * (1.0 + TOLERANCE) else math.nan


def scalar_bankruptcy_price(
    rules: MarginRules, quantity: float, entry: float, collateral: float
) -> float:
    if quantity == 0.0:
        return math.nan
    value = compute_value(rules.size, rules.is_inverse, entry) - collateral / quantity
    price = compute_price(rules.size, rules.is_inverse, value)
    return price if price > 0.0 else math.nan


OF_PRICES = (scalar_survivable_notional, scalar_liquidation_price, scalar_bankruptcy_price)
"""What a spot leg has only together with its account."""


def maintenance(
    venue: Venue | MarginRules, notional: Numeric, multiplier: Numeric | None = None
) -> Any:
    """Return the maintenance margin MM(N), in the settlement currency, of the broadcast shape.

    Parameters
    ----------
    venue : Venue
        The rules; inside a policy ``account.venue``.
    notional : float or array
        In the settlement currency; the sign is ignored.
    multiplier : float or array, optional
        Of maintenance margin, positive. Default: 1 for a venue, whose own multipliers belong to
        times; this bar's for ``account.venue``.

    Examples
    --------
    >>> from backtest import Venue
    >>> maintenance(Venue.preset("binance-usdm", "BTCUSDT@2024-10-24"), 550_000)
    2700.0
    """
    return _broadcast(scalar_maintenance, venue, notional, _read(multiplier, venue))


def largest_notional(
    venue: Venue | MarginRules, equity: Numeric, leverage: Numeric = math.inf
) -> Any:
    """Return the largest notional that initial margin allows, before costs; 0 where it allows none.

    It is under the multiplier of initial margin: this bar's for ``account.venue``, 1 for a venue.

    Parameters
    ----------
    venue : Venue
        The rules; inside a policy ``account.venue``.
    equity : float or array
        In the settlement currency.
    leverage : float or array
        The leverage set at the venue, positive: the largest cap whose bracket still allows it, and
        at most ``equity leverage``. Infinite (default): the best setting for the order,
        ``max_k min(C_k, equity X_k)``.
    """
    _check_positive("leverage", leverage)
    return _broadcast(scalar_largest_notional, venue, equity, leverage)


def liquidation_price(
    venue: Venue | MarginRules,
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
    venue : Venue
        The rules; inside a policy ``account.venue``.
    quantity : float or array
        Signed contracts.
    entry : float or array
        Average entry price, positive.
    collateral : float or array
        What backs the position, in the settlement currency: the posted margin, or the wallet
        balance in cross margin.
    multiplier : float or array, optional
        The multiplier of maintenance margin, as in :func:`maintenance`.
    other_backing, other_maintenance : float or array
        Of the other cross positions on the same collateral, at prices that stay where they are:
        their unrealized profit with collateral at its rates, and their maintenance margin.

    Examples
    --------
    >>> from backtest import Venue
    >>> venue = Venue.simple(taker=0.0005, slippage=0.0, maintenance_rate=0.004, max_leverage=100,
    ...                      liquidation_fee=0.0)
    >>> round(liquidation_price(venue, 1.0, 100.0, 5.0, other_maintenance=4.0), 4)
    99.3976
    """
    _check_positive("entry", entry)
    x = _read(multiplier, venue)
    others = (other_backing, other_maintenance)
    return _broadcast(scalar_liquidation_price, venue, quantity, entry, collateral, x, *others)


def survivable_notional(venue: Venue | MarginRules, equity: Numeric, ratio: Numeric) -> Any:
    """Return the largest notional, before a move of the price, that the move does not liquidate.

    It is the inverse of :func:`liquidation_price`. With u the value of a contract after the move
    over that before, it is the largest N with ``N |1 - u| + MM(u N) <= equity``: the left side is
    convex, and straight within a bracket. In isolated margin it is at most the equity times the
    leverage set at the venue, and 0 where that setting alone brings the liquidation price nearer
    than the move.

    Parameters
    ----------
    venue : Venue
        The rules; inside a policy ``account.venue``, which also says what backs a position.
    equity : float or array
        In the settlement currency. In cross margin all of it backs the position; in isolated
        margin (inside a policy) the margin that is posted for it, a fixed share of the notional.
    ratio : float or array
        The price after the move over that before, positive: under 1 for a long, over 1 for a short.
        NaN gives NaN.

    Examples
    --------
    >>> from backtest import Venue
    >>> venue = Venue.preset("binance-usdm", "BTCUSDT")
    >>> notional = survivable_notional(venue, 10_000, 0.9)
    >>> round(liquidation_price(venue, notional / 100.0, 100.0, 10_000), 9)
    90.0
    """
    _check_positive("ratio", ratio, is_nan_allowed=True)
    return _broadcast(scalar_survivable_notional, venue, equity, ratio)


def bankruptcy_price(
    venue: Venue | MarginRules, quantity: Numeric, entry: Numeric, collateral: Numeric
) -> Any:
    """Return the price at which the position has lost all that backs it; NaN where no price does.

    Parameters and errors are those of :func:`liquidation_price`.
    """
    _check_positive("entry", entry)
    return _broadcast(scalar_bankruptcy_price, venue, quantity, entry, collateral)


def _read(multiplier: Numeric | None, venue: Venue | MarginRules) -> Numeric:
    if multiplier is None:
        return venue.multiplier if isinstance(venue, MarginRules) else 1.0
    _check_positive("multiplier", multiplier)
    return multiplier


def _broadcast(
    function: Callable[..., float], venue: Venue | MarginRules, *numbers: Numeric
) -> Any:
    if not isinstance(venue, MarginRules) and not hasattr(venue, "brackets"):
        raise ParameterError(f"venue must be a Venue, got {repr_plain(venue)}")
    rules = venue if isinstance(venue, MarginRules) else read_rules(venue)
    if not isinstance(venue, MarginRules) and venue.contract.is_spot and function in OF_PRICES:
        raise ParameterError(
            "contract.kind must be margined, as the price that fails a spot leg is one of its "
            "whole account, got 'spot'; bt.calculate_book takes the account"
        )
    try:
        arrays = [np.asarray(number, dtype=np.float64) for number in numbers]
        flat = np.broadcast_arrays(*arrays)
    except (TypeError, ValueError, OverflowError) as error:
        problem = f"arguments must be numbers, or arrays of shapes that fit: {error}"
        raise ParameterError(problem) from error
    rows = zip(*(array.ravel().tolist() for array in flat), strict=True)
    values = np.array([function(rules, *row) for row in rows], dtype=np.float64)
    return float(values[0]) if not flat[0].shape else values.reshape(flat[0].shape)


def _check_positive(name: str, values: Numeric, *, is_nan_allowed: bool = False) -> None:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ParameterError(f"{name} must be numbers: {error}") from error
    array = array[~np.isnan(array)] if is_nan_allowed else array
    smallest = float(np.min(array)) if array.size else 1.0
    check_range(name, smallest, low=0.0, open_low=True)


PRICE = Number(0, open_low=True)
DEFAULT = requirement_rule.Brackets()


class Book(NamedTuple):
    rules: Mapping[str, MarginRules]
    packed: PortfolioRules
    quantities: Mapping[str, float]
    prices: Mapping[str, float]
    entries: Mapping[str, float]
    balance: float
    rule: MarginRule
    collateral: tuple[Collateral, ...]
    collateral_prices: tuple[float, ...]
    linked: Mapping[str, str]
    options: requirement_rule.OptionAccount | None = None
    ratios: Mapping[str, float] = MappingProxyType({})

    def value_of(self, name: str, price: float) -> float:
        return compute_value(self.rules[name].size, self.rules[name].is_inverse, price)

    def move(self, ratios: Mapping[str, float]) -> Book:
        prices = {name: price * ratios.get(name, 1.0) for name, price in self.prices.items()}
        collateral = tuple(
            price * ratios.get(self.linked.get(each.name, ""), 1.0)
            for each, price in zip(self.collateral, self.collateral_prices, strict=True)
        )
        of_groups, account = {}, self.options
        if account is not None:
            for group in account.groups:
                linked = (group, *account.list_linked(group, list(self.rules)))
                of_groups[group] = next((ratios[each] for each in linked if each in ratios), 1.0)
        return self._replace(prices=prices, collateral_prices=collateral, ratios=of_groups)

    def value_options(self) -> requirement_rule.OptionAccount | None:
        if self.options is not None:
            self.options.move(self.ratios)
        return self.options

    def hold(self) -> Holdings:
        return requirement_rule.pack_holdings(
            quantities=list(self.quantities.values()),
            values=[self.value_of(name, price) for name, price in self.prices.items()],
            entries=[self.value_of(name, price) for name, price in self.entries.items()],
            amounts=[each.amount for each in self.collateral],
            prices=self.collateral_prices,
        )

    def held(self) -> dict[str, float]:
        return {name: quantity for name, quantity in self.quantities.items() if quantity != 0.0}

    def profit_of(self, name: str) -> float:
        gained = self.value_of(name, self.prices[name]) - self.value_of(name, self.entries[name])
        return self.quantities[name] * gained

    def cash(self) -> float:
        """Return the balance less the margined positions at their entries."""
        entered = (
            self.quantities[name] * self.value_of(name, self.entries[name])
            for i, name in enumerate(self.rules)
            if not kernels.is_spot_leg(self.packed, i)
        )
        return self.balance - sum(entered)

    def backing(self) -> float:
        options, held = self.value_options(), self.hold()
        counted = 0.0 if options is None else options.counted_value()
        return float(kernels.compute_portfolio_backing(self.packed, held, self.cash())) + counted

    def requirement(self, *, is_initial: bool = False) -> float:
        held, options = self.hold(), self.value_options()
        if options is not None:
            return options.requirement(self.packed, held, is_initial=is_initial)
        if is_initial:
            return float(kernels.compute_portfolio_initial(self.packed, held))
        return float(kernels.compute_portfolio_requirement(self.packed, held))

    def requirement_at(self, index: Numbers | None, *, is_initial: bool) -> float:
        if index is None or not self.packed.has_scenarios or self.packed.own > 0:
            return self.requirement(is_initial=is_initial)
        prices = read_numbers("index", index, self.rules)
        held, account, charges = self.hold(), self.value_options(), 0.0
        values = [self.value_of(name, price) for name, price in prices.items()]
        at_index = held._replace(values=np.array(values, dtype=np.float64))
        if account is None:
            loss = kernels.compute_scenario_loss(self.packed, held)
        else:
            pool = OptionPool(self.packed, held, account.options, account.rules)
            loss = compute_option_loss(pool)
            charges = option_kernels.compute_short_charge(
                account.options, account.rules, is_initial
            )
        gross, offset = (
            kernels.compute_gross(self.packed, at_index),
            kernels.compute_offset(self.packed, at_index),
        )
        return float(combine_scenarios(self.packed, loss, gross, offset, is_initial) + charges)

    def distance(self) -> float:
        return self.backing() - self.packed.level * self.requirement()

    def is_failing(self) -> bool:
        needed = self.packed.level * self.requirement()
        return not self.is_flat() and self.backing() <= needed * (1.0 + TOLERANCE)

    def is_flat(self) -> bool:
        options = () if self.options is None else self.options.given
        return not self.held() and all(each.quantity == 0.0 for each in options)


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

    Raises ParameterError if names do not fit, a number is NaN or infinite, or a price is not
    positive.

    Parameters
    ----------
    venues : Venue or Mapping
        The venue of all instruments, or of each by name.
    quantities : float or Mapping
        Signed contracts of each instrument by name; one that is left out is not held.
    prices : float or Mapping
        The mark price of each instrument.
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
        The prices at which gross notional is valued for ``minimum`` and the contingencies, where a
        venue values them at an index instead of the mark; default: the prices.
    options : OptionPosition or sequence of them
        Options of the same account, whose margin the rule knows: :class:`ScenarioMargin`,
        :class:`Standard`, :class:`Strategy`, or a preset with options.

    Examples
    --------
    >>> import backtest as bt
    >>> venues = bt.Venue.preset("binance-usdm", ["BTCUSDT", "ETHUSDT"])
    >>> held, prices = {"BTCUSDT": 1.0, "ETHUSDT": -20.0}, {"BTCUSDT": 60_000, "ETHUSDT": 3_000}
    >>> bt.margin.requirement(venues, held, prices)
    480.0
    >>> hedged = bt.ScenarioMargin(moves=[-0.1, 0.1], groups={"coins": ["BTCUSDT", "ETHUSDT"]},
    ...                            minimum=0.005)
    >>> bt.margin.requirement(venues, held, prices, hedged)
    600.0
    """
    book = read_book(
        venues, quantities, prices, rule, entries=entries, collateral=collateral,
        collateral_prices=collateral_prices, options=options,
    )  # fmt: skip
    return book.requirement_at(index, is_initial=False)


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
    """Return the initial margin of some positions on one collateral.

    Parameters and errors are those of :func:`requirement`. Under brackets it is the sum of each
    notional over the largest leverage of the bracket that holds it, or over ``venue_leverage``, the
    leverage set at the venue, which scenarios do not use. That of a long spot leg is without its
    haircut, which what backs the positions does not contain.
    """
    book = read_book(
        venues, quantities, prices, rule, collateral=collateral,
        collateral_prices=collateral_prices, options=options, venue_leverage=venue_leverage,
    )  # fmt: skip
    return book.requirement_at(index, is_initial=True)


def collateral_value(collateral: Assets, prices: Numbers | None = None) -> float:
    """Return what some collateral counts for: its value at its rates, debts in full.

    Raises ParameterError if a price is missing, not positive, or not finite.

    Parameters
    ----------
    collateral : Collateral or sequence of them
        The assets.
    prices : float, or Mapping by name
        The price of each, in the settlement currency; default: its constant price, or the last
        mark close of its market.

    Returns
    -------
    float
        In the settlement currency.

    Examples
    --------
    >>> import backtest as bt
    >>> tiers = [(0, 100e6, 1.0), (100e6, 120e6, 0.975)]
    >>> bt.margin.collateral_value(bt.Collateral("BTC", 5500, prices=20_000, tiers=tiers))
    109750000.0
    """
    assets = requirement_rule.list_given("collateral", collateral, Collateral)
    if prices is None:
        found = [each.last_price() for each in assets]
    else:
        found = [*read_numbers("prices", prices, [each.name for each in assets]).values()]
    return float(sum(each.value_at(price) for each, price in zip(assets, found, strict=True)))


# ------------------------------------------------------------------------------ the arguments


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
    tables: Any = [each for each in (venues, quantities, prices) if isinstance(each, Mapping)]
    names = tuple(map(str, tables[0] if tables else "0"))  # a single instrument has no name
    given: Any = venues if isinstance(venues, Mapping) else dict.fromkeys(names, venues)
    missing = [name for name in names if not hasattr(given.get(name), "brackets")]
    if missing:
        raise ParameterError(
            f"venues must give a Venue for every instrument, got {repr_plain(venues):.80} "
            f"for {', '.join(missing)}"
        )
    chosen = {name: given[name] for name in names}
    held = read_numbers("quantities", quantities, names, Number(), missing=0.0)
    priced = read_numbers("prices", prices, names)
    rules = {name: read_rules(venue) for name, venue in chosen.items()}
    agree_settlement({name: venue.contract for name, venue in chosen.items()})
    if venue_leverage is not None:
        is_table = isinstance(venue_leverage, Mapping)
        every = venue_leverage if is_table else dict.fromkeys(names, venue_leverage)
        settings = read_numbers("venue_leverage", every, names)
        rules = {name: rule._replace(setting=settings[name]) for name, rule in rules.items()}
    assets = requirement_rule.list_given("collateral", collateral, Collateral)
    linked = {each.name: each.prices for each in assets if isinstance(each.prices, str)}
    unknown = [name for name, instrument in linked.items() if instrument not in names]
    if unknown:
        raise ParameterError(
            f"prices of collateral {unknown[0]!r} must be a number or an instrument of the book, "
            f"{', '.join(names)}, got {linked[unknown[0]]!r}"
        )
    if collateral_prices is None:
        worth = {
            each.name: priced[linked[each.name]] if each.name in linked else each.last_price()
            for each in assets
        }
    else:
        worth = read_numbers("prices", collateral_prices, [each.name for each in assets])
    checked: MarginRule = Requirement().check("rule", rule)
    listed = requirement_rule.list_given("options", options, OptionPosition)
    account = requirement_rule.make_option_account(listed, checked, rules) if listed else None
    known, groups = (checked, ()) if account is None else (account.rule, account.names)
    packed = known.pack(rules, assets, underlyings=groups)
    haircuts = [venue.contract.haircut for venue in chosen.values()]
    return Book(
        rules=rules,
        packed=packed._replace(spot=requirement_rule.pack_spot(haircuts)),
        quantities=held,
        prices=priced,
        entries=priced if entries is None else read_numbers("entries", entries, names),
        balance=Number().check("balance", balance),
        rule=known,
        collateral=assets,
        collateral_prices=tuple(worth[each.name] for each in assets),
        linked=linked,
        options=account,
    )


def read_numbers(
    noun: str,
    given: Any,
    names: Iterable[str],
    number: Number = PRICE,
    missing: float | None = None,
) -> dict[str, float]:
    order, is_table = list(names), isinstance(given, Mapping)
    found = dict(given) if is_table else dict.fromkeys(order[:1], given)
    unknown = [name for name in found if name not in order]
    absent = [name for name in order if name not in found]
    if unknown or (absent and (missing is None or not is_table)):
        hint = did_you_mean(unknown[0], order) if unknown else ""
        raise ParameterError(
            f"{noun} must have one number for each of {', '.join(order)}, "
            f"got {repr_plain(given)}{hint}"
        )
    return {name: float(number.check(f"{noun}.{name}", found.get(name, missing))) for name in order}


REG_T = Strategy()


def strategy_deposit(
    venues: Venues,
    quantities: Numbers,
    prices: Numbers,
    rule: MarginRule | str = REG_T,
    *,
    options: Options,
    proceeds: bool = True,
) -> float:
    """Return what a strategy has to be deposited with when it is opened at its marks.

    It is the initial margin and, with ``proceeds``, what longs cost at their marks, less what the
    shorts that they cover bring and the loan value of longs. Naked shorts, and those that shares
    cover, are without their proceeds. Cboe's manual counts so; LEAN publishes the initial margin
    alone. The account itself uses the requirement.

    Parameters
    ----------
    venues, quantities, prices
        Shares, as in :func:`requirement`; ``{}`` without any. Those of the options' group cover
        shorts.
    rule : Strategy or str
        The rule, or the name of a preset of strategies.
    options : OptionPosition or sequence of them
        The options, settled in cash.
    proceeds : bool
        As above.

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
    account = book.options
    if account is None or not isinstance(account.rule, Strategy):
        got = "no options" if account is None else type(book.rule).__name__
        raise ParameterError(f"a deposit is of options under a bt.Strategy, got {got}")
    needed = book.requirement(is_initial=True)
    if not proceeds:
        return needed
    pool = OptionPool(book.packed, book.hold(), account.options, account.rules)
    premiums = compute_premiums(pool)
    return float(needed + premiums - account.counted_value())


def option_value(options: Options, rule: MarginRule | str) -> float:
    """Return what options add to the backing of an account under a rule, at their marks.

    Under portfolio margin that is the value of all options, of shorts negative. :class:`Standard`
    counts what its ``option_value`` says, :class:`Strategy` the loan value of longs. ``rule`` may
    be the name of a preset.

    Examples
    --------
    >>> import backtest as bt
    >>> put = bt.OptionPosition("BTC-26JUN26-50000-P", 2, 60_000, "2026-05-27", mark=0.01)
    >>> rule = bt.Standard(initial=0.15, least=0.1, maintenance=0.075)
    >>> bt.margin.option_value(put, rule)
    0.0
    >>> bt.margin.option_value(put, rule.override(option_value="long"))
    0.02
    """
    listed = requirement_rule.list_given("options", options, OptionPosition)
    if not listed:
        return 0.0
    checked: MarginRule = Requirement().check("rule", rule)
    return requirement_rule.make_option_account(listed, checked, {}).counted_value()
