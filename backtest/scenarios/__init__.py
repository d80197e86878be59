"""Stress tests, crashes, the order inside bars, capacity, and sensitivity to assumptions."""

from backtest.scenarios.bounds import Bounds, bounds, count_ambiguous
from backtest.scenarios.capacity import Capacity, capacity
from backtest.scenarios.scenario import Scenario
from backtest.scenarios.sensitivity import Sensitivity, sensitivity
from backtest.scenarios.stress import crashes, stress
from backtest.scenarios.stress_result import Stress

__all__ = [
    "Bounds",
    "Capacity",
    "Scenario",
    "Sensitivity",
    "Stress",
    "bounds",
    "capacity",
    "count_ambiguous",
    "crashes",
    "sensitivity",
    "stress",
]
