"""Checks of a run with options: that account, venues and margin rule can hold them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from backtest.account import Account, OptionFeed
from backtest.base import ParameterError, format_time, warn_caller
from backtest.market import Markets
from backtest.options import find_expiry
from backtest.policy import OptionRule, trades_options
from backtest.venue import (
    Brackets,
    Option,
    OwnMargin,
    ScenarioMargin,
    Standard,
    Strategy,
    Venue,
    check_moves,
    require_costs,
)

SETTLES = {"inverse": "coin", "linear": "cash", "spot": "cash"}
"""The settlement of options beside each kind of contract: one currency for one balance."""
MAY_SELL = "requirement='deribit-standard' knows shorts"
LIST_OPTIONS = (
    "give bt.Markets({'BTC': market, 'BTC-26JUN26-60000-P': bt.Option(...)}, surfaces=...)"
)


def check_options(
    markets: Markets, venues: Mapping[str, Venue], own: Mapping[str, Account], account: Account
) -> None:
    if not markets.options:
        return
    check_fills(account)
    check_rule(account, markets)
    for name, option in markets.options.items():
        owner = markets.listing.underlyings[name]
        require_costs(venues[owner].option_costs, owner)
        check_settlement(name, option, owner, venues[owner])
        if own[owner].margin == "isolated":
            raise ParameterError(
                f"margin of {owner}, the underlying of {name!r}, must be 'cross', got 'isolated'"
            )


def check_traders(policies: Mapping[str, object], overlay: object, markets: Markets) -> None:
    for name, policy in (*policies.items(), ("the overlay", overlay)):
        if not trades_options(policy):
            continue
        is_inside = any(trades_options(each.policy) for each in getattr(policy, "parts", ()))
        if is_inside and not isinstance(policy, OptionRule):
            raise ParameterError(
                f"a policy that trades options stands alone, got it inside "
                f"{type(policy).__name__} of {name}; give it as the overlay, or derive the policy "
                "around it from bt.OptionRule"
            )
        owners = {*markets.listing.underlyings.values()} if markets.options else set()
        if not owners or (name in policies and name not in owners):
            raise ParameterError(
                f"{type(policy).__name__} of {name} trades options, got none listed on it; "
                f"{LIST_OPTIONS}"
            )


def warn_of_options(
    markets: Markets, feed: OptionFeed, policies: Mapping[str, object], overlay: object
) -> None:
    listing = markets.listing
    is_traded = trades_options(policies) or trades_options(overlay)
    if not markets.options or not (is_traded or listing.quantities is not None):
        return
    warn_of_dropped_orders(markets, feed)
    for k, (name, option) in enumerate(markets.options.items()):
        if feed.are_inside[k] and option.settlement_price is None:
            opened = format_time(int(markets.time[feed.expiry_bars[k]]))
            warn_caller(
                f"{name} expires inside the bar of {opened} UTC and settles at a mark price of its "
                f"underlying, {feed.expiry_spots[k]:g}; give bt.Option(settlement_price=) if the "
                "venue's is known"
            )
    names = [name for name in markets.options if is_before_first(markets, name)]
    if names:
        warn_caller(
            f"volatility is flat before the first fitted expiry: {', '.join(names[:5])}"
            f"{f' and {len(names) - 5} more' * (len(names) > 5)} expire before it in some surfaces"
        )


def warn_of_dropped_orders(markets: Markets, feed: OptionFeed) -> None:
    frame = markets.listing.quantities
    for name in () if frame is None else frame.columns:
        k = [*markets.options].index(name)
        ordered = frame.index[frame[name].fillna(0.0) != 0.0]
        inside = ordered[(ordered >= markets.times[0]) & (ordered < markets.times[-1])]
        if len(inside) and not np.isfinite(feed.targets[:, k]).any():
            warn_caller(f"{name} is never traded: its quantities begin after it expired")


def is_before_first(markets: Markets, name: str) -> bool:
    surfaces = markets.listing.surfaces[markets.listing.underlyings[name]]
    end = int(markets.time[-1])
    return bool(surfaces.is_flat_before(find_expiry(markets.options[name]), end))


def check_fills(account: Account) -> None:
    if account.fill != "next_open":
        raise ParameterError(
            f"fill must be 'next_open' in an account with options, got {account.fill!r}"
        )


def check_rule(account: Account, markets: Markets) -> None:
    rule = account.requirement
    if not isinstance(rule, Brackets | ScenarioMargin | Standard | Strategy):
        found = "a requirement of your own" if isinstance(rule, OwnMargin) else type(rule).__name__
        raise ParameterError(
            "requirement must be a margin rule that knows options, 'deribit-standard', "
            f"'deribit-portfolio' or 'reg-t' for example, got {found}"
        )
    if isinstance(rule, ScenarioMargin):
        check_moves(rule)
    frame = markets.listing.quantities
    if isinstance(rule, Brackets) and frame is not None and bool((frame < 0.0).any(axis=None)):
        name = next(each for each in frame.columns if (frame[each] < 0.0).any())
        raise ParameterError(
            f"option_quantities must be at least 0 with brackets, got {frame[name].min():g} of "
            f"{name!r}; {MAY_SELL}"
        )
    coin = next((name for name, each in markets.options.items() if each.is_coin), None)
    if isinstance(rule, Strategy) and coin is not None:
        raise ParameterError(
            "requirement must be portfolio margin or bt.Standard for options settled in coins, "
            f"got margin by strategies with {coin!r}"
        )


def check_settlement(name: str, option: Option, owner: str, venue: Venue) -> None:
    """Require that an option settles in the currency of its underlying's contract."""
    kind = venue.contract.kind
    if option.settlement != SETTLES[kind]:
        raise ParameterError(
            f"settlement of {name!r} must be {SETTLES[kind]!r} beside the {kind} contract of "
            f"{owner}, whose money it is paid in, got {option.settlement!r}"
        )
