"""objective(): what a search maximizes, as a function that any optimizer can call."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from backtest.base import ParameterError, VenueDateWarning, repr_plain
from backtest.engine import (
    SignalRule,
    check_terms,
    end_expired,
    read_named,
    warn_of_market,
    widen_market,
)
from backtest.market import Markets, with_clock
from backtest.measures import ObjectiveLike, read_constraints, read_objectives
from backtest.sweep import Accounts, Pool, choose_evaluator, read_accounts, resolve_signals
from backtest.tune.holdout import find_split, warn_of_unseen
from backtest.tune.search_arguments import choose_metrics
from backtest.tune.single_sets import check_columns
from backtest.tune.trial_evaluator import Goal

if TYPE_CHECKING:
    from backtest.account import Account
    from backtest.market import Market
    from backtest.policy import Policy
    from backtest.venue import Venue


def objective(  # noqa: PLR0913 - keywords, each with a default that is said
    market: Market | Markets,
    policy: type[Policy] | Policy,
    *,
    venue: Venue | Mapping[str, Venue],
    account: Account,
    accounts: Accounts = "shared",
    pool: Pool = "mean",
    objective: ObjectiveLike = "sharpe",
    constraints: Mapping[str, str] | None = None,
    fix: Mapping[str, Any] | None = None,
    holdout: str | float | None = "25%",
    signal: Any = None,
    overlay: Policy | None = None,
    sampling: str = "1d",
    calendar: str = "365",
    compile: bool = True,  # noqa: A002 - the word users know
    decide: str | None = None,
    detail: Any = None,
) -> Callable[[Mapping[str, Any]], float]:
    """Return a function from values of parameters to the score that a search would maximize.

    Parameters
    ----------
    market, policy, venue, account, accounts, pool, objective, constraints, fix, holdout
        As in :func:`backtest.tune`, with one objective. The score is of the bars before the
        holdout.
    signal, overlay, sampling, calendar, compile, decide, detail
        As in :func:`backtest.tune`.

    Returns
    -------
    callable
        Takes a mapping such as ``{"target": 0.4}``, with the names that a ``space`` has, and
        returns a float: minus infinity if the account was ruined or breaks a constraint, NaN if
        the run of the set fails or the objective is not defined for it.

    Raises
    ------
    ParameterError
        If an argument is not allowed; from the function, if a value is out of its range.
    PolicyError
        From the function, if the columns of the first set look ahead.
    """
    market = with_clock(market, decide, detail)
    is_separate, market = read_accounts(accounts, market, venue)
    if not is_separate:
        market, signal = widen_market(
            market, signal, policy=policy, venue=venue, account=account, overlay=overlay
        )
        check_terms(end_expired(market, venue), policy, venue, account, sampling, calendar)
    market = end_expired(market, venue)
    warn_of_market(market, venue)
    goal = Goal(read_objectives(objective), read_constraints(constraints))
    if len(goal.objectives) != 1:
        raise ParameterError(
            f"objective must be one, {{'sharpe': 1.0, 'turnover': -0.01}} for example, "
            f"got {len(goal.objectives)}"
        )
    split = find_split(market, holdout)
    warn_of_unseen(market, split)
    named = read_named(signal, market)
    make = choose_evaluator(pool, is_separate=is_separate)
    terms: dict[str, Any] = {"venue": venue, "account": account, "overlay": overlay}
    resolved = resolve_signals(named, market, is_separate=is_separate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VenueDateWarning)  # given above
        lasting = make(market, policy, signal=resolved, **terms).keep_signals()
        evaluator = make(
            market.prefix(split),
            policy,
            signal=named if isinstance(named, SignalRule) else lasting,
            sampling=sampling,
            calendar=calendar,
            metrics=choose_metrics(objective, goal),
            compile=compile,
            **terms,
        )
    is_checked = False

    def score(values: Mapping[str, Any]) -> float:
        nonlocal is_checked
        if not isinstance(values, Mapping):
            raise ParameterError(
                f"values must be a mapping of parameters, got {repr_plain(values):.60}"
            )
        columns = {name: [value] for name, value in {**(fix or {}), **values}.items()}
        sets = check_columns(evaluator.base, columns)
        if not is_checked:
            evaluator.check_causal(sets)
            is_checked = True
        rows = evaluator.evaluate(sets)
        if not rows.done[0]:
            raise KeyboardInterrupt
        if rows.errors[0]:
            return float("nan")
        scores, violation = goal.score(rows.metrics, ~rows.done)
        return float(scores[0, 0]) if violation[0] == 0.0 else float("-inf")

    return score
