"""The public functions of :mod:`backtest.venue.margin` for a portfolio on one collateral."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.base import Number, ParameterError, did_you_mean, repr_plain
from backtest.venue.collateral import Collateral
from backtest.venue.contract_value import compute_value
from backtest.venue.option_account import (
    OptionAccount,
    list_given,
    make_option_account,
)
from backtest.venue.option_contract import OptionPosition
from backtest.venue.option_kernels import (
    compute_option_loss,
    compute_premiums,
    compute_short_charge,
)
from backtest.venue.own_requirement import OwnMargin, Requirement, ask_rule
from backtest.venue.portfolio_kernels import (
    Holdings,
    PortfolioRules,
    combine_scenarios,
    compute_gross,
    compute_offset,
    compute_portfolio_initial,
    compute_portfolio_requirement,
    compute_scenario_loss,
)
from backtest.venue.requirement import MarginRules, read_rules
from backtest.venue.requirement_rule import (
    BoundRule,
    Brackets,
    MarginRule,
    RequirementRule,
    Strategy,
)
from backtest.venue.venue_parts import agree_settlement

if TYPE_CHECKING:
    from collections.abc import Iterable

    from backtest.venue.venue import Venue

    Options = OptionPosition | Sequence[OptionPosition]
    Venues = Venue | Mapping[str, Venue] | Sequence[Venue]
    Numbers = float | Mapping[str, float] | Sequence[float]
    Assets = Collateral | Sequence[Collateral]

PRICE = Number(0, open_low=True)
DEFAULT = Brackets()


class PricedPositions(NamedTuple):
    rules: dict[str, MarginRules]
    quantities: dict[str, float]
    prices: dict[str, float]
    haircuts: tuple[float | None, ...]


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

    Parameters
    ----------
    venues : Venue, Mapping or sequence
        The venue of all instruments, or of each by name or in order.
    quantities : float, Mapping or sequence
        Signed contracts of each instrument; one that a mapping leaves out is not held.
    prices : float, Mapping or sequence
        The mark price of each instrument.
    rule : RequirementRule
        :class:`Brackets` (default), :class:`ScenarioMargin`, the name of a preset, or an object
        with the two methods of :class:`RequirementRule`.
    collateral : Collateral or sequence of them
        Assets of which those that cancel risk lower the losses of their group.
    collateral_prices : float, Mapping or sequence
        The price of each; default: its constant price, or the last mark close of its market.
    entries : float, Mapping or sequence
        Average entry prices, for venues that value maintenance at entry; default: the prices.
    index : float, Mapping or sequence
        The prices at which gross notional is valued for ``minimum`` and the contingencies, where a
        venue values them at an index instead of the mark; default: the prices.
    options : OptionPosition or sequence of them
        Options of the same account, whose margin the rule knows: :class:`ScenarioMargin`,
        :class:`Standard`, :class:`Strategy`, or a preset with options.

    Returns
    -------
    float
        In the settlement currency, at least 0. The positions fail where what backs them is at most
        ``rule.level`` times this.

    Raises
    ------
    ParameterError
        If names do not fit, a number is NaN or infinite, or a price is not positive.

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
    priced = read_positions(venues, quantities, prices)
    rule = read_rule(rule)
    if isinstance(rule, OwnMargin):
        return call_own_rule(rule, "requirement", priced, options)
    bound = bind(rule, priced, collateral, collateral_prices, entries)
    return compute_bound(bound, priced, index, options, is_initial=False)


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
    priced = read_positions(venues, quantities, prices)
    if venue_leverage is not None:
        priced = set_leverage(priced, venue_leverage)
    rule = read_rule(rule)
    if isinstance(rule, OwnMargin):
        return call_own_rule(rule, "initial", priced, options)
    bound = bind(rule, priced, collateral, collateral_prices, None)
    return compute_bound(bound, priced, index, options, is_initial=True)


def collateral_value(collateral: Assets, prices: Numbers | None = None) -> float:
    """Return what some collateral counts for: its value at its rates, debts in full.

    Parameters
    ----------
    collateral : Collateral or sequence of them
        The assets.
    prices : float, Mapping by name, or sequence
        The price of each, in the settlement currency; default: its constant price, or the last
        mark close of its market.

    Returns
    -------
    float
        In the settlement currency.

    Raises
    ------
    ParameterError
        If a price is missing, not positive, or not finite.

    Examples
    --------
    >>> import backtest as bt
    >>> tiers = [(0, 100e6, 1.0), (100e6, 120e6, 0.975)]
    >>> bt.margin.collateral_value(bt.Collateral("BTC", 5500, prices=20_000, tiers=tiers))
    109750000.0
    """
    assets = list_given("collateral", collateral, Collateral)
    found = price_assets(assets, prices)
    return float(sum(each.value_at(price) for each, price in zip(assets, found, strict=True)))


# ------------------------------------------------------------------------------ the arguments


def read_positions(venues: Venues, quantities: Numbers, prices: Numbers) -> PricedPositions:
    names = name_instruments(venues, quantities, prices)
    chosen = match_venues(venues, names)
    held = read_numbers("quantities", quantities, names, Number(), missing=0.0)
    priced = read_numbers("prices", prices, names)
    rules = {name: read_rules(venue) for name, venue in chosen.items()}
    agree_settlement({name: venue.contract for name, venue in chosen.items()})
    haircuts = tuple(venue.contract.haircut for venue in chosen.values())
    return PricedPositions(rules, held, priced, haircuts)


def set_leverage(priced: PricedPositions, leverage: Numbers) -> PricedPositions:
    given = leverage if isinstance(leverage, Mapping) or is_row(leverage) else None
    each = dict.fromkeys(priced.rules, leverage) if given is None else given
    found = read_numbers("venue_leverage", each, priced.rules)
    rules = {name: rule._replace(setting=found[name]) for name, rule in priced.rules.items()}
    return priced._replace(rules=rules)


def name_instruments(venues: Any, quantities: Any, prices: Any) -> tuple[str, ...]:
    for given in (venues, quantities, prices):
        if isinstance(given, Mapping):
            return tuple(str(name) for name in given)
    counts = [len(each) for each in (venues, quantities, prices) if is_row(each)]
    if len(set(counts)) > 1:
        raise ParameterError(f"venues, quantities and prices must have one length, got {counts}")
    return tuple(str(k) for k in range(counts[0] if counts else 1))


def is_row(value: Any) -> bool:
    return isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim == 1)


def match_venues(venues: Any, names: tuple[str, ...]) -> dict[str, Any]:
    if isinstance(venues, Mapping):
        found = {str(name): venue for name, venue in venues.items()}
    elif is_row(venues):
        found = dict(zip(names, venues, strict=True)) if len(venues) == len(names) else {}
    else:
        found = dict.fromkeys(names, venues)
    missing = [name for name in names if not hasattr(found.get(name), "brackets")]
    if missing:
        raise ParameterError(
            f"venues must give a Venue for every instrument, got {repr_plain(venues):.80} "
            f"for {', '.join(missing)}"
        )
    return {name: found[name] for name in names}


def read_numbers(
    noun: str,
    given: Any,
    names: Iterable[str],
    number: Number = PRICE,
    missing: float | None = None,
) -> dict[str, float]:
    order = list(names)
    if isinstance(given, Mapping):
        found = dict(given)
    else:
        row = list(given) if is_row(given) else [given]
        found = dict(zip(order, row, strict=False)) if len(row) == len(order) else {}
    unknown = [name for name in found if name not in order]
    absent = [name for name in order if name not in found]
    if unknown or (absent and (missing is None or not isinstance(given, Mapping))):
        hint = did_you_mean(unknown[0], order) if unknown else ""
        raise ParameterError(
            f"{noun} must have one number for each of {', '.join(order)}, "
            f"got {repr_plain(given)}{hint}"
        )
    return {name: float(number.check(f"{noun}.{name}", found.get(name, missing))) for name in order}


def price_assets(assets: Sequence[Collateral], prices: Numbers | None) -> tuple[float, ...]:
    if prices is None:
        return tuple(each.last_price() for each in assets)
    return tuple(read_numbers("prices", prices, [each.name for each in assets]).values())


def bind(
    rule: MarginRule,
    priced: PricedPositions,
    collateral: Assets,
    collateral_prices: Numbers | None,
    entries: Numbers | None,
) -> BoundRule:
    assets = list_given("collateral", collateral, Collateral)
    entered = {} if entries is None else read_numbers("entries", entries, priced.rules)
    bound = rule.bind(priced.rules, assets, price_assets(assets, collateral_prices), entered)
    return bound._replace(haircuts=priced.haircuts)


def read_rule(rule: Any) -> MarginRule:
    found: MarginRule = Requirement().check("rule", rule)
    return found


def call_own_rule(rule: OwnMargin, method: str, priced: PricedPositions, options: Options) -> float:
    read_options(rule, priced, options)  # refuses options
    held = {name: quantity for name, quantity in priced.quantities.items() if quantity != 0.0}
    return ask_rule(rule.rule, method, held, priced.prices)


def compute_bound(
    bound: BoundRule,
    priced: PricedPositions,
    index: Numbers | None,
    options: Options,
    *,
    is_initial: bool,
) -> float:
    account = read_options(bound.rule, priced, options)
    if account is not None:
        bound = bound._replace(rule=account.rule, underlyings=account.names)
    packed, held = bound.value(priced.quantities, priced.prices)
    if index is not None and packed.has_scenarios:
        values = read_index(priced, index)
        return compute_at_index(packed, held, values, account, is_initial=is_initial)
    if account is not None:
        return account.requirement(packed, held, is_initial=is_initial)
    compute = compute_portfolio_initial if is_initial else compute_portfolio_requirement
    return float(compute(packed, held))


def read_options(
    rule: MarginRule, priced: PricedPositions, options: Options
) -> OptionAccount | None:
    listed = list_given("options", options, OptionPosition)
    return make_option_account(listed, rule, priced.rules) if listed else None


def read_index(priced: PricedPositions, index: Numbers) -> list[float]:
    found = read_numbers("index", index, priced.rules)
    return [
        compute_value(priced.rules[name].size, priced.rules[name].is_inverse, price)
        for name, price in found.items()
    ]


def compute_at_index(
    priced: PortfolioRules,
    held: Holdings,
    values: list[float],
    account: OptionAccount | None,
    *,
    is_initial: bool,
) -> float:
    at_index = held._replace(values=np.array(values, dtype=np.float64))
    charges = 0.0
    if account is None:
        loss = compute_scenario_loss(priced, held)
    else:
        loss = compute_option_loss(priced, held, account.options, account.rules)
        charges = compute_short_charge(account.options, account.rules, is_initial)
    gross, offset = compute_gross(priced, at_index), compute_offset(priced, at_index)
    return float(combine_scenarios(priced, loss, gross, offset, is_initial) + charges)


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

    Raises
    ------
    ParameterError
        If the rule is another one, or an argument is not as :func:`requirement` needs it.

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
    >>> bt.margin.strategy_deposit({}, {}, {}, options=butterfly, proceeds=False)
    1000.0
    """
    found = read_rule(rule)
    priced = read_positions(venues, quantities, prices)
    account = read_options(found, priced, options)
    if account is None or not isinstance(account.rule, Strategy):
        got = "no options" if account is None else type(found).__name__
        raise ParameterError(f"a deposit is of options under a bt.Strategy, got {got}")
    bound = bind(found, priced, (), None, None)
    packed, held = bound.value(priced.quantities, priced.prices)
    needed = account.requirement(packed, held, is_initial=True)
    if not proceeds:
        return needed
    premiums = compute_premiums(packed, held, account.options, account.rules)
    return float(needed + premiums - account.counted_value())


def option_value(options: Options, rule: MarginRule | str) -> float:
    """Return what options add to the backing of an account under a rule, at their marks.

    Under portfolio margin that is the value of all options, of shorts negative. :class:`Standard`
    counts what its ``option_value`` says, :class:`Strategy` the loan value of longs.

    Parameters
    ----------
    options : OptionPosition or sequence of them
        The options.
    rule : MarginRule or str
        The rule, or the name of a preset.

    Returns
    -------
    float
        In the settlement currency.

    Raises
    ------
    ParameterError
        If the rule does not margin options, or they do not fit it.

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
    listed = list_given("options", options, OptionPosition)
    if not listed:
        return 0.0
    return make_option_account(listed, read_rule(rule), {}).counted_value()
