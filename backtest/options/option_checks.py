"""Checks of a test with options before it runs: the account, its margin, policies and contracts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from backtest import core
from backtest import margin as m
from backtest.account import Account, OptionFeed
from backtest.core.code_names import pd
from backtest.market import Markets
from backtest.options.option_listing import find_expiry
from backtest.options.option_schedule import LIST_OPTIONS, check_lots
from backtest.policies import OptionRule, trades_options
from backtest.venue import Option, Venue, require_costs

SETTLES = {"inverse": "coin", "linear": "cash", "spot": "cash"}
"""The settlement of options beside each kind of contract: one currency for one balance."""
MAY_SELL = "requirement='deribit-standard' supports short options"


def check_options(
    markets: Markets,
    venues: Mapping[str, Venue],
    accounts: Mapping[str, Account],
    account: Account,
) -> None:
    """Require that account, venues and schedule fit the listed options.

    ``accounts`` holds the terms of each instrument.
    """
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
        if accounts[owner].margin == "isolated":
            raise core.ParameterError(
                f"margin of {owner}, the underlying of {name!r}, must be 'cross', got 'isolated'"
            )
    if markets.listing.quantities is not None:
        check_lots(markets.listing.quantities, [*markets.options], find_lots(markets, venues))


def find_lots(markets: Markets, venues: Mapping[str, Venue]) -> list[float]:
    """Return the lot of each listed option, in contracts."""
    lots = []
    for name, option in markets.options.items():
        owner = markets.listing.underlyings[name]
        costs = require_costs(venues[owner].option_costs, owner)
        lots.append(costs.find_lot(option))
    return lots


def check_traders(
    policies: Mapping[str, object],
    overlay: object,
    markets: Markets,
) -> None:
    """Require that each policy that trades options stands alone, and has options to trade."""
    owners: set[str] = set()
    if markets.options:
        owners = {*markets.listing.underlyings.values()}

    for name, policy in (*policies.items(), ("the overlay", overlay)):
        if not trades_options(policy):
            continue
        # A combinator counts as a policy that trades options if one inside it does.
        parts = getattr(policy, "parts", ())
        is_inside = any(trades_options(part.policy) for part in parts)
        if is_inside and not isinstance(policy, OptionRule):
            raise core.ParameterError(
                f"a policy that trades options must not be combined, got it inside "
                f"{type(policy).__name__} of {name}; give it as the overlay, or derive the policy "
                "around it from bt.OptionRule"
            )
        if not owners or (name in policies and name not in owners):
            raise core.ParameterError(
                f"{type(policy).__name__} of {name} trades options, got none listed on it; "
                f"{LIST_OPTIONS}"
            )


def warn_of_options(
    markets: Markets,
    feed: OptionFeed,
    policies: Mapping[str, object],
    overlay: object,
) -> None:
    """Warn of orders that never fill, guessed settlements and flat ends of surfaces.

    Says nothing where neither a schedule nor a policy trades options.
    """
    is_traded = trades_options(policies) or trades_options(overlay)
    if not markets.options or not (is_traded or markets.listing.quantities is not None):
        return
    warn_of_late_quantities(markets, feed)
    warn_of_settlements(markets, feed)
    warn_of_flat_ends(markets)


def warn_of_late_quantities(markets: Markets, feed: OptionFeed) -> None:
    """Warn of contracts whose quantities begin after they expired.

    The schedule must be in ``feed.targets``: such a contract has rows, but no target there.
    """
    schedule = markets.listing.quantities
    if schedule is None:
        return

    names = [*markets.options]
    for name in schedule.columns:
        quantities = schedule[name].fillna(0.0)
        ordered_at = schedule.index[quantities != 0.0]
        is_inside = (ordered_at >= markets.times[0]) & (ordered_at < markets.times[-1])
        has_target = np.isfinite(feed.targets[:, names.index(name)]).any()
        if is_inside.any() and not has_target:
            core.warn_caller(f"{name} is never traded: its quantities begin after it expired")


def warn_of_settlements(markets: Markets, feed: OptionFeed) -> None:
    """Warn of contracts that expire inside a bar and settle at a price that is not known."""
    for k, (name, option) in enumerate(markets.options.items()):
        if feed.are_inside[k] and option.settlement_price is None:
            opened = core.format_time(int(markets.time[feed.expiry_bars[k]]))
            core.warn_caller(
                f"{name} expires inside the bar of {opened} UTC and settles at a mark price of its "
                f"underlying, {feed.expiry_spots[k]:g}; give bt.Option(settlement_price=) if the "
                "venue's is known"
            )


def warn_of_flat_ends(markets: Markets) -> None:
    """Warn of contracts that expire before the first fitted expiry of a surface in force."""
    listing = markets.listing
    end = int(markets.time[-1])
    names = []
    for name, option in markets.options.items():
        surfaces = listing.surfaces[listing.underlyings[name]]
        if surfaces.is_flat_before(find_expiry(option), end):
            names.append(name)
    if not names:
        return

    shown = ", ".join(names[:5])
    if len(names) > 5:
        shown = f"{shown} and {len(names) - 5} more"
    core.warn_caller(
        f"volatility is flat before the first fitted expiry: {shown} expire before it in some "
        "surfaces"
    )


def check_rule(account: Account, markets: Markets) -> None:
    """Require a margin rule that supports the options: their sides and settlement."""
    rule = account.requirement
    if not isinstance(rule, m.Brackets | m.ScenarioMargin | m.Standard | m.Strategy):
        kind = type(rule).__name__
        if isinstance(rule, m.OwnMargin):
            kind = "a requirement of your own"
        raise core.ParameterError(
            "requirement must be a margin rule that supports options, 'deribit-standard', "
            f"'deribit-portfolio' or 'reg-t' for example, got {kind}"
        )

    # What each of them cannot hold.
    if isinstance(rule, m.ScenarioMargin):
        m.check_moves(rule)
    if isinstance(rule, m.Brackets):
        check_bought(markets.listing.quantities)
    if isinstance(rule, m.Strategy):
        check_cash_settled(markets.options)


def check_bought(schedule: pd.DataFrame | None) -> None:
    """Require that a schedule is never short: brackets have no margin for short options."""
    if schedule is None:
        return
    for name in schedule.columns:
        if (schedule[name] < 0.0).any():
            raise core.ParameterError(
                f"option_quantities must be at least 0 with brackets, got "
                f"{schedule[name].min():g} of {name!r}; {MAY_SELL}"
            )


def check_cash_settled(options: Mapping[str, Option]) -> None:
    """Require that no option settles in coins: margin by strategies is in dollars."""
    for name, option in options.items():
        if option.is_coin:
            raise core.ParameterError(
                "requirement must be portfolio margin or bt.Standard for options settled in coins, "
                f"got margin by strategies with {name!r}"
            )


def check_settlement(
    name: str,
    option: Option,
    owner: str,
    venue: Venue,
) -> None:
    """Require that an option is paid in the money of the contract beside it."""
    kind = venue.contract.kind
    if option.settlement != SETTLES[kind]:
        raise core.ParameterError(
            f"settlement of {name!r} must be {SETTLES[kind]!r} beside the {kind} contract of "
            f"{owner}, whose money it is paid in, got {option.settlement!r}"
        )
