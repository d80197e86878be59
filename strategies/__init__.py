"""The policies, one per file: a formula, its parameters, its source.

Defaults are for hourly crypto perpetuals. What estimates (windows, half-lives, bands) was chosen on
BTC perpetual futures of 2020 and 2021, never on later years; what sets the risk is convention.
"""

from strategies.average import Average
from strategies.capped import Capped
from strategies.constant import Constant
from strategies.cooldown import Cooldown
from strategies.cppi import Cppi
from strategies.drawdown_control import DrawdownControl
from strategies.funding_aware import FundingAware
from strategies.implied_vol_target import ImpliedVolTarget
from strategies.kelly import Kelly
from strategies.ladder import Ladder
from strategies.leverage_loop import LeverageLoop
from strategies.liquidation_probability import LiquidationProbability
from strategies.lowest import Lowest
from strategies.margin_buffer import MarginBuffer
from strategies.regime import Regime
from strategies.scheduled import Scheduled
from strategies.sharpe_scaling import SharpeScaling
from strategies.smoothed import Smoothed
from strategies.tail_risk import TailRisk
from strategies.trend_vol import TrendVol
from strategies.vol_target import VolTarget

__all__ = [
    "Average",
    "Capped",
    "Constant",
    "Cooldown",
    "Cppi",
    "DrawdownControl",
    "FundingAware",
    "ImpliedVolTarget",
    "Kelly",
    "Ladder",
    "LeverageLoop",
    "LiquidationProbability",
    "Lowest",
    "MarginBuffer",
    "Regime",
    "Scheduled",
    "SharpeScaling",
    "Smoothed",
    "TailRisk",
    "TrendVol",
    "VolTarget",
]
