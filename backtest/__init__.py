"""Backtest leverage policies on historical prices and funding rates.

``bt.run(market, policy, venue=venue, account=account)`` takes an account through a market and
returns its full history: fees, funding, interest, margin calls, liquidations, bad debt.
"""

import gc as _gc
from typing import TYPE_CHECKING

_was_collecting = _gc.isenabled()
_gc.disable()  # imports leave no garbage, and looking for it takes a sixth of their time

from backtest import margin, measures, signals
from backtest.account import Account, Multiple
from backtest.core import AccountingError, BacktestError, BandWarning, Choice, DataError
from backtest.core import HighRateWarning
from backtest.core import InfiniteLeverageWarning, LastPriceWarning, NoFillWarning, ParameterError
from backtest.core import PolicyError, Range, VenueDateWarning, VenueError, WeightWarning
from backtest.core import bind_higher, export_lazily
from backtest.core import public_math as math
from backtest.engine import Backtest, run
from backtest.margin import Brackets, Collateral, MarginPreset, OptionShocks, PresetMargin
from backtest.margin import RateCurve, RequirementRule, ScenarioMargin, Standard, Strategy
from backtest.margin import margin_preset
from backtest.market import Market, Markets, Quality, decide_every, quality
from backtest.policies import AccountView, Bar, Columns, Combinator, OptionRule, Policy, Promise
from backtest.policies import held_leverage
from backtest.results import Result
from backtest.venue import Bracket, Contract, Earlier, Fees, FeeTier, InForce, Liquidation, Option
from backtest.venue import OptionCosts, OptionPosition, Slippage, Venue, funding, margin_rules

if TYPE_CHECKING:
    from types import ModuleType

    from backtest import allocate, indicators, options, paths
    from backtest.live import AccountSnapshot, decide, read_fills, replay
    from backtest.margin import BookCalculation, Calculation, calculate_book, calculate_liquidation
    from backtest.options import Chain, Surface, Surfaces
    from backtest.risk import BookCrowd, Bounds, Capacity, Cascade, Contagion, Crowd
    from backtest.risk import LeverageFrontier, Linear, LiquidationRisk, MarginCalibration
    from backtest.risk import MarginComparison, MaxLeverage, PassingProbability, Paths, Scenario
    from backtest.risk import Sensitivity, SquareRoot, Stress, bounds, calibrate_margin, capacity
    from backtest.risk import cascade, compare_margin, crashes, leverage_frontier, liquidation_risk
    from backtest.risk import max_leverage, passing_probability, sensitivity, simulate_paths, stress
    from backtest.search import Comparison, CrossValidation, Robustness, Study, WalkForward, compare
    from backtest.search import Frontier, TimingTest, cross_validate, folds, frontier, objective
    from backtest.search import timing_test, tune, walk_forward
    from backtest.sweep import Sweep, sweep

    strategies: ModuleType

bind_higher(
    {
        "listing of options": "backtest.options.option_listing",
        "manifest": "backtest.results.manifest",
        "option formulas": "backtest.options.pricing",
        "equal risk": "backtest.search.equal_risk",
        "page of a run": "backtest.report.run_parts",
        "page of a surface": "backtest.report.surface_parts",
        "page of sets": "backtest.report.set_parts",
        "report": "backtest.report",
        "test": "backtest.engine.backtest",
        "kind of result: run": "backtest.results.result",
        "kind of result: sweep": "backtest.sweep.sweep_table",
        "kind of result: comparison": "backtest.search.compare",
        "kind of result: study": "backtest.search.study",
        "kind of result: cross-validation": "backtest.search.cross_validate",
        "kind of result: walk-forward": "backtest.search.walk_forward",
        "kind of result: timing": "backtest.search.timing",
        "kind of result: liquidation-risk": "backtest.risk.liquidations",
        "kind of result: passing-probability": "backtest.risk.funded",
        "kind of result: max-leverage": "backtest.risk.largest_leverage",
        "kind of result: bounds": "backtest.risk.variations",
        "kind of result: margin-calibration": "backtest.risk.margin_systems",
        "kind of result: margin-comparison": "backtest.risk.margin_systems",
        "kind of result: capacity": "backtest.risk.variations",
        "kind of result: sensitivity": "backtest.risk.variations",
        "kind of result: stress": "backtest.risk.stress",
        "kind of result: cascade": "backtest.risk.cascade",
        "kind of result: parameter-sensitivity": "backtest.risk.variations",
        "kind of result: leverage-frontier": "backtest.risk.largest_leverage",
        "kind of result: frontier": "backtest.search.frontier",
        "kind of result: contagion": "backtest.risk.contagion",
    }
)

bind_higher({"load": "backtest.cli.build", "save": "backtest.cli.build"}, methods_of=Backtest)
_METHODS = (
    "bounds", "calibrate_margin", "capacity", "compare", "compare_margin", "cross_validate",
    "decide", "frontier", "leverage_frontier", "liquidation_risk", "max_leverage", "objective",
    "passing_probability", "replay", "run", "sensitivity", "stress", "sweep", "timing_test",
    "tune", "walk_forward",
)  # fmt: skip
bind_higher(dict.fromkeys(_METHODS, __name__), methods_of=Backtest)

if _was_collecting:
    _gc.enable()

export_lazily(__name__)
del bind_higher  # not public


__all__ = [
    "Account", "AccountSnapshot", "AccountView", "AccountingError", "Backtest", "BacktestError",
    "BandWarning", "Bar", "BookCalculation", "BookCrowd", "Bounds", "Bracket", "Brackets",
    "Calculation", "Capacity", "Cascade", "Chain", "Choice", "Collateral", "Columns", "Combinator",
    "Comparison", "Contagion", "Contract", "CrossValidation", "Crowd", "DataError", "Earlier",
    "FeeTier", "Fees", "Frontier", "HighRateWarning", "InForce", "InfiniteLeverageWarning",
    "LastPriceWarning", "LeverageFrontier", "Linear", "Liquidation", "LiquidationRisk",
    "MarginCalibration", "MarginComparison", "MarginPreset", "Market", "Markets", "MaxLeverage",
    "Multiple", "NoFillWarning", "Option", "OptionCosts", "OptionPosition", "OptionRule",
    "OptionShocks", "ParameterError", "PassingProbability", "Paths", "Policy", "PolicyError",
    "PresetMargin", "Promise", "Quality", "Range", "RateCurve", "RequirementRule", "Result",
    "Robustness", "Scenario", "ScenarioMargin", "Sensitivity", "Slippage", "SquareRoot", "Standard",
    "Strategy", "Stress", "Study", "Surface", "Surfaces", "Sweep", "TimingTest", "Venue",
    "VenueDateWarning", "VenueError", "WalkForward", "WeightWarning", "allocate", "bounds",
    "calculate_book", "calculate_liquidation", "calibrate_margin", "capacity", "cascade", "compare",
    "compare_margin", "crashes", "cross_validate", "decide", "decide_every", "folds", "frontier",
    "funding", "held_leverage", "indicators", "leverage_frontier", "liquidation_risk", "margin",
    "margin_preset", "margin_rules", "math", "max_leverage", "measures", "objective", "options",
    "passing_probability", "paths", "quality", "read_fills", "replay", "run", "sensitivity",
    "signals", "simulate_paths", "strategies", "stress", "sweep", "timing_test", "tune",
    "walk_forward",
]  # fmt: skip
