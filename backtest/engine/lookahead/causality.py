"""Compute the columns that a policy observes, and check that they do not look ahead."""

from __future__ import annotations

from functools import partial

from backtest.base import BacktestError, FloatArray, PolicyError, WorkMeter, measure_work
from backtest.engine.lookahead.causality_checker import (
    FULL,
    USUAL,
    Causality,
    CausalityChecker,
    CutPlan,
)
from backtest.engine.lookahead.fresh_check import compare_fresh
from backtest.market import Market, lend
from backtest.policy import Columns, Policy, check_columns, copy_policy, format_location, renew


def observe(policy: Policy, market: Market) -> dict[str, FloatArray]:
    """Return the policy's columns, each of one number per bar."""
    try:
        columns = policy.observe(lend(market))
    except BacktestError:
        raise
    except Exception as error:
        raise PolicyError(
            f"{type(policy).__name__}.observe raised {type(error).__name__}: {error}",
            where=format_location(error, type(policy).observe),
            cure=suggest_column(error, market),
        ) from error
    return check_columns(policy, columns, market.n_bars)


def suggest_column(error: Exception, market: Market) -> str:
    """Return the cure of an error of ``observe``: for a missing key, the columns of the market."""
    if isinstance(error, KeyError):
        own = ", ".join(market.columns) or "none"
        return f"the further columns of this market are {own}; add one with market.with_columns"
    return "correct observe; it receives the market and returns a dict of columns"


def observe_checked(policy: Policy, market: Market) -> tuple[dict[str, FloatArray], Causality]:
    """Return the policy's columns, checked for lookahead, and how they were checked."""
    with measure_work(WorkMeter()) as meter:
        columns = observe(renew(policy), market)
        return columns, check_causality(policy, market, columns, meter=meter)


def check_causality(
    policy: Policy,
    market: Market,
    columns: Columns,
    *,
    plan: CutPlan = USUAL,
    meter: WorkMeter | None = None,
) -> Causality:
    """Raise a PolicyError if a policy's columns change when the market ends earlier.

    ``columns`` are those of the whole market, ``meter`` has counted the work of computing them.
    """
    name = type(policy).__name__
    subject = partial(observe_part, renew(policy))
    checker = CausalityChecker(name, f"{name}.observe", subject, market, columns, plan, meter)
    found = checker.check()
    return found._replace(fresh=compare_fresh(checker, subject, renew(policy), plan is FULL))


def observe_part(policy: Policy, part: Market) -> Columns | None:
    """Return the columns that a policy observes in a part of a market; None if it raises."""
    try:
        seen = copy_policy(policy).observe(part)
    except Exception:
        return None
    return check_columns(policy, seen, part.n_bars)
