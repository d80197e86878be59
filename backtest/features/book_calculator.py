"""Liquidation calculator for a book of positions on one collateral."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from backtest.base import checked
from backtest.features.failure_map import FailureMap, map_failure
from backtest.features.priced_book import CheckedBook, read_arguments
from backtest.venue import (
    Brackets,
    MarginRule,
    RequirementRule,
    compute_option_delta,
    cross_margin,
    fill_shares,
)

DEFAULT = Brackets()
LOWEST, HIGHEST = 1e-9, 1e9
"""The prices that are searched, as ratios to those now."""
FARTHEST, SCAN = 0.9, 32
"""The largest move that is searched with options, and the prices that are tested up to it."""


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

    def map_failure(
        self, x: str | None = None, y: str | None = None, *, span: float = 0.5, points: int = 41
    ) -> FailureMap:
        """Return where the book fails in the moves of two prices, all others frozen.

        Parameters
        ----------
        x, y : str, optional
            Two instruments; default: those of the largest notionals.
        span : float
            The largest move on either side, a fraction below 1.
        points : int
            Moves of each, odd so that 0 is one of them.

        Raises
        ------
        ParameterError
            If an instrument is not in the book, it has only one, or the span is out of its range.
        """
        order = sorted(self.positions, key=lambda row: -abs(row.notional))
        rest = iter([row.instrument for row in order if row.instrument not in (x, y)])
        first = next(rest, "") if x is None else x
        second = next(rest, "") if y is None else y
        return map_failure(self.book, first, second, span=span, points=points)

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
