"""Options: prices, Greeks, implied volatilities, chains of quotes and fitted surfaces."""

from backtest.base.black_kernels import Greeks
from backtest.options.black_scholes import bs, bs_greeks, bs_implied_volatility
from backtest.options.chain import Chain
from backtest.options.chain_inspection import Inspection
from backtest.options.pricing import (
    greeks,
    implied_volatility,
    price,
    volatility_reason,
)
from backtest.options.surface import Surface
from backtest.options.surfaces import Surfaces
from backtest.options.svi import SSVI, SVI

__all__ = [
    "SSVI",
    "SVI",
    "Chain",
    "Greeks",
    "Inspection",
    "Surface",
    "Surfaces",
    "bs",
    "bs_greeks",
    "bs_implied_volatility",
    "greeks",
    "implied_volatility",
    "price",
    "volatility_reason",
]
