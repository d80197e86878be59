"""Observe a market through a policy, and refuse columns that look ahead."""

from __future__ import annotations

from backtest.base.errors import BacktestError, PolicyError
from backtest.base.units import FloatArray
from backtest.base.work_budget import WorkMeter, measure_work
from backtest.engine.lookahead.causality_checker import USUAL, Causality, Checker, Plan, Seen
from backtest.market.market import Market
from backtest.policy.error_location import format_location
from backtest.policy.policy import Policy, check_columns


def observe(policy: Policy, market: Market) -> dict[str, FloatArray]:
    """Return the policy's columns.

    Raises
    ------
    PolicyError
        If ``observe`` raises, or returns something else than columns of one number per bar.
    """
    try:
        columns = policy.observe(market)
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
    """Return the cure of what ``observe`` raised: for a missing name, the columns there are."""
    if isinstance(error, KeyError):
        own = ", ".join(market.columns) or "none"
        return f"the further columns of this market are {own}; add one with market.with_columns"
    return "mend observe; it receives the market and returns a dict of columns"


def observe_checked(policy: Policy, market: Market) -> tuple[dict[str, FloatArray], Causality]:
    """Return the policy's columns once they were not seen to look ahead, and how that was checked.

    Raises
    ------
    PolicyError
        If ``observe`` fails, or looks ahead.
    """
    with measure_work(WorkMeter()) as meter:
        columns = observe(policy, market)
        return columns, check_causality(policy, market, columns, meter=meter)


def check_causality(
    policy: Policy,
    market: Market,
    columns: Seen,
    *,
    plan: Plan = USUAL,
    meter: WorkMeter | None = None,
) -> Causality:
    """Refuse a policy whose columns change when the market ends earlier.

    Parameters
    ----------
    policy, market
        What is checked, and on what.
    columns : mapping of str to FloatArray of shape (n_bars,)
        What it observes on all of the market.
    plan : Plan
        How many cuts are made.
    meter : Meter, optional
        What counted the work of observing the whole market.

    Returns
    -------
    Causality

    Raises
    ------
    PolicyError
        Naming the column, the bar and both values, if it looks ahead.
    """

    def look(part: Market) -> Seen | None:
        try:
            seen = policy.observe(part)
        except Exception:
            return None
        return check_columns(policy, seen, part.n_bars)

    name = type(policy).__name__
    return Checker(name, f"{name}.observe", look, market, columns, plan, meter).check()
