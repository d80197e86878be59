"""Checks of a test with options before it runs: the account, its margin, policies and contracts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from backtest import core
from backtest import margin as m
from backtest.account import Account, OptionFeed
from backtest.market import Markets
from backtest.options.option_listing import find_expiry
from backtest.options.option_schedule import LIST_OPTIONS, check_lots
from backtest.policies import OptionRule, trades_options
from backtest.venue import Option, Venue, require_costs

SETTLES = {"inverse": "coin", "linear": "cash", "spot": "cash"}
"""The settlement of options beside each kind of contract: one currency for one balance."""
MAY_SELL = "requirement='deribit-standard' supports short options"


def check_options(
    markets: Markets, venues: Mapping[str, Venue], own: Mapping[str, Account], account: Account
) -> None:
    if not markets.options:
        return
    if account.fill != "next_open":
        raise core.ParameterError(
            f"fill must be 'next_open' in an account with options, got {account.fill!r}"
        )
    check_rule(account, markets)
    for name, option in markets.options.items():
        owner = markets.listing.underlyings[name]
        require_costs(venues[owner].option_costs, owner)
        check_settlement(name, option, owner, venues[owner])
        if own[owner].margin == "isolated":
            raise core.ParameterError(
                f"margin of {owner}, the underlying of {name!r}, must be 'cross', got 'isolated'"
            )
    if markets.listing.quantities is not None:
        check_lots(markets.listing.quantities, [*markets.options], find_lots(markets, venues))


def find_lots(markets: Markets, venues: Mapping[str, Venue]) -> list[float]:
    owners = [markets.listing.underlyings[name] for name in markets.options]
    costs = [require_costs(venues[owner].option_costs, owner) for owner in owners]
    return [each.find_lot(x) for each, x in zip(costs, markets.options.values(), strict=True)]


def check_traders(policies: Mapping[str, object], overlay: object, markets: Markets) -> None:
    for name, policy in (*policies.items(), ("the overlay", overlay)):
        if not trades_options(policy):
            continue
        is_inside = any(trades_options(each.policy) for each in getattr(policy, "parts", ()))
        if is_inside and not isinstance(policy, OptionRule):
            raise core.ParameterError(
                f"a policy that trades options must not be combined, got it inside "
                f"{type(policy).__name__} of {name}; give it as the overlay, or derive the policy "
                "around it from bt.OptionRule"
            )
        owners = {*markets.listing.underlyings.values()} if markets.options else set()
        if not owners or (name in policies and name not in owners):
            raise core.ParameterError(
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
    frame = listing.quantities
    for name in () if frame is None else frame.columns:
        ordered = frame.index[frame[name].fillna(0.0) != 0.0]
        inside = ordered[(ordered >= markets.times[0]) & (ordered < markets.times[-1])]
        if len(inside) and not np.isfinite(feed.targets[:, [*markets.options].index(name)]).any():
            core.warn_caller(f"{name} is never traded: its quantities begin after it expired")
    names, end = [], int(markets.time[-1])
    for k, (name, option) in enumerate(markets.options.items()):
        if feed.are_inside[k] and option.settlement_price is None:
            opened = core.format_time(int(markets.time[feed.expiry_bars[k]]))
            core.warn_caller(
                f"{name} expires inside the bar of {opened} UTC and settles at a mark price of its "
                f"underlying, {feed.expiry_spots[k]:g}; give bt.Option(settlement_price=) if the "
                "venue's is known"
            )
        surfaces = listing.surfaces[listing.underlyings[name]]
        if surfaces.is_flat_before(find_expiry(option), end):
            names.append(name)
    if names:
        core.warn_caller(
            f"volatility is flat before the first fitted expiry: {', '.join(names[:5])}"
            f"{f' and {len(names) - 5} more' * (len(names) > 5)} expire before it in some surfaces"
        )


def check_rule(account: Account, markets: Markets) -> None:
    rule = account.requirement
    if not isinstance(rule, m.Brackets | m.ScenarioMargin | m.Standard | m.Strategy):
        is_own = isinstance(rule, m.OwnMargin)
        found = "a requirement of your own" if is_own else type(rule).__name__
        raise core.ParameterError(
            "requirement must be a margin rule that supports options, 'deribit-standard', "
            f"'deribit-portfolio' or 'reg-t' for example, got {found}"
        )
    if isinstance(rule, m.ScenarioMargin):
        m.check_moves(rule)
    frame = markets.listing.quantities
    if isinstance(rule, m.Brackets) and frame is not None and bool((frame < 0.0).any(axis=None)):
        name = next(each for each in frame.columns if (frame[each] < 0.0).any())
        raise core.ParameterError(
            f"option_quantities must be at least 0 with brackets, got {frame[name].min():g} of "
            f"{name!r}; {MAY_SELL}"
        )
    coin = next((name for name, each in markets.options.items() if each.is_coin), None)
    if isinstance(rule, m.Strategy) and coin is not None:
        raise core.ParameterError(
            "requirement must be portfolio margin or bt.Standard for options settled in coins, "
            f"got margin by strategies with {coin!r}"
        )


def check_settlement(name: str, option: Option, owner: str, venue: Venue) -> None:
    kind = venue.contract.kind
    if option.settlement != SETTLES[kind]:
        raise core.ParameterError(
            f"settlement of {name!r} must be {SETTLES[kind]!r} beside the {kind} contract of "
            f"{owner}, whose money it is paid in, got {option.settlement!r}"
        )
