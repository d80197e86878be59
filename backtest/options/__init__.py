"""Options: prices, Greeks, implied volatilities, chains of quotes and fitted surfaces."""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.base import Greeks
    from backtest.options.pricing import bs, bs_greeks
    from backtest.options.chain import Chain, Inspection
    from backtest.options.option_listing import check_chain, find_expiry, find_underlying
    from backtest.options.option_listing import refuse_options
    from backtest.options.pricing import greeks, implied_volatility, price, volatility_reason
    from backtest.options.surfaces import is_out_of_the_money
    from backtest.options.surfaces import Surface
    from backtest.options.surfaces import Surfaces
    from backtest.options.surfaces import SVI

open_door(__name__)

__all__ = [
    "SVI",
    "Chain",
    "Greeks",
    "Inspection",
    "Surface",
    "Surfaces",
    "bs",
    "bs_greeks",
    "greeks",
    "implied_volatility",
    "price",
    "volatility_reason",
]
