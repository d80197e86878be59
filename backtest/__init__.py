"""Backtest leverage policies on historical prices and funding rates.

``bt.run(market, policy, venue=venue, account=account)`` takes an account through a market and
returns what it lived through: fees, funding, interest, margin calls, liquidations, bad debt.
"""

# isort: off
from backtest.base import early_interrupt as early_interrupt  # before all that takes time
# isort: on

from backtest import measures, paths, report
from backtest.account import Account, Multiple
from backtest.account.leverage_limits import leverage_limit
from backtest.base.errors import (
    AccountingError,
    BacktestError,
    DataError,
    InfiniteLeverageWarning,
    LastPriceWarning,
    NoFillWarning,
    ParameterError,
    PolicyError,
    VenueDateWarning,
    VenueError,
)
from backtest.base.ranges import Choice, Range
from backtest.base.reportable import Reportable
from backtest.compare import Comparison, compare
from backtest.engine import Result, signals
from backtest.engine.run import run
from backtest.features import margin_rules
from backtest.features.liquidation_calculator import Calculation, calculate_liquidation
from backtest.market import Market, Quality, quality
from backtest.market.import_market import import_market
from backtest.paths import (
    LiquidationRisk,
    MaxLeverage,
    Paths,
    liquidation_risk,
    max_leverage,
    simulate_paths,
)
from backtest.policy import Columns, Combinator, Policy
from backtest.policy.combinators import held_leverage
from backtest.policy.policy import Bar
from backtest.policy.view import AccountView
from backtest.scenarios import (
    Bounds,
    Scenario,
    Sensitivity,
    Stress,
    bounds,
    count_ambiguous,
    crashes,
    sensitivity,
    stress,
)
from backtest.sweep import Sweep
from backtest.sweep.sweep import sweep
from backtest.tune import Robustness, Study, tune
from backtest.venue import Bracket, Venue, funding, margin
from backtest.venue.dated_tables import Earlier, InForce
from backtest.venue.fee_tiers import FeeTier
from backtest.venue.multipliers import OpenInterestMargin
from backtest.venue.venue import Contract, Fees, Liquidation, Slippage

# Reports stand above results, which must not import them: their methods are attached here.
Reportable._write_report = report.write_report
Reportable._write_cell = report.write_cell
Result._draw = report.draw_run
Result._run = staticmethod(run)  # it makes results
Result._count_ambiguous = count_ambiguous  # it lives them again

__all__ = [
    "Account",
    "AccountView",
    "AccountingError",
    "BacktestError",
    "Bar",
    "Bounds",
    "Bracket",
    "Calculation",
    "Choice",
    "Columns",
    "Combinator",
    "Comparison",
    "Contract",
    "DataError",
    "Earlier",
    "FeeTier",
    "Fees",
    "InForce",
    "InfiniteLeverageWarning",
    "LastPriceWarning",
    "Liquidation",
    "LiquidationRisk",
    "Market",
    "MaxLeverage",
    "Multiple",
    "NoFillWarning",
    "OpenInterestMargin",
    "ParameterError",
    "Paths",
    "Policy",
    "PolicyError",
    "Quality",
    "Range",
    "Result",
    "Robustness",
    "Scenario",
    "Sensitivity",
    "Slippage",
    "Stress",
    "Study",
    "Sweep",
    "Venue",
    "VenueDateWarning",
    "VenueError",
    "bounds",
    "calculate_liquidation",
    "compare",
    "crashes",
    "funding",
    "held_leverage",
    "import_market",
    "leverage_limit",
    "liquidation_risk",
    "margin",
    "margin_rules",
    "max_leverage",
    "measures",
    "paths",
    "quality",
    "run",
    "sensitivity",
    "signals",
    "simulate_paths",
    "stress",
    "sweep",
    "tune",
]
