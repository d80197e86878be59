"""Prepare a group of sets: what its blocks have in common, and which rules their loop needs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from backtest.account import Rules, find_line
from backtest.base import FloatArray, IntArray, describe_function
from backtest.engine import Inputs, count_periods, read_inputs
from backtest.measures import RunSpan
from backtest.policy import Policy, find_unread, formula_for
from backtest.sweep.lane_groups import FEES, OWN, LaneGroup
from backtest.sweep.lanes.lane_compiler import LanePolicy, Shape, pad_brackets, reads_table
from backtest.sweep.lanes.lane_rows import ROWS, Kind
from backtest.sweep.policy_columns import Columns
from backtest.sweep.sets.sets import varies
from backtest.venue import LEVELS, MarginRules, Venue, is_bounded_by_rate

ROW = {name: k for k, name in enumerate(ROWS)}
RULES = {
    "lot": "lot", "min_notional": "min_notional", "fee": "fee", "taker": "taker",
    "slip": "slippage", "impact_rate": "impact", "participation": "participation",
    "liquidation_fee": "liquidation_fee", "liquidation_slippage": "liquidation_slippage",
    "step": "step", "full_below": "full_below", "stop_loss": "stop_loss",
    "top_up_to": "top_up_to", "band": "band", "min_leverage": "min_leverage",
    "max_leverage": "max_leverage", "ruin_at": "ruin_at", "profit_share": "profit_share",
    "order_fee": "order_fee", "liquidation_impact": "liquidation_impact",
    "take_profit": "take_profit", "trailing_stop": "trailing_stop", "equity_stop": "equity_stop",
}  # fmt: skip

Loops = dict[tuple[Any, ...], tuple[Any, Any]]


class GroupTask(NamedTuple):
    """What all blocks of a group have in common.

    ``full`` are the rules with nothing left out. ``policy`` is that of the first set; its
    ``constants`` are the parameters written into the code. ``begun`` of shape (len(ROWS),) is the
    initial state of a lane. ``reads_table`` says whether the policy may read the margin brackets.
    The first block fills ``parts``, the policy's part by its shape, and ``loops``.
    """

    inputs: Inputs
    full: Rules
    kind: Kind
    span: RunSpan
    first: int
    policy: Policy
    venue: Venue
    constants: tuple[tuple[str, Any], ...]
    columns: Columns
    begun: FloatArray
    has_returns: bool
    reads_table: bool
    parts: dict[Shape, LanePolicy]
    loops: Loops


def prepare_group(
    runner: Any,
    group: LaneGroup,
    columns: Columns,
    sets: Mapping[str, np.ndarray],
    first: int,
    has_returns: bool,
) -> GroupTask:
    market, (policy, venue, account) = columns.whole, group.trio
    inputs = read_inputs(
        market,
        venue,
        account,
        signal=runner.signal if len(runner.signal) == 1 else runner.signal[: market.n_bars],
        sampling=runner.sampling,
        first=first,
        started=int(market.time[first]),
    )
    inputs = with_highest_fee(inputs, group)
    own = [name for name in (*OWN, *FEES) if name in group.terms and varies(group.terms[name])]
    has_flows = account.flows is not None or account.reserve > 0.0
    has_flows |= (
        account.after_liquidation == "halt" or inputs.rules.account.has_interest is not None
    )
    has_own_rules = bool(own) or inputs.fees is not None
    is_lean = not (own or has_flows or needs_all(inputs.rules, policy))
    kind = Kind(
        has_own_rules=True if has_own_rules else None,
        is_full=True if runner.is_full else None,
        has_flows=True if has_flows else None,
    )
    rules = choose_rules(inputs.rules, is_lean=is_lean)
    used = dict.fromkeys(("has_profit_share", "has_order_fee", "has_liquidation_impact"), True)
    full = set_parts(
        inputs.rules, True, has_impact=True, has_rounding=True, marks_entry=True, **used
    )
    margin = inputs.rules.instrument.margin
    most = max(len(table.floors) for table in (margin, *dict(inputs.changes).values()))
    rules = rules.with_margin(pad_brackets(margin, most))
    begun = np.zeros(len(ROWS))
    rows = read_rule_rows(rules)
    rows |= begin_rows(account.capital, account.reserve, rows["ruin_at"])
    for name, value in rows.items():
        begun[ROW[name]] = value
    closes = market.time[first:] + market.interval
    periods = count_periods(runner.calendar, runner.sampling, market, first)
    return GroupTask(
        inputs=inputs._replace(rules=rules),
        full=full.with_margin(as_arrays(margin)),
        kind=kind,
        span=RunSpan(int(market.time[first]), closes, first, periods),
        first=first,
        policy=policy,
        venue=venue,
        constants=find_constants(policy, sets, group.rows),
        columns=columns,
        begun=begun,
        has_returns=has_returns,
        reads_table=reads_table(policy),
        parts={},
        loops=runner.loops,
    )


def begin_rows(capital: Any, reserve: Any, ruin_at: Any) -> dict[str, Any]:
    paid_in = capital + reserve
    begun = {
        "cash": capital, "equity": capital, "reserve": reserve, "scale": 1.0, "target": math.nan,
        "ruin": -1.0, "first_liquidation": -1.0, "last_liquidation": -math.inf, "unmet": -1.0,
        "last_stop": -math.inf, "called_at": math.nan, "highest": capital,
        "inverse": 1.0 / capital, "decay_product": 1.0, "peak_backing": 1.0,
    }  # fmt: skip
    wealth = (
        "first_unit",
        "unit",
        "peak",
        "low",
        "low_peak",
        "sample_unit",
        "paid_in",
        "seen_peak",
    )
    line = find_line(ruin_at, reserve, paid_in)
    return begun | dict.fromkeys(wealth, paid_in) | {"line": line}


def read_rule_rows(rules: Rules) -> dict[str, float]:
    margin = rules.instrument.margin
    fields = rules.instrument._asdict() | rules.account._asdict()
    rows = {row: fields[field] for row, field in RULES.items()}
    rows |= {"setting": margin.setting, "close_fee": margin.close_fee}
    return {row: 0.0 if math.isnan(value) else value for row, value in rows.items()}


def with_highest_fee(inputs: Inputs, group: LaneGroup) -> Inputs:
    takers = group.terms.get("venue.fees.taker")
    if takers is None or not group.trio.venue.includes_close_fee:
        return inputs
    fee = float(takers.max())
    margin = inputs.rules.instrument.margin._replace(close_fee=fee)
    changes = tuple((bar, table._replace(close_fee=fee)) for bar, table in inputs.changes)
    return inputs._replace(rules=inputs.rules.with_margin(margin), changes=changes)


def as_arrays(margin: MarginRules) -> MarginRules:
    return MarginRules._make(
        np.array(value) if name in LEVELS else value for name, value in margin._asdict().items()
    )


def needs_all(rules: Rules, policy: Policy) -> bool:
    code = describe_function(formula_for(policy, ()), {})
    reads_entry = not code.is_complete or bool(code.names & {"entry", "wallet"})
    own = rules.instrument
    parts = (own.is_isolated, own.has_stop, own.has_impact, rules.account.has_interest,
             own.has_profit_share, own.has_exits)  # fmt: skip
    is_lean = all(part is None for part in parts) and is_bounded_by_rate(own.margin)
    return reads_entry or not is_lean


def choose_rules(rules: Rules, *, is_lean: bool) -> Rules:
    own = rules.instrument._replace(has_auto_margin=None, has_liquidation_impact=None)
    rules = rules._replace(instrument=own)  # these two act in full bars only
    if is_lean:
        return set_parts(rules, None, has_impact=None, marks_entry=None)
    at_entry = None if is_bounded_by_rate(rules.instrument.margin) else True
    return set_parts(rules, True, has_rounding=True, marks_entry=at_entry)


def set_parts(rules: Rules, part: bool | None, **more: Any) -> Rules:
    return Rules(
        account=rules.account._replace(has_interest=part),
        instrument=rules.instrument._replace(has_stop=part, keeps_entry=part, **more),
    )


def find_constants(
    policy: Policy, sets: Mapping[str, np.ndarray], rows: IntArray
) -> tuple[tuple[str, Any], ...]:
    found = []
    unread = find_unread(policy)
    for name, value in policy.settings().items():
        values = sets[name][rows] if name in sets else None
        is_same = values is None or not varies(values)
        if name not in unread and (isinstance(value, str) or (is_same and value in (0, 1))):
            found.append((name, value))
    return tuple(found)


def show_table(task: GroupTask, margin: MarginRules) -> MarginRules:
    if task.reads_table:
        return margin
    return margin._replace(**{name: getattr(margin, name)[:1] for name in LEVELS})
