"""The policies, one per file: a formula, its parameters, its source.

Defaults are for hourly crypto perpetuals. The parameters of estimates (windows, half-lives, bands)
were chosen on BTC perpetual futures of 2020 and 2021, never on later years. Those that set the risk
are conventions.
"""

from typing import TYPE_CHECKING

from backtest.core.code_names import find_lazily

if TYPE_CHECKING:
    from backtest.strategies.average import Average
    from backtest.strategies.capped import Capped
    from backtest.strategies.carry import Carry
    from backtest.strategies.collar import Collar
    from backtest.strategies.constant import Constant
    from backtest.strategies.cooldown import Cooldown
    from backtest.strategies.covered_call import CoveredCall
    from backtest.strategies.cppi import Cppi
    from backtest.strategies.delta_hedge import DeltaHedge
    from backtest.strategies.drawdown_control import DrawdownControl
    from backtest.strategies.fixed_risk import FixedRisk
    from backtest.strategies.funding_aware import FundingAware
    from backtest.strategies.health_target import HealthTarget
    from backtest.strategies.implied_vol_target import ImpliedVolTarget
    from backtest.strategies.kelly import Kelly
    from backtest.strategies.ladder import Ladder
    from backtest.strategies.leverage_loop import LeverageLoop
    from backtest.strategies.liquidation_distance import LiquidationDistance
    from backtest.strategies.liquidation_probability import LiquidationProbability
    from backtest.strategies.long_volatility import LongVolatility
    from backtest.strategies.lowest import Lowest
    from backtest.strategies.margin_buffer import MarginBuffer
    from backtest.strategies.regime import Regime
    from backtest.strategies.scheduled import Scheduled
    from backtest.strategies.sharpe_scaling import SharpeScaling
    from backtest.strategies.smoothed import Smoothed
    from backtest.strategies.tail_hedge import TailHedge
    from backtest.strategies.tail_risk import TailRisk
    from backtest.strategies.trend_vol import TrendVol
    from backtest.strategies.vol_target import VolTarget
else:
    __getattr__ = find_lazily(__name__, {
        "strategies.average": "Average",
        "strategies.capped": "Capped",
        "strategies.carry": "Carry",
        "strategies.collar": "Collar",
        "strategies.constant": "Constant",
        "strategies.cooldown": "Cooldown",
        "strategies.covered_call": "CoveredCall",
        "strategies.cppi": "Cppi",
        "strategies.delta_hedge": "DeltaHedge",
        "strategies.drawdown_control": "DrawdownControl",
        "strategies.fixed_risk": "FixedRisk",
        "strategies.funding_aware": "FundingAware",
        "strategies.health_target": "HealthTarget",
        "strategies.implied_vol_target": "ImpliedVolTarget",
        "strategies.kelly": "Kelly",
        "strategies.ladder": "Ladder",
        "strategies.leverage_loop": "LeverageLoop",
        "strategies.liquidation_distance": "LiquidationDistance",
        "strategies.liquidation_probability": "LiquidationProbability",
        "strategies.long_volatility": "LongVolatility",
        "strategies.lowest": "Lowest",
        "strategies.margin_buffer": "MarginBuffer",
        "strategies.regime": "Regime",
        "strategies.scheduled": "Scheduled",
        "strategies.sharpe_scaling": "SharpeScaling",
        "strategies.smoothed": "Smoothed",
        "strategies.tail_hedge": "TailHedge",
        "strategies.tail_risk": "TailRisk",
        "strategies.trend_vol": "TrendVol",
        "strategies.vol_target": "VolTarget",
    })  # fmt: skip

__all__ = [
    "Average",
    "Capped",
    "Carry",
    "Collar",
    "Constant",
    "Cooldown",
    "CoveredCall",
    "Cppi",
    "DeltaHedge",
    "DrawdownControl",
    "FixedRisk",
    "FundingAware",
    "HealthTarget",
    "ImpliedVolTarget",
    "Kelly",
    "Ladder",
    "LeverageLoop",
    "LiquidationDistance",
    "LiquidationProbability",
    "LongVolatility",
    "Lowest",
    "MarginBuffer",
    "Regime",
    "Scheduled",
    "SharpeScaling",
    "Smoothed",
    "TailHedge",
    "TailRisk",
    "TrendVol",
    "VolTarget",
]


def __dir__() -> list[str]:
    return __all__
