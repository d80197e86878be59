"""The options of a book of positions, as rows of its calculation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from backtest.features.priced_book import CheckedBook
from backtest.venue import compute_option_delta


class BookOption(NamedTuple):
    """One option of a book, in the settlement currency.

    ``price`` is the index, ``mark`` the price of a contract and ``value`` that of all. ``delta`` is
    in units of the underlying, N(d1) times size and quantity, and ``exposure`` what that is worth;
    NaN without a volatility.
    """

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
    """Return the options of a book at its prices."""
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
    """Return the value of options that backs positions."""
    account = book.value_options()
    return 0.0 if account is None else account.counted_value()


def count_withheld(book: CheckedBook) -> float:
    """Return the value of options that is in the equity and does not back positions."""
    account = book.value_options()
    return 0.0 if account is None else account.full_value() - account.counted_value()


def find_option_exposure(rows: Sequence[BookOption]) -> float:
    """Return the sum over underlyings of the absolute net exposure of their options."""
    groups = dict.fromkeys(row.group for row in rows)
    return sum(abs(sum(row.exposure for row in rows if row.group == group)) for group in groups)
