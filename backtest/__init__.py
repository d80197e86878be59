"""Backtest leverage policies on historical prices and funding rates.

``bt.run(market, policy, venue=venue, account=account)`` takes an account through a market and
returns what it lived through: fees, funding, interest, margin calls, liquidations, bad debt.
"""

# isort: off
from backtest.base import early_interrupt as early_interrupt  # before all that takes time
# isort: on

from backtest import allocate, measures, report
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
from backtest.engine import PortfolioResult, Result, signals
from backtest.engine.run import run
from backtest.features import margin_rules
from backtest.features.liquidation_calculator import Calculation, calculate_liquidation
from backtest.market import Market, Markets, Quality, quality
from backtest.market.import_market import import_market
from backtest.policy import Columns, Combinator, Policy
from backtest.policy.combinators import held_leverage
from backtest.policy.policy import Bar
from backtest.policy.view import AccountView
from backtest.sweep import Sweep
from backtest.sweep.sweep import sweep
from backtest.tune import Robustness, Study, tune
from backtest.venue import Bracket, Venue, funding, margin
from backtest.venue.collateral import Collateral
from backtest.venue.dated_tables import Earlier, InForce
from backtest.venue.fee_tiers import FeeTier
from backtest.venue.multipliers import OpenInterestMargin
from backtest.venue.requirement_rule import Brackets, RequirementRule
from backtest.venue.scenario_margin import ScenarioMargin
from backtest.venue.venue import Contract, Fees, Liquidation, Slippage

# Reports stand above results, which must not import them: their methods are attached here.
Reportable._write_report = report.write_report
Reportable._write_cell = report.write_cell
Result._draw = report.draw_run
Result._run = staticmethod(run)  # it makes results

__all__ = [
    "Account",
    "AccountView",
    "AccountingError",
    "BacktestError",
    "Bar",
    "Bracket",
    "Brackets",
    "Calculation",
    "Choice",
    "Collateral",
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
    "Market",
    "Markets",
    "Multiple",
    "NoFillWarning",
    "OpenInterestMargin",
    "ParameterError",
    "Policy",
    "PolicyError",
    "PortfolioResult",
    "Quality",
    "Range",
    "RequirementRule",
    "Result",
    "Robustness",
    "ScenarioMargin",
    "Slippage",
    "Study",
    "Sweep",
    "Venue",
    "VenueDateWarning",
    "VenueError",
    "allocate",
    "calculate_liquidation",
    "compare",
    "funding",
    "held_leverage",
    "import_market",
    "leverage_limit",
    "margin",
    "margin_rules",
    "measures",
    "quality",
    "run",
    "signals",
    "sweep",
    "tune",
]
