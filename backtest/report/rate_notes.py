"""Interest and dividends that a run left at their defaults, said where they are much of its profit.

Three defaults are no figures of the account: the rates of interest of a preset are assumptions,
rates of a venue of one's own are 0, and prices of stocks and indices come without dividends.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backtest import core
from backtest.account.money import SIGNS, MoneyTerm
from backtest.venue import Venue

if TYPE_CHECKING:
    from backtest.results import Result

LEAST_SHARE = 0.1
"""Share of the profit, or of the loss, from which a default is mentioned."""
LOAN = 0.05
"""A rate a year by which loans without interest are judged: that of the preset of lending."""
CASH = 0.03
"""A round figure a year for cash in dollars."""
DIVIDENDS = 0.02
"""A round figure a year for the dividends of a large index."""


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
    if interest > LEAST_SHARE * profit:
        assumed = name_assumed(venue)
        if assumed:
            yield (
                f"interest of {core.format_money(interest)} is "
                f"{core.format_percent(interest / profit)} of the profit or loss, at rates that "
                f"its preset assumes, {assumed}: give yours, "
                "--set venue.borrow_rate=0.06 (venue.override({'borrow_rate': 0.06}) in Python)"
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
        if is_zero(venue.borrow_rate):
            yield amounts.borrowed, LOAN, "borrowed without interest", "set venue.borrow_rate"
        if is_zero(venue.cash_rate):
            yield amounts.idle, CASH, "cash earns nothing", "set venue.cash_rate"

    cure = "if the prices are not adjusted, give them as funding"
    yield amounts.stocks, DIVIDENDS, "no dividends are paid", cure


def is_zero(rate: object) -> bool:
    """Return whether a rate, or a rate by date, is 0 throughout."""
    return not np.any(np.asarray(rate))


def has_loans(result: Result) -> bool:
    """Return whether the account buys what it holds, with money of its own or borrowed."""
    for venue in result.venues.values():
        if venue.interest_on == "loan" or venue.contract.is_spot:
            return True
    return any(facts.get("sessions") for facts in describe_instruments(result).values())


def describe_instruments(result: Result) -> dict[str, dict[str, object]]:
    """Return what the manifest says of the data of each instrument."""
    data = result.manifest["data"]
    return data.get("instruments") or {result.names[0]: data}


def has_dividends(result: Result) -> bool:
    """Return whether all funding of a run is that of stocks, whose markets have sessions."""
    instruments = describe_instruments(result).values()
    funded = [facts for facts in instruments if facts.get("funding_events")]
    return bool(funded) and all(facts.get("sessions") for facts in funded)


def name_term(result: Result, term: MoneyTerm) -> str:
    """Return what a term is called on the pages of a run: the funding of stocks, dividends."""
    if term.name == "funding" and has_dividends(result):
        return "dividends"
    return term.words


def sum_gains(result: Result) -> float:
    """Return the profit after all costs, deposits apart."""
    gains = [SIGNS[name] * result.of_account(name).sum() for name in SIGNS if name != "flows"]
    return float(sum(gains))


def measure_amounts(result: Result) -> Amounts:
    """Return what was borrowed, idle, and held of stocks, on average over closes."""
    equity = result.of_account("equity")
    notionals = result.notionals
    bought = np.maximum(notionals.sum(axis=1), 0.0)

    # Stocks have sessions, and funding only if their dividends were given.
    unpaid = []
    for place, (name, facts) in enumerate(describe_instruments(result).items()):
        is_stock = name in result.names and facts.get("sessions")
        if is_stock and not facts.get("funding_events"):
            unpaid.append(place)
    stocks = np.maximum(notionals[:, unpaid].sum(axis=1), 0.0)
    return Amounts(
        borrowed=float(np.maximum(bought - equity, 0.0).mean()),
        idle=float(np.maximum(equity - bought, 0.0).mean()),
        stocks=float(stocks.mean()),
    )


def name_assumed(venue: Venue) -> str:
    """Return the rates that are those of the venue's preset, empty if none is or all are 0."""
    if not venue.preset_of_rules:
        return ""
    try:
        preset = Venue.preset(*venue.preset_of_rules.split(":", 1))
    except core.BacktestError:  # a file of one's own that is gone
        return ""

    # A rate that the user set is no assumption, even if it is the preset's.
    stated: Sequence[str] = ()
    if venue.changed_from is not None:
        stated = venue.changed_from.stated

    clauses = []
    for name in ("borrow_rate", "cash_rate"):
        rate = getattr(venue, name)
        if name in stated:
            continue
        if not is_zero(rate) and np.array_equal(rate, getattr(preset, name)):
            clauses.append(f"{name} {100.0 * float(rate):g} %")
    return " and ".join(clauses)
