"""Build the test that the tables of an experiment describe.

Each table has a file of its own: ``[data]`` data_table, ``[venue]`` and ``[lending]`` venue_table,
the signal of ``[run]`` signal_table, ``[options]`` options_table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from backtest import core
from backtest.account import Account
from backtest.engine.conditions import Conditions, plain
from backtest.experiments.data_table import load_data
from backtest.experiments.draft import Draft, flatten
from backtest.experiments.options_table import ShowProgress, list_options, show_nothing
from backtest.experiments.policy_names import read_policy
from backtest.experiments.signal_table import read_signal
from backtest.experiments.tables import ACCOUNTS
from backtest.experiments.venue_table import apply_lending, build_venues
from backtest.market import as_markets
from backtest.policies import Policy

_C = TypeVar("_C", bound=Conditions)

TAKEN_AS_THEY_ARE = ("sampling", "decision_interval", "detail", "start", "end")
"""Fields of a test that ``[run]`` has under the same names."""


def build_test(draft: Draft, kind: type[_C], show_progress: ShowProgress = show_nothing) -> _C:
    """Return the test, of this class, that a draft describes in its tables but policies and jobs.

    Raises ParameterError, VenueError or DataError as the classes of its parts do.
    """
    refuse_several_accounts(draft)
    market = load_data(draft)
    markets = as_markets(market)

    run = draft.table("run")
    start = run.get("start")
    terms = {name: run[name] for name in TAKEN_AS_THEY_ARE if name in run}
    if "calendar" in run:
        terms["calendar"] = str(run["calendar"])  # written as a number, as often as not
    overlay = draft.table("overlay")
    if overlay:
        terms["overlay"] = build_overlay(overlay)
    if start is not None and core.to_nanoseconds(start, "run.start") < market.start:
        raise core.ParameterError(
            "the account must begin inside the data, which begin "
            f"{core.format_time(market.start)}, got {start}"
        )

    account = Account.from_dict(draft.table("account"))
    venue = apply_lending(draft, build_venues(draft, markets), markets)
    test = kind(market, venue=venue, account=account, **terms)

    # The signal is read last: a file of weights may name options.
    if draft.table("options"):
        with_options = list_options(draft, plain(test).market, test.venue, show_progress)
        test = plain(test).replace(market=with_options)
    return test.replace(signal=read_signal(draft, plain(test).market))


def refuse_several_accounts(draft: Draft) -> None:
    for name in (ACCOUNTS, "transfer"):
        if draft.table(name):
            raise core.ParameterError(
                f"{name}: several accounts are run by `backtest run`, and by bt.Accounts; this "
                "takes an experiment of one account"
            )


def build_overlay(table: Mapping[str, Any]) -> Policy:
    if "name" not in table:
        raise core.ParameterError(f"overlay.name is needed, got {', '.join(table)} only")
    return build_policy(table)


def build_policy(table: Mapping[str, Any]) -> Policy:
    """Return the policy of a table, ``name`` and ``settings``; volatility targeting by default."""
    return read_policy(table.get("name", "vol-target"), flatten(table.get("settings", {})))
