"""End a search with a validation of it: ``bt.tune(..., validate="walk-forward")``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backtest.base import Choice
from backtest.base.units import DAY
from backtest.validation.cross_validate import cross_validate
from backtest.validation.fold_spans import plan_spans, read_plan
from backtest.validation.group_runs import split_groups
from backtest.validation.tuning_procedure import TRIALS
from backtest.validation.walk_forward import walk_forward

if TYPE_CHECKING:
    from backtest.market import Market, Markets

WALK, CROSS = "walk-forward", "cross-validate"
USUAL = {"train": 365, "test": 30}
GROUPS = 10


def plan_validation(method: str, market: Market | Markets, sampling: str) -> dict[str, Any]:
    Choice(WALK, CROSS).check("validate", method)
    if method == CROSS:
        split_groups(market, GROUPS, sampling)
        return {"groups": GROUPS}
    days = int((market.end - market.start) // DAY)
    is_long = days >= 2 * USUAL["train"]
    train = USUAL["train"] if is_long else max(1, days // 2)
    test = USUAL["test"] if is_long else max(1, days // 12)
    plan_spans(market, read_plan(f"{train}d", f"{test}d", anchored=False, gap="0d"))
    return {"train": f"{train}d", "test": f"{test}d"}


def validate_search(
    method: str, market: Market | Markets, policy: Any, plan: dict[str, Any], **arguments: Any
) -> Any:
    trials = arguments.pop("trials")
    given = {**arguments, **plan, "trials": TRIALS if trials is None else min(trials, TRIALS)}
    if method == WALK:
        return walk_forward(market, policy, **given, resume=None)
    shared = {name: value for name, value in given.items() if name not in ("sampler", "robust")}
    return cross_validate(market, policy, **shared, resume=None)
