"""The move of a price at which a scenario liquidates an account, found by bisection."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from backtest.risk.scenarios.scenario import Scenario
from backtest.risk.scenarios.scenario_bars import Bars, ShockBars, shift_scenario, shrink
from backtest.risk.scenarios.stress_run import StressRun

STEPS = 60
LARGEST_RISE = 64.0
"""The largest rise of the price, as a multiple, that a search for the break-even tries."""
SMALLEST_STEP = 1.0 / 64.0
"""The first of the log moves that a search for the break-even of a hedge doubles."""
LARGEST_STEP = 32.0
"""The largest of them."""


class Direction(NamedTuple):
    lead: str
    side: float
    is_hedged: bool


class BreakEven(NamedTuple):
    lead: str
    move: float


def find_break_even(run: StressRun, scenario: Scenario) -> BreakEven:
    moves = run.find_moves(scenario)
    lead = next((name for name, move in moves.items() if move != 0.0), next(iter(moves)))
    way = find_direction(run, lead, scale_moves(moves, lead))

    def is_dead(move: float) -> bool:
        moved = shift_scenario(scenario, moves, lead, move)
        return not moved.is_empty and run.is_liquidated(moved, run.make(moved))

    if way.is_hedged:
        move = search(is_dead, lambda step: shrink(way.side * step), LARGEST_RISE)
    else:
        end = math.nextafter(-1.0, 0.0) if way.side < 0.0 else LARGEST_RISE
        move = bisect(is_dead, 0.0, end)
    return BreakEven(lead, move)


def scale_moves(moves: Mapping[str, float], lead: str) -> dict[str, float]:
    if moves[lead] == 0.0:
        return dict.fromkeys(moves, 1.0)
    return {name: math.log1p(move) / math.log1p(moves[lead]) for name, move in moves.items()}


def find_direction(run: StressRun, lead: str, ratios: Mapping[str, float]) -> Direction:
    exposures = run.account.measure_exposures()
    gains = [exposures[name] * ratio for name, ratio in ratios.items()]
    side = 1.0 if sum(gains) < 0.0 else -1.0
    return Direction(lead, side, any(side * each > 0.0 for each in gains))


def find_break_even_of(run: StressRun, scenario: Scenario, bars: Bars) -> BreakEven:
    exposures = run.account.measure_exposures()
    worst = {
        name: float(each.last[1].max() if exposures[name] < 0.0 else each.last[2].min())
        for name, each in bars.items()
    }
    lead = next((name for name, price in worst.items() if price != 1.0), None)
    if lead is None:
        return BreakEven(next(iter(bars)), math.nan)
    log_move = math.log(worst[lead])

    def is_dead(scale: float) -> bool:
        scaled = {
            name: each._replace(last=each.last**scale, mark=each.mark**scale)
            for name, each in bars.items()
        }
        return run.is_liquidated(scenario, scaled)

    limit = math.log(LARGEST_RISE) / abs(log_move)
    gains = [exposures[name] * find_farthest(each) for name, each in bars.items()]
    if min(gains) < 0.0 < max(gains):
        scale = search(is_dead, lambda step: step / abs(log_move), limit)
    else:
        scale = bisect(is_dead, 0.0, limit)
    return BreakEven(lead, float(worst[lead] ** scale - 1.0))


def find_farthest(bars: ShockBars) -> float:
    low, high = math.log(bars.last[2].min()), math.log(bars.last[1].max())
    return low if -low >= high else high


def bisect(is_dead: Callable[[float], bool], alive: float, dead: float) -> float:
    if is_dead(alive):
        return alive
    if not is_dead(dead):
        return math.nan
    return halve(is_dead, alive, dead)


def search(
    is_dead: Callable[[float], bool], to_value: Callable[[float], float], largest: float
) -> float:
    alive, step = to_value(0.0), SMALLEST_STEP
    if is_dead(alive):
        return alive
    while step <= LARGEST_STEP and abs(to_value(step)) <= largest:
        dead = to_value(step)
        if is_dead(dead):
            return halve(is_dead, alive, dead)
        alive, step = dead, 2.0 * step
    return math.nan


def halve(is_dead: Callable[[float], bool], alive: float, dead: float) -> float:
    for _ in range(STEPS):
        middle = 0.5 * (alive + dead)
        if middle in (alive, dead):
            break
        if is_dead(middle):
            dead = middle
        else:
            alive = middle
    return dead
