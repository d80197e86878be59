"""What costs and decay took of growth, and what twice of them would leave."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from backtest import core, engine
from backtest.judgement.accounts import JudgedAccount
from backtest.market import as_markets
from backtest.risk.capital_capacity import capacity
from backtest.risk.factor_sensitivity import choose_factors, sensitivity


class Cost(NamedTuple):
    """A term of the attribution, and the factor of ``backtest sensitivity`` that raises it."""

    term: str
    factor: str
    step: float


COSTS = {
    "fees": Cost("fees", "fees", 2.0),
    "slippage": Cost("slippage", "slippage", 2.0),
    "funding": Cost("funding", "funding", 2.0),
    "decay": Cost("volatility_drag", "volatility", 1.25),
}
"""Twice the decay is no market; at 1.25 times the volatility its drag is 1.56 times as large."""
DECAY = "decay"
DIVIDENDS = "dividends"
"""What the funding of stocks is called: it is of markets with sessions, and longs are paid it."""
LEAST_GAIN = 1e-9
"""Growth a year that is no rounding."""


def judge_costs(account: JudgedAccount, **how: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each cost: log growth a year given up to it, and compound growth with more of it."""
    markets = as_markets(account.test.market)
    venues = engine.read_venues(account.test.venue, markets)
    known = choose_factors(None, markets, venues)
    steps = {}
    for cost in COSTS.values():
        if cost.factor in known:
            steps[cost.factor] = (cost.step,)

    changed = sensitivity(
        account.test,
        account.policy,
        factors=[*steps],
        steps=steps,
        run_account=functools.partial(account.run, **how),
        as_run=account.result,
    )

    given_up = measure_given_up(account)
    for name, cost in COSTS.items():
        growth_at_step = math.nan
        if cost.factor in steps:
            raised: Any = changed.table.loc[(cost.factor, cost.step), "growth"]
            growth_at_step = float(raised)

        called = name
        if name == "funding" and markets.sessions:
            called = DIVIDENDS

        row = {
            "given_up": given_up.get(name, math.nan),
            "growth": changed.base,
            "step": cost.step,
            "growth_at_step": growth_at_step,
            "n": len(account.result.returns),
            "why": "",
        }
        yield called, row


def is_reversed(cost: str, row: Mapping[str, Any]) -> bool:
    """Return whether growth moved against what more of a cost takes, which the cost cannot do.

    A cost that took growth takes more of it, and one that added some adds more; the drag of a
    higher volatility is always larger. Sizes follow equity, stops and bands the path: other
    positions are held on the way, which may earn more than the cost takes.
    """
    change = row["growth_at_step"] - row["growth"]
    if cost == DECAY or row["given_up"] > 0.0:
        return bool(change > LEAST_GAIN)
    return bool(row["given_up"] < 0.0 and change < -LEAST_GAIN)


def measure_given_up(account: JudgedAccount) -> dict[str, float]:
    """Return the log growth a year that each cost took; nothing of several positions."""
    result = account.result
    if not result.has_one_position:
        return {}

    split = result.attribution()
    given_up = {}
    for name, cost in COSTS.items():
        given_up[name] = -split.amounts[cost.term] / split.years
    return given_up


def judge_capacity(account: JudgedAccount, **how: Any) -> dict[str, Any]:
    """Return the capital at which growth is half of that at the account's, or why there is none."""
    try:
        run_account = functools.partial(account.run, **how)
        largest = capacity(account.test, account.policy, run_account=run_account)
    except core.ParameterError as error:
        return {"half_growth": math.nan, "capacity": str(error)}
    return {"half_growth": largest.half_growth, "capacity": largest.verdict}
