"""Stress tests, crashes, the order inside bars, capacity, and sensitivity to assumptions."""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.scenarios.bounds import Bounds, bounds, count_ambiguous
    from backtest.scenarios.capacity import Capacity, capacity
    from backtest.scenarios.scenario import Scenario
    from backtest.scenarios.sensitivity import Sensitivity, sensitivity
    from backtest.scenarios.stress import crashes, stress
    from backtest.scenarios.stress_result import Stress

open_door(__name__)
