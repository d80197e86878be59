"""Backtest leverage policies on historical prices and funding rates.

``bt.run(market, policy, venue=venue, account=account)`` takes an account through a market and
returns its full history: fees, funding, interest, margin calls, liquidations, bad debt.

Every public name stands below, and is imported when it is first used.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backtest import allocate, indicators, margin, measures, options, paths, signals, strategies
    from backtest.account.account import Account, Multiple
    from backtest.accounts.book import Accounts
    from backtest.accounts.result import AccountsResult
    from backtest.accounts.rules import AccountStatus, KeepShares, Never, SweepProfits, TopUp
    from backtest.accounts.rules import TransferRule
    from backtest.backtest import Backtest, run
    from backtest.core.errors import AccountingError, BacktestError, BandWarning, DataError
    from backtest.core.errors import HighRateWarning, InfiniteLeverageWarning, LastPriceWarning
    from backtest.core.errors import NoFillWarning
    from backtest.core.errors import ParameterError, PolicyError, VenueDateWarning, VenueError
    from backtest.core.errors import WeightWarning
    from backtest.core.fields import Choice, Range
    from backtest.judgement.judgement import Judgement
    from backtest.live.fills import read_fills
    from backtest.live.state import AccountSnapshot
    from backtest.margin.calculators import BookCalculation, Calculation, calculate_book
    from backtest.margin.calculators import calculate_liquidation
    from backtest.margin.collateral import Collateral, RateCurve
    from backtest.margin.presets import MarginPreset, margin_preset
    from backtest.margin.requirement_rule import Brackets, PresetMargin, RequirementRule
    from backtest.margin.requirement_rule import ScenarioMargin, Standard, Strategy
    from backtest.margin.scenario_fields import OptionShocks
    from backtest.market.clock import decide_every
    from backtest.market.market import Market
    from backtest.market.markets import Markets
    from backtest.market.quality import Quality, quality
    from backtest.options.chain import Chain
    from backtest.options.fitted_surface import Surface
    from backtest.options.surfaces import Surfaces
    from backtest.policies.combinators import Combinator, OptionRule, held_leverage
    from backtest.policies.policy import Bar, Columns, Policy, Promise
    from backtest.policies.view import AccountView
    from backtest.results.result import Result
    from backtest.risk.bands import Bands
    from backtest.risk.cascade import Cascade
    from backtest.risk.impact_laws import Linear, SquareRoot
    from backtest.risk.contagion import BookCrowd, Contagion, cascade
    from backtest.risk.crowd import Crowd
    from backtest.risk.funded import PassingProbability
    from backtest.risk.largest_leverage import MaxLeverage
    from backtest.risk.growth_frontier import LeverageFrontier
    from backtest.risk.liquidations import LiquidationRisk
    from backtest.risk.margin_calibration import MarginCalibration
    from backtest.risk.margin_systems import MarginComparison
    from backtest.risk.paths import Paths, simulate_paths
    from backtest.risk.scenarios import Scenario, crashes
    from backtest.risk.stress import Stress, stress
    from backtest.risk.capital_capacity import Capacity
    from backtest.risk.factor_sensitivity import Sensitivity
    from backtest.risk.intrabar_bounds import Bounds, bounds
    from backtest.search.compare import compare
    from backtest.search.comparison import Comparison
    from backtest.search.cross_validate import CrossValidation
    from backtest.search.equal_risk import equal_risk
    from backtest.search.frontier import Frontier
    from backtest.search.problem import Robustness
    from backtest.search.study import Study
    from backtest.search.timing import TimingTest, timing_test
    from backtest.search.validation import folds
    from backtest.search.walk_forward import WalkForward
    from backtest.signals.kelly_weights import rck_weights
    from backtest.sweep.sweep_table import Sweep
    from backtest.venue.option_contract import Option, OptionCosts, OptionPosition
    from backtest.venue.contract import Contract
    from backtest.venue.margin_table import Bracket, Earlier, InForce
    from backtest.venue.trade_costs import FeeTier, Fees, Liquidation, Slippage
    from backtest.venue.venue import Venue
    from backtest.venue import funding
    from backtest.venue import margin_rules
    from backtest.core import public_math as math

_NAMES = {
    "account.account": "Account Multiple",
    "accounts.book": "Accounts",
    "accounts.result": "AccountsResult",
    "accounts.rules": "AccountStatus KeepShares Never SweepProfits TopUp TransferRule",
    "backtest": "Backtest run",
    "core.errors": (
        "AccountingError BacktestError BandWarning DataError HighRateWarning "
        "InfiniteLeverageWarning LastPriceWarning NoFillWarning ParameterError PolicyError "
        "VenueDateWarning VenueError WeightWarning"
    ),
    "core.fields": "Choice Range",
    "judgement.judgement": "Judgement",
    "live.fills": "read_fills",
    "live.state": "AccountSnapshot",
    "margin.calculators": "BookCalculation Calculation calculate_book calculate_liquidation",
    "margin.collateral": "Collateral RateCurve",
    "margin.presets": "MarginPreset margin_preset",
    "margin.requirement_rule": (
        "Brackets PresetMargin RequirementRule ScenarioMargin Standard Strategy"
    ),
    "margin.scenario_fields": "OptionShocks",
    "market.clock": "decide_every",
    "market.market": "Market",
    "market.markets": "Markets",
    "market.quality": "Quality quality",
    "options.chain": "Chain",
    "options.fitted_surface": "Surface",
    "options.surfaces": "Surfaces",
    "policies.combinators": "Combinator OptionRule held_leverage",
    "policies.policy": "Bar Columns Policy Promise",
    "policies.view": "AccountView",
    "results.result": "Result",
    "risk.bands": "Bands",
    "risk.cascade": "Cascade",
    "risk.impact_laws": "Linear SquareRoot",
    "risk.contagion": "BookCrowd Contagion cascade",
    "risk.crowd": "Crowd",
    "risk.funded": "PassingProbability",
    "risk.largest_leverage": "MaxLeverage",
    "risk.growth_frontier": "LeverageFrontier",
    "risk.liquidations": "LiquidationRisk",
    "risk.margin_calibration": "MarginCalibration",
    "risk.margin_systems": "MarginComparison",
    "risk.paths": "Paths simulate_paths",
    "risk.scenarios": "Scenario crashes",
    "risk.stress": "Stress stress",
    "risk.capital_capacity": "Capacity",
    "risk.factor_sensitivity": "Sensitivity",
    "risk.intrabar_bounds": "Bounds bounds",
    "search.compare": "compare",
    "search.comparison": "Comparison",
    "search.cross_validate": "CrossValidation",
    "search.equal_risk": "equal_risk",
    "search.frontier": "Frontier",
    "search.problem": "Robustness",
    "search.study": "Study",
    "search.timing": "TimingTest timing_test",
    "search.validation": "folds",
    "search.walk_forward": "WalkForward",
    "signals.kelly_weights": "rck_weights",
    "sweep.sweep_table": "Sweep",
    "venue.option_contract": "Option OptionCosts OptionPosition",
    "venue.contract": "Contract",
    "venue.margin_table": "Bracket Earlier InForce",
    "venue.trade_costs": "FeeTier Fees Liquidation Slippage",
    "venue.venue": "Venue",
}
"""The public names by the module of the package that has them."""
_MODULES = {
    "allocate": "allocate",
    "funding": "venue.funding",
    "indicators": "indicators",
    "margin": "margin",
    "margin_rules": "venue.margin_rules",
    "math": "core.public_math",
    "measures": "measures",
    "options": "options",
    "paths": "paths",
    "signals": "signals",
    "strategies": "strategies",
}
"""Public names that are modules."""
_METHODS = (
    "calibrate_margin", "capacity", "compare_margin", "cross_validate", "decide", "frontier",
    "leverage_frontier", "liquidation_risk", "max_leverage", "objective", "passing_probability",
    "replay", "sensitivity", "sweep", "tune", "walk_forward",
)  # fmt: skip
"""Methods of a test that people look for as functions."""
_PLACES = {name: module for module, names in _NAMES.items() for name in names.split()}


if not TYPE_CHECKING:  # a type checker reads the imports, and would allow any name here

    def __getattr__(name: str) -> object:
        if name in _MODULES:
            value: object = _import_module(f"backtest.{_MODULES[name]}")
        elif name in _PLACES:
            value = getattr(_import_module(f"backtest.{_PLACES[name]}"), name)
        elif name in _METHODS:
            raise AttributeError(f"bt.{name} is a method: bt.Backtest(market, ...).{name}(...)")
        else:
            raise AttributeError(f"module 'backtest' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return __all__


__all__ = [
    "Account", "AccountSnapshot", "AccountStatus", "AccountView", "AccountingError", "Accounts",
    "AccountsResult", "Backtest", "BacktestError", "BandWarning", "Bands", "Bar", "BookCalculation",
    "BookCrowd", "Bounds", "Bracket", "Brackets", "Calculation", "Capacity", "Cascade", "Chain",
    "Choice", "Collateral", "Columns", "Combinator", "Comparison", "Contagion", "Contract",
    "CrossValidation", "Crowd", "DataError", "Earlier", "FeeTier", "Fees", "Frontier",
    "HighRateWarning", "InForce", "InfiniteLeverageWarning", "Judgement", "KeepShares",
    "LastPriceWarning", "LeverageFrontier", "Linear", "Liquidation", "LiquidationRisk",
    "MarginCalibration", "MarginComparison", "MarginPreset", "Market", "Markets", "MaxLeverage",
    "Multiple", "Never",
    "NoFillWarning", "Option", "OptionCosts", "OptionPosition", "OptionRule", "OptionShocks",
    "ParameterError", "PassingProbability", "Paths", "Policy", "PolicyError", "PresetMargin",
    "Promise", "Quality", "Range", "RateCurve", "RequirementRule", "Result", "Robustness",
    "Scenario", "ScenarioMargin", "Sensitivity", "Slippage", "SquareRoot", "Standard", "Strategy",
    "Stress", "Study", "Surface", "Surfaces", "Sweep", "SweepProfits", "TimingTest", "TopUp",
    "TransferRule", "Venue", "VenueDateWarning", "VenueError", "WalkForward", "WeightWarning",
    "allocate", "bounds", "calculate_book", "calculate_liquidation", "cascade", "compare",
    "crashes", "decide_every", "equal_risk", "folds", "funding", "held_leverage", "indicators",
    "margin", "margin_preset", "margin_rules", "math", "measures", "options", "paths", "quality",
    "rck_weights", "read_fills", "run", "signals", "simulate_paths", "strategies", "stress",
    "timing_test",
]  # fmt: skip
