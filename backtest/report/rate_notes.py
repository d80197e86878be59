"""Interest and dividends that a run left at their defaults, said where they are much of its profit.

Three defaults are no figures of the account: the rates of interest of a preset are assumptions,
rates of a venue of one's own are 0, and prices of stocks and indices come without dividends.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backtest import core
from backtest.account.money import SIGNS
from backtest.venue import Venue

if TYPE_CHECKING:
    from backtest.results import Result

LEAST_SHARE = 0.1
"""Share of the profit, or of the loss, from which a default is mentioned."""
LOAN = 0.05
"""A rate a year by which loans without interest are judged: that of the preset of lending."""
CASH, DIVIDENDS = 0.03, 0.02
"""Round figures a year for cash in dollars, and for the dividends of a large index."""


class Amounts(NamedTuple):
    """Means over closes, in the settlement currency.

    What was lent to the account, what it had left, and what it held of stocks without dividends.
    """

    borrowed: float
    idle: float
    stocks: float


def list_rate_notes(result: Result) -> Iterator[str]:
    """Yield what is said of interest and dividends, over a tenth of the profit each."""
    profit = abs(sum_gains(result))
    if not profit > 0.0:
        return

    # What was charged at the rates of a preset.
    interest = abs(float(result.of_account("interest").sum()))
    venue = result.venues[result.names[0]]
    if interest > LEAST_SHARE * profit and (assumed := name_assumed(venue)):
        yield (
            f"interest of {core.format_money(interest)} is "
            f"{core.format_percent(interest / profit)} of the profit or loss, at rates that its "
            f"preset assumes, {assumed}: give yours, venue.override({{'borrow_rate': 0.06}})"
        )

    # What was not, at rates of 0.
    for amount, rate, noun, cure in list_missing(result, measure_amounts(result)):
        missed = amount * rate * result.span.years
        if missed > LEAST_SHARE * profit:
            yield (
                f"{noun}: on {core.format_money(amount)} on average, {100.0 * rate:g} % a year "
                f"would be {core.format_money(missed)}, {core.format_percent(missed / profit)} of "
                f"the profit or loss; {cure}"
            )


def list_missing(result: Result, amounts: Amounts) -> Iterator[tuple[float, float, str, str]]:
    """Yield amount, rate, noun and cure of what is 0 by default."""
    venue = result.venues[result.names[0]]
    if has_loans(result):
        if not np.any(np.asarray(venue.borrow_rate)):
            yield amounts.borrowed, LOAN, "borrowed without interest", "set venue.borrow_rate"
        if not np.any(np.asarray(venue.cash_rate)):
            yield amounts.idle, CASH, "cash earns nothing", "set venue.cash_rate"
    cure = "if the prices are not adjusted, give them as funding"
    yield amounts.stocks, DIVIDENDS, "no dividends are paid", cure


def has_loans(result: Result) -> bool:
    """Return whether the account buys what it holds, with money of its own or borrowed."""
    sessions = [each.get("sessions") for each in describe_instruments(result).values()]
    venues = result.venues.values()
    is_bought = any(each.interest_on == "loan" or each.contract.is_spot for each in venues)
    return is_bought or any(sessions)


def describe_instruments(result: Result) -> dict[str, dict[str, object]]:
    data = result.manifest["data"]
    return data.get("instruments") or {result.names[0]: data}


def sum_gains(result: Result) -> float:
    """Return the profit after all costs, deposits apart."""
    gained = [name for name in SIGNS if name != "flows"]
    return float(sum(SIGNS[name] * result.of_account(name).sum() for name in gained))


def measure_amounts(result: Result) -> Amounts:
    equity, notionals = result.of_account("equity"), result.notionals
    bought = np.maximum(notionals.sum(axis=1), 0.0)
    unpaid = [
        k
        for k, (name, each) in enumerate(describe_instruments(result).items())
        if name in result.names and each.get("sessions") and not each.get("funding_events")
    ]
    return Amounts(
        borrowed=float(np.maximum(bought - equity, 0.0).mean()),
        idle=float(np.maximum(equity - bought, 0.0).mean()),
        stocks=float(np.maximum(notionals[:, unpaid].sum(axis=1), 0.0).mean()),
    )


def name_assumed(venue: Venue) -> str:
    """Return the rates that are those of the venue's preset, empty if none is or all are 0."""
    if venue.in_force is None:
        return ""
    try:
        name = venue.in_force.like or venue.in_force.preset
        preset = Venue.preset(*name.split(":", 1))
    except core.BacktestError:  # a file of one's own that is gone
        return ""
    names = [
        name
        for name in ("borrow_rate", "cash_rate")
        if np.any(np.asarray(getattr(venue, name)))
        and np.array_equal(getattr(venue, name), getattr(preset, name))
    ]
    return " and ".join(f"{name} {100.0 * float(getattr(venue, name)):g} %" for name in names)
