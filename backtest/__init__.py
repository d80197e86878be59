"""Backtest leverage policies on historical prices and funding rates.

``bt.run(market, policy, venue=venue, account=account)`` takes an account through a market and
returns what it lived through: fees, funding, interest, margin calls, liquidations, bad debt.
"""

from backtest import funding, margin, signals
from backtest.account import Account
from backtest.combine import Combinator, held_leverage
from backtest.engine import run
from backtest.errors import (
    AccountingError,
    BacktestError,
    DataError,
    ParameterError,
    PolicyError,
    VenueError,
)
from backtest.market import Market
from backtest.params import Choice, Range
from backtest.policy import Bar, Columns, Policy
from backtest.result import Result
from backtest.simulate import AccountView
from backtest.sweep import Sweep, sweep
from backtest.tune import Robustness, Study, tune
from backtest.venue import Bracket, Contract, Fees, Liquidation, Slippage, Venue

__all__ = [
    "Account",
    "AccountView",
    "AccountingError",
    "BacktestError",
    "Bar",
    "Bracket",
    "Choice",
    "Columns",
    "Combinator",
    "Contract",
    "DataError",
    "Fees",
    "Liquidation",
    "Market",
    "ParameterError",
    "Policy",
    "PolicyError",
    "Range",
    "Result",
    "Robustness",
    "Slippage",
    "Study",
    "Sweep",
    "Venue",
    "VenueError",
    "funding",
    "held_leverage",
    "margin",
    "run",
    "signals",
    "sweep",
    "tune",
]
