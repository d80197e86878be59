"""What a run needs, checked and read from its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from backtest.account import Account, list_shared_settings
from backtest.account.account import GENERAL
from backtest.base import ParameterError, TimeLike, list_values, repr_plain
from backtest.engine.benchmark import BenchmarkLike
from backtest.engine.indicator_rules import read_named
from backtest.engine.option_checks import warn_of_options
from backtest.engine.portfolio_checks import check_account_kind, check_periods
from backtest.engine.portfolio_setup import Setup, end_expired, set_up
from backtest.engine.resumed_run import check_rules, read_resume
from backtest.engine.run_warnings import warn_of_market, warn_of_weights
from backtest.engine.signal_rule import SignalRule
from backtest.market import Market, Markets, as_markets
from backtest.policy import Policy, sets_margin, trades_options
from backtest.venue import Venue, list_dated


def set_up_run(
    market: Any,
    policy: Any,
    *,
    venue: Any,
    account: Account,
    signal: Any,
    overlay: Policy | None,
    sampling: str = "1d",
    calendar: str = "365",
    start: TimeLike | None = None,
    resume: Any = None,
    benchmark: BenchmarkLike = None,
) -> Setup:
    is_alone = isinstance(market, Market)
    markets = take_markets(market, venue, account)
    earlier = read_resume(resume, start)
    check_periods(markets, sampling, calendar)
    setup = set_up(
        markets,
        policy,
        venue=venue,
        account=account,
        signal=signal,
        overlay=overlay,
        sampling=sampling,
        calendar=calendar,
        start=start,
        resume=earlier,
        benchmark=benchmark,
        is_alone=is_alone,
    )
    check_rules(earlier, setup.policies, setup.overlay, setup.venues, setup.account)
    warn_of_market(setup.markets, setup.venues, setup.first)
    warn_of_weights(setup.given, markets)
    warn_of_options(setup.markets, setup.inputs.feed.options, setup.policies, setup.overlay)
    return setup


def take_markets(market: Any, venue: Any, account: Any) -> Markets:
    check_account_kind(account)
    if isinstance(market, Market):
        return as_markets(market)
    if not isinstance(market, Markets):
        cure = "; pass bt.Markets(market)" * isinstance(market, Mapping)
        raise ParameterError(f"market must be a Market or Markets, got {repr_plain(market)}{cure}")
    ended: Markets = end_expired(market, venue)
    return ended


def needs_general_loop(policy: object, venue: object, account: object) -> bool:
    return any(
        [
            has_general_account(account),
            *map(has_general_venue, list_values(venue)),
            sets_margin(policy),
            trades_options(policy),
        ]
    )


def has_general_account(account: object) -> bool:
    if not isinstance(account, Account):
        return False
    is_general = any(getattr(account, name) != value for name, value in GENERAL.items())
    return is_general or account.fill == "limit"


def has_general_venue(venue: object) -> bool:
    is_spot = getattr(getattr(venue, "contract", None), "kind", "") == "spot"
    return is_spot or (isinstance(venue, Venue) and bool(list_dated(venue)))


def widen_market(
    market: Any, signal: Any, *, policy: object, venue: object, account: object, overlay: object
) -> tuple[Any, Any]:
    by_name = any(isinstance(each, Mapping | pd.DataFrame) for each in (signal, policy, venue))
    is_wide = by_name or overlay is not None or needs_general_loop(policy, venue, account)
    is_wide = is_wide or (isinstance(account, Account) and bool(list_shared_settings(account)))
    if not is_wide or not isinstance(market, Market):
        return market, signal
    markets = as_markets(market)
    return markets, widen_signal(read_named(signal, market), markets)


def widen_signal(signal: Any, markets: Markets) -> Any:
    if signal is None or isinstance(signal, SignalRule | Mapping | pd.DataFrame):
        return signal
    (name,) = markets.names
    if isinstance(signal, pd.Series):
        return signal.to_frame(name)
    return signal if isinstance(signal, np.ndarray | list | tuple) else {name: signal}
