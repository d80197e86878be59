"""Backtest leverage policies on historical prices and funding rates.

``bt.run(market, policy, venue=venue, account=account)`` takes an account through a market and
returns what it lived through: fees, funding, interest, margin calls, liquidations, bad debt.
"""

# isort: off
from backtest import early_interrupt as early_interrupt  # before all that takes time
# isort: on

from backtest import funding, margin, margin_rules, signals
from backtest.account import Account
from backtest.calculator import Calculation, calculate_liquidation
from backtest.combine import Combinator, held_leverage
from backtest.compare import Comparison, compare
from backtest.engine import run
from backtest.errors import (
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
from backtest.importing import import_market
from backtest.market import Market
from backtest.params import Choice, Range
from backtest.policy import Bar, Columns, Policy
from backtest.quality import Quality, quality
from backtest.result import Result
from backtest.simulate import AccountView
from backtest.sweep import Sweep, sweep
from backtest.tune import Robustness, Study, tune
from backtest.venue import Bracket, Contract, Earlier, Fees, InForce, Liquidation, Slippage, Venue

__all__ = [
    "Account",
    "AccountView",
    "AccountingError",
    "BacktestError",
    "Bar",
    "Bracket",
    "Calculation",
    "Choice",
    "Columns",
    "Combinator",
    "Comparison",
    "Contract",
    "DataError",
    "Earlier",
    "Fees",
    "InForce",
    "InfiniteLeverageWarning",
    "LastPriceWarning",
    "Liquidation",
    "Market",
    "NoFillWarning",
    "ParameterError",
    "Policy",
    "PolicyError",
    "Quality",
    "Range",
    "Result",
    "Robustness",
    "Slippage",
    "Study",
    "Sweep",
    "Venue",
    "VenueDateWarning",
    "VenueError",
    "calculate_liquidation",
    "compare",
    "funding",
    "held_leverage",
    "import_market",
    "margin",
    "margin_rules",
    "quality",
    "run",
    "signals",
    "sweep",
    "tune",
]
