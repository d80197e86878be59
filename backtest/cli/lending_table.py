"""The table ``[lending]``: rates of a loan account by the utilization of a lending market."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backtest.base.errors import ParameterError
from backtest.cli.draft import Draft, located
from backtest.market import Markets
from backtest.venue import Venue
from backtest.venue.lending import RateCurve

RATES = ("borrow_rate", "cash_rate")


def apply_lending(draft: Draft, venue: Any, markets: Markets) -> Any:
    """Return a venue, or venues by instrument, with the rates of the draft's curve, if any.

    Raises ParameterError if the venue has rates of its own, or the curve or utilization is wrong.
    """
    section = draft.section("lending")
    if not section.entries:
        return venue
    terms = dict(section.entries)
    with located(section.where):
        utilization = terms.pop("utilization", None)
        curve = RateCurve.from_dict(terms)
        check_utilization(utilization, markets)
        rates = curve.rates(next(iter(markets.values())), utilization)
        if not isinstance(venue, Mapping):
            return replace_rates(venue, rates)
        return {name: replace_rates(each, rates) for name, each in venue.items()}


def check_utilization(utilization: object, markets: Markets) -> None:
    """Require a utilization, of several markets a number: their interest is the account's."""
    if utilization is None:
        raise ParameterError(
            "a curve needs a utilization, got none",
            where="utilization",
            cure="give utilization = 0.8, or the name of a column of the bars",
        )
    if len(markets) > 1 and isinstance(utilization, str):
        raise ParameterError(
            "the utilization of several markets must be a number, as interest belongs to the "
            f"account, got {utilization!r}",
            where="utilization",
            cure="give utilization = 0.8, or run one market",
        )


def replace_rates(venue: Venue, rates: Mapping[str, object]) -> Venue:
    """Return a venue with interest on the loan at rates; refuse one that has its own."""
    own = [name for name in RATES if not is_zero(getattr(venue, name))]
    if own or venue.interest_on == "balance":
        found = f"{own[0]}" if own else "interest_on = 'balance'"
        raise ParameterError(
            f"rates must come from [lending] or from the venue, which also has {found}",
            where="Venue",
            cure=f"leave {own[0] if own else 'interest_on'} out of [venue], or the table [lending]",
        )
    return venue.override({"interest_on": "loan", **rates})


def is_zero(rate: object) -> bool:
    """Return whether a rate is the number 0."""
    return isinstance(rate, (int, float)) and rate == 0.0
