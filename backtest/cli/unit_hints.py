"""Warn about likely mistakes of unit: a fraction typed for basis points, 60 for 60 %."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping

from backtest.base import Range, format_duration, format_hours, format_percent
from backtest.base.units import HOUR
from backtest.market import Market, Markets
from backtest.policy import Parameter, Policy

LEAST_BPS = 0.01
"""A smaller cost is likely a fraction: no venue charges a hundredth of a basis point."""

COSTS = ("fees.taker", "fees.maker", "slippage.rate")
"""Costs of a venue that are fractions of the notional."""
MOST_COST = 0.01
"""A larger cost is likely a percentage: 1 % of the notional for each fill."""

MOST_VOLATILITY = 5.0
"""Per sqrt(year). A larger volatility is likely a percentage."""

FAR = 4
"""If bars are this many times longer or shorter than an hour, a note explains the defaults."""


def warn_of_fraction(flag: str, bps: float) -> None:
    """Warn if a cost in basis points looks like a fraction; a rebate is negative."""
    if 0.0 < abs(bps) < LEAST_BPS:
        warnings.warn(
            f"{flag} {bps:g} is {bps:g} basis points, {bps / 100:g} %; the fraction {bps:g} is "
            f"{flag} {bps * 1e4:g}",
            stacklevel=2,
        )


def warn_of_large_costs(given: Mapping[str, object], where: str) -> None:
    """Warn if a cost among the fields of a venue, by their dotted names, looks like a percentage.

    ``where`` names the flag or the table that gave them.
    """
    for name in COSTS:
        cost = given.get(name)
        if isinstance(cost, float) and MOST_COST <= abs(cost) < 1.0:
            warnings.warn(
                f"{where}: {name} {cost:g} is {100 * cost:g} % of the notional for each fill; "
                f"{cost:g} % is {cost / 100:g}",
                stacklevel=2,
            )


def warn_of_percentage(flag: str, volatility: float | None) -> None:
    """Warn if a volatility, a fraction per sqrt(year), looks like a percentage."""
    if volatility is not None and MOST_VOLATILITY < volatility < float("inf"):
        warnings.warn(
            f"{flag} {volatility:g} is {format_percent(volatility, 0)} a year; {volatility:g} % is "
            f"{flag} {volatility / 100:g}",
            stacklevel=2,
        )


def describe_bars(policy: Policy, market: Market | Markets) -> str | None:
    """Describe how long the policy's defaults in bars are on a market; None if nothing is unusual.

    The defaults of built-in policies are made for bars of an hour. Parameters that the user has
    set, parameters not in use and policies of the user are left out.
    """
    interval = market.decide or market.interval
    if interval * FAR > HOUR and interval < HOUR * FAR:
        return None
    spans = [
        f"{each.name}={each.default} is {format_hours(float(str(each.default)) * interval)}"
        for each in find_defaults(policy)
    ]
    if not spans or not type(policy).__module__.startswith("backtest.strategies."):
        return None
    return (
        f"bars are {format_duration(interval)}, and the policy's defaults are for 1h: "
        f"{', '.join(spans)} (--set changes it)"
    )


def find_defaults(policy: Policy) -> Iterator[Parameter]:
    """Yield the parameters in use that count bars and still have their default."""
    settings = policy.settings()
    for each in policy.parameters().values():
        space = each.space
        if not isinstance(space, Range) or space.unit != "bars":
            continue
        name, values = space.when or ("", ())
        options = values if isinstance(values, tuple) else (values,)
        is_used = space.when is None or settings.get(name) in options
        if is_used and each.default is not None and settings[each.name] == each.default:
            yield each
