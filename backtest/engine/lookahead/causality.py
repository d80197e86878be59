"""Compute the columns that a policy observes, and check that they do not look ahead."""

from __future__ import annotations

from functools import partial

import numpy as np

from backtest.base import BacktestError, FloatArray, PolicyError, WorkMeter, measure_work
from backtest.engine.lookahead.causality_checker import (
    FULL,
    USUAL,
    Causality,
    CausalityChecker,
    CutPlan,
)
from backtest.engine.lookahead.code_origin import is_ours
from backtest.engine.lookahead.fresh_check import compare_fresh
from backtest.market import Market, lend
from backtest.policy import Columns, Policy, check_columns, copy_policy, format_location, renew

OBSERVED = "observed"


def observe(policy: Policy, market: Market) -> dict[str, FloatArray]:
    """Return the policy's columns, each of one number per bar."""
    try:
        columns = policy.observe(lend(market))
    except BacktestError:
        raise
    except Exception as error:
        raise PolicyError(
            f"{type(policy).__name__}.observe raised {type(error).__name__}: {error}, in "
            f"{format_location(error, type(policy).observe)}"
            + f"; the further columns of this market are {', '.join(market.columns) or 'none'}"
            * isinstance(error, KeyError)
        ) from error
    return check_columns(policy, columns, market.n_bars)


def observe_checked(policy: Policy, market: Market) -> tuple[dict[str, FloatArray], Causality]:
    key, kept = find_key(policy, market), vars(market)["facts"]
    last = kept.get(OBSERVED)  # read once: another thread may keep those of its own policy
    if key is not None and last is not None and last[0] == key:
        return dict(last[1]), last[2]
    with measure_work(WorkMeter()) as meter:
        columns = observe(renew(policy), market)
        causality = check_causality(policy, market, columns, meter=meter)
    if key is not None:
        kept[OBSERVED] = key, dict(columns), causality
    return columns, causality


def find_key(policy: Policy, market: Market) -> tuple[object, ...] | None:
    signal = market.signal
    if "observe" in vars(policy) or not is_ours(policy) or np.any(signal != signal[0]):
        return None
    return type(policy), type(policy).observe, repr(policy), float(signal[0])


def check_causality(
    policy: Policy,
    market: Market,
    columns: Columns,
    *,
    plan: CutPlan = USUAL,
    meter: WorkMeter | None = None,
) -> Causality:
    name = type(policy).__name__
    subject = partial(observe_part, renew(policy))
    checker = CausalityChecker(name, subject, market, columns, plan, meter)
    found = checker.check()
    return found._replace(fresh=compare_fresh(checker, subject, renew(policy), plan is FULL))


def observe_part(policy: Policy, part: Market) -> Columns | None:
    try:
        seen = copy_policy(policy).observe(part)
    except Exception:
        return None
    return check_columns(policy, seen, part.n_bars)
