"""Liquidation calculator for a book of cross positions on one collateral.

A book at its prices, which can be moved to other ones; what it needs and where it fails.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from backtest.base import Number, ParameterError, checked
from backtest.base.units import TOLERANCE
from backtest.venue import cross_margin
from backtest.venue.collateral import Collateral
from backtest.venue.collateral_value import compute_collateral_value
from backtest.venue.contract_value import compute_value
from backtest.venue.option_account import OptionAccount, list_given
from backtest.venue.option_values import compute_option_delta
from backtest.venue.own_requirement import OwnMargin, ask_rule
from backtest.venue.portfolio_requirement import (
    compute_haircuts,
    compute_portfolio_initial,
    compute_portfolio_requirement,
    fill_shares,
)
from backtest.venue.portfolio_rules import Holdings, PortfolioRules, is_spot_leg
from backtest.venue.portfolio_tables import pack_holdings, pack_spot
from backtest.venue.requirement import MarginRules
from backtest.venue.requirement_rule import Brackets, MarginRule, RequirementRule

DEFAULT = Brackets()
LOWEST, HIGHEST = 1e-9, 1e9
"""The prices that are searched, as ratios to those now."""
FARTHEST, SCAN = 0.9, 32
"""The largest move that is searched with options, and the prices that are tested up to it."""


class CheckedBook(NamedTuple):
    rules: Mapping[str, MarginRules]
    packed: PortfolioRules
    quantities: Mapping[str, float]
    prices: Mapping[str, float]
    entries: Mapping[str, float]
    balance: float
    rule: RequirementRule | MarginRule
    collateral: tuple[Collateral, ...]
    collateral_prices: tuple[float, ...]
    linked: Mapping[str, str]
    options: OptionAccount | None = None
    ratios: Mapping[str, float] = MappingProxyType({})

    @property
    def level(self) -> float:
        return float(getattr(self.rule, "level", 1.0))

    def value_of(self, name: str, price: float) -> float:
        return compute_value(self.rules[name].size, self.rules[name].is_inverse, price)

    def move(self, ratios: Mapping[str, float]) -> CheckedBook:
        prices = {name: price * ratios.get(name, 1.0) for name, price in self.prices.items()}
        collateral = tuple(
            price * ratios.get(self.linked.get(each.name, ""), 1.0)
            for each, price in zip(self.collateral, self.collateral_prices, strict=True)
        )
        return self._replace(
            prices=prices, collateral_prices=collateral, ratios=self.find_ratios(ratios)
        )

    def find_ratios(self, ratios: Mapping[str, float]) -> dict[str, float]:
        if self.options is None:
            return {}
        found = {}
        for group in self.options.groups:
            linked = (group, *self.options.list_linked(group, list(self.rules)))
            found[group] = next((ratios[each] for each in linked if each in ratios), 1.0)
        return found

    def value_options(self) -> OptionAccount | None:
        if self.options is not None:
            self.options.move(self.ratios)
        return self.options

    def hold(self) -> Holdings:
        return pack_holdings(
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

    def backing(self) -> float:
        profit = sum(self.profit_of(name) for name in self.quantities)
        paid = sum(
            self.quantities[name] * self.value_of(name, self.entries[name])
            for i, name in enumerate(self.rules)
            if is_spot_leg(self.packed, i)
        )
        options = self.value_options()
        counted = 0.0 if options is None else options.counted_value()
        return self.balance + profit + paid + self.collateral_value() - self.haircuts() + counted

    def haircuts(self) -> float:
        return float(compute_haircuts(self.packed, self.hold()))

    def collateral_value(self) -> float:
        return float(compute_collateral_value(self.packed.collateral, self.hold()))

    def requirement(self) -> float:
        options = self.value_options()
        if options is not None:
            return options.requirement(self.packed, self.hold())
        if isinstance(self.rule, MarginRule):
            return float(compute_portfolio_requirement(self.packed, self.hold()))
        return ask_rule(self.rule, "requirement", self.held(), self.prices)

    def initial(self) -> float:
        options = self.value_options()
        if options is not None:
            return options.requirement(self.packed, self.hold(), is_initial=True)
        if isinstance(self.rule, MarginRule):
            return float(compute_portfolio_initial(self.packed, self.hold()))
        return ask_rule(self.rule, "initial", self.held(), self.prices)

    def distance(self) -> float:
        return self.backing() - self.level * self.requirement()

    def is_failing(self) -> bool:
        needed = self.level * self.requirement()
        return not self.is_flat() and self.backing() <= needed * (1.0 + TOLERANCE)

    def is_flat(self) -> bool:
        options = () if self.options is None else self.options.given
        return not self.held() and all(each.quantity == 0.0 for each in options)


def read_arguments(
    venues: cross_margin.Venues,
    quantities: cross_margin.Numbers,
    prices: cross_margin.Numbers,
    balance: float,
    entries: cross_margin.Numbers | None,
    rule: RequirementRule | MarginRule,
    collateral: cross_margin.Assets,
    collateral_prices: cross_margin.Numbers | None,
    options: cross_margin.Options = (),
) -> CheckedBook:
    found = cross_margin.read_positions(venues, quantities, prices)
    names = list(found.rules)
    entered = found.prices
    if entries is not None:
        entered = cross_margin.read_numbers("entries", entries, names)
    assets = list_given("collateral", collateral, Collateral)
    linked = link_collateral(assets, names)
    if collateral_prices is None:
        priced = {
            each.name: found.prices[linked[each.name]] if each.name in linked else each.last_price()
            for each in assets
        }
    else:
        priced = cross_margin.read_numbers(
            "collateral_prices", collateral_prices, [each.name for each in assets]
        )
    checked = cross_margin.read_rule(rule)
    account = cross_margin.read_options(checked, found, options)
    if isinstance(checked, OwnMargin):
        cross_margin.call_own_rule(checked, "requirement", found, ())
    known, groups = (checked, ()) if account is None else (account.rule, account.names)
    compiled = Brackets() if isinstance(known, OwnMargin) else known
    packed = compiled.pack(found.rules, assets, underlyings=groups)
    return CheckedBook(
        rules=found.rules,
        packed=packed._replace(spot=pack_spot(found.haircuts)),
        quantities=found.quantities,
        prices=found.prices,
        entries=entered,
        balance=Number().check("balance", balance),
        rule=checked.rule if isinstance(checked, OwnMargin) else known,
        collateral=assets,
        collateral_prices=tuple(priced[each.name] for each in assets),
        linked=linked,
        options=account,
    )


def link_collateral(assets: Sequence[Collateral], names: Sequence[str]) -> dict[str, str]:
    linked = {each.name: each.prices for each in assets if isinstance(each.prices, str)}
    unknown = [name for name, instrument in linked.items() if instrument not in names]
    if unknown:
        raise ParameterError(
            f"prices of collateral {unknown[0]!r} must be a number or an instrument of the book, "
            f"{', '.join(names)}, got {linked[unknown[0]]!r}"
        )
    return linked


# ----- the calculation -----


class BookPosition(NamedTuple):
    """One position of a book, in the settlement currency.

    ``notional`` is signed. ``share`` is its Euler share of the requirement,
    ``quantity * d requirement / d quantity``; NaN for a rule of the user's own and with options.
    ``down`` and ``up`` are the moves of its price alone, as fractions, that fail the book, NaN if
    none does; options on it move along. ``liquidation_price`` is that of the nearer.
    """

    instrument: str
    quantity: float
    price: float
    entry: float
    notional: float
    profit: float
    share: float
    down: float
    up: float
    liquidation_price: float


class BookMove(NamedTuple):
    """A move of several prices by one ratio, and the fractions down and up that fail the book."""

    name: str
    instruments: tuple[str, ...]
    down: float
    up: float


class BookOption(NamedTuple):
    """One option of a book, in the settlement currency."""

    option: str
    group: str
    quantity: float
    price: float
    days: float
    mark: float
    value: float
    delta: float
    exposure: float


def describe_options(book: CheckedBook) -> tuple[BookOption, ...]:
    account = book.value_options()
    if account is None:
        return ()
    rows, options = [], account.options
    for k, each in enumerate(account.given):
        delta = each.quantity * compute_option_delta(options, k)
        rows.append(
            BookOption(
                option=str(each.option.name),
                group=account.name_of(k),
                quantity=each.quantity,
                price=float(options.indices[k]),
                days=365.0 * each.years,
                mark=float(options.marks[k]),
                value=float(each.quantity * options.marks[k]),
                delta=delta,
                exposure=delta * (1.0 if each.option.is_coin else float(options.indices[k])),
            )
        )
    return tuple(rows)


def count_value(book: CheckedBook) -> float:
    account = book.value_options()
    return 0.0 if account is None else account.counted_value()


def count_withheld(book: CheckedBook) -> float:
    account = book.value_options()
    return 0.0 if account is None else account.full_value() - account.counted_value()


def find_option_exposure(rows: Sequence[BookOption]) -> float:
    groups = dict.fromkeys(row.group for row in rows)
    return sum(abs(sum(row.exposure for row in rows if row.group == group)) for group in groups)


class BookCalculation(NamedTuple):
    """Margins of a book of cross positions and its distance to failure.

    ``backing`` is the balance with profits and collateral at its rates, ``equity`` with collateral
    in full. The book fails where the backing is at most ``level`` times ``requirement``:
    ``distance`` is the difference, ``margin_ratio`` their quotient (infinite without backing, 0
    when flat). ``collateral_share`` is the Euler share of the collateral that cancels risk: under
    scenarios, it and the shares of the positions add up to the requirement. ``first`` is the
    instrument whose move alone fails the book soonest, None if no move does. ``moves`` has the
    groups of portfolio margin with several instruments, the indices of options with what moves with
    them, and all. ``option_value`` is what options add to the backing, and ``options_leverage``
    their net exposure in turns of equity. ``book`` is what was calculated.
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
    positions: tuple[BookPosition, ...]
    moves: tuple[BookMove, ...]
    first: str | None
    options: tuple[BookOption, ...]
    option_value: float
    options_leverage: float
    book: CheckedBook

    def to_dict(self) -> dict[str, Any]:
        """Return the calculation as plain data."""
        rows = {
            "positions": [each._asdict() for each in self.positions],
            "moves": [each._asdict() for each in self.moves],
            "options": [each._asdict() for each in self.options],
        }
        return {name: value for name, value in (self._asdict() | rows).items() if name != "book"}


@checked
def calculate_book(
    venues: cross_margin.Venues,
    quantities: cross_margin.Numbers,
    prices: cross_margin.Numbers,
    *,
    balance: float,
    entries: cross_margin.Numbers | None = None,
    rule: RequirementRule | MarginRule = DEFAULT,
    collateral: cross_margin.Assets = (),
    collateral_prices: cross_margin.Numbers | None = None,
    options: cross_margin.Options = (),
) -> BookCalculation:
    """Return requirement, margin ratio and distance to failure of a book of cross positions.

    Parameters
    ----------
    venues, quantities, prices, rule, collateral, collateral_prices
        As in :func:`backtest.margin.requirement`. Collateral whose ``prices`` name an instrument
        has its price and moves with it.
    balance : float
        The settlement balance: realized money, without unrealized profit, collateral and the
        value of spot legs.
    entries : float, Mapping or sequence
        Average entry prices; default: the prices, without unrealized profit.
    options : OptionPosition or sequence of them
        Options of the account. Their premiums are in the balance: what was paid has left it.

    Returns
    -------
    BookCalculation

    Raises
    ------
    ParameterError
        If names do not fit, or a number is out of its range.

    Examples
    --------
    >>> import backtest as bt
    >>> venues = bt.Venue.preset("binance-usdm", ["BTCUSDT", "ETHUSDT"])
    >>> book = bt.calculate_book(venues, {"BTCUSDT": 1.0, "ETHUSDT": 10.0},
    ...     {"BTCUSDT": 60_000, "ETHUSDT": 3_000}, balance=9_000)
    >>> book.requirement, round(book.margin_ratio, 4), book.first
    (360.0, 0.04, 'BTCUSDT')
    """
    book = read_arguments(
        venues, quantities, prices, balance, entries, rule, collateral, collateral_prices, options
    )
    backing, needed = book.backing(), book.requirement()
    threshold = book.level * needed
    shares, of_assets = find_shares(book)
    rows = tuple(describe_positions(book, shares))
    pairs = zip(book.collateral, book.collateral_prices, strict=True)
    owned = sum(each.amount * at for each, at in pairs)
    equity = backing - book.collateral_value() + owned + book.haircuts() + count_withheld(book)
    held = describe_options(book)
    return BookCalculation(
        balance=book.balance,
        equity=equity,
        backing=backing,
        collateral=book.collateral_value(),
        requirement=needed,
        collateral_share=of_assets,
        initial=book.initial(),
        level=book.level,
        margin_ratio=find_ratio(book, threshold, backing),
        distance=backing - threshold,
        is_failing=book.is_failing(),
        gross_leverage=divide(sum(abs(row.notional) for row in rows), equity),
        net_leverage=divide(sum(row.notional for row in rows), equity),
        positions=rows,
        moves=tuple(describe_moves(book)),
        first=find_first(rows),
        options=held,
        option_value=count_value(book),
        options_leverage=divide(find_option_exposure(held), equity),
        book=book,
    )


# ---------------------------------------------------------------------------------- what fails it


def find_ratio(book: CheckedBook, threshold: float, backing: float) -> float:
    if book.is_flat():
        return 0.0
    return threshold / backing if backing > 0.0 else math.inf


def divide(amount: float, equity: float) -> float:
    if amount == 0.0:
        return 0.0
    return amount / equity if equity > 0.0 else math.inf


def describe_positions(book: CheckedBook, shares: Mapping[str, float]) -> Iterator[BookPosition]:
    for name, quantity in book.quantities.items():
        down, up = find_moves(book, (name,))
        nearest = choose_nearest(down, up)
        price = book.prices[name]
        yield BookPosition(
            instrument=name,
            quantity=quantity,
            price=price,
            entry=book.entries[name],
            notional=quantity * abs(book.value_of(name, price)),
            profit=book.profit_of(name) + 0.0,
            share=shares[name],
            down=down,
            up=up,
            liquidation_price=price * (1.0 + nearest),
        )


def find_shares(book: CheckedBook) -> tuple[dict[str, float], float]:
    if not isinstance(book.rule, MarginRule) or book.options is not None:
        return dict.fromkeys(book.quantities, math.nan), 0.0
    held = book.hold()
    shares = np.zeros(len(held.quantities) + len(held.amounts))
    fill_shares(book.packed, held, shares)
    own = dict(zip(book.quantities, shares.tolist(), strict=False))
    return own, float(shares[len(own) :].sum())


def describe_moves(book: CheckedBook) -> Iterator[BookMove]:
    names = tuple(book.quantities)
    rule = book.rule.resolve(names) if isinstance(book.rule, MarginRule) else None
    groups: dict[str, tuple[str, ...]] = getattr(rule, "list_groups", lambda _: {})(names)
    moved = () if book.options is None else book.options.groups
    for group, members in groups.items():
        if len(members) > 1 and set(members) != set(names) and group not in moved:
            yield BookMove(f"group {group}", members, *find_moves(book, members))
    for group in moved:
        linked = () if book.options is None else book.options.list_linked(group, names)
        yield BookMove(f"index {group}", (*linked,), *find_moves(book, (group, *linked)))
    if len(names) + len(moved) > 1:
        yield BookMove("all", names, *find_moves(book, (*names, *moved)))


def find_moves(book: CheckedBook, moving: Sequence[str]) -> tuple[float, float]:
    if book.is_flat():
        return math.nan, math.nan
    if book.is_failing():
        return 0.0, 0.0

    def left(ratio: float) -> float:
        return book.move(dict.fromkeys(moving, ratio)).distance()

    if book.options is not None:
        return scan_root(left, -1.0) - 1.0, scan_root(left, 1.0) - 1.0
    return find_root(left, 0.5) - 1.0, find_root(left, 2.0) - 1.0


def find_root(left: Callable[[float], float], first: float) -> float:
    from scipy.optimize import brentq  # noqa: PLC0415 - slow to import, and only needed here

    sound, ratio = 1.0, first
    while LOWEST <= ratio <= HIGHEST:
        if left(ratio) <= 0.0:
            return float(brentq(left, sound, ratio, xtol=1e-300, rtol=1e-14))
        sound, ratio = ratio, ratio * ratio
    return math.nan


def scan_root(left: Callable[[float], float], side: float) -> float:
    from scipy.optimize import brentq  # noqa: PLC0415 - slow to import, and only needed here

    sound = 1.0
    for step in range(1, SCAN + 1):
        ratio = 1.0 + side * FARTHEST * (step / SCAN) ** 2
        if left(ratio) <= 0.0:
            return float(brentq(left, sound, ratio, xtol=1e-300, rtol=1e-12))
        sound = ratio
    return math.nan


def choose_nearest(down: float, up: float) -> float:
    moves = [move for move in (down, up) if not math.isnan(move)]
    return min(moves, key=abs, default=math.nan)


def find_first(rows: Sequence[BookPosition]) -> str | None:
    moves = {row.instrument: abs(choose_nearest(row.down, row.up)) for row in rows}
    known = {name: move for name, move in moves.items() if not math.isnan(move)}
    return min(known, key=lambda name: known[name], default=None)
