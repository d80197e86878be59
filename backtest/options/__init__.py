"""Options: prices, Greeks, implied volatilities, chains of quotes, surfaces, schedules."""

from typing import TYPE_CHECKING

from backtest.core.code_names import find_lazily

if TYPE_CHECKING:
    from backtest.core import Greeks
    from backtest.options.chain import Chain, Inspection
    from backtest.options.option_inputs import check_columns, schedule_options
    from backtest.options.option_listing import check_chain, find_underlying, refuse_options
    from backtest.options.pricing import bs, bs_greeks, greeks, implied_volatility, price
    from backtest.options.pricing import volatility_reason
    from backtest.options.surfaces import SVI, Surface, Surfaces, is_out_of_the_money
else:
    __getattr__ = find_lazily(__name__, {
        "core": "Greeks",
        "options.chain": "Chain Inspection",
        "options.option_inputs": "check_columns schedule_options",
        "options.option_listing": "check_chain find_underlying refuse_options",
        "options.pricing": "bs bs_greeks greeks implied_volatility price volatility_reason",
        "options.surfaces": "SVI Surface Surfaces is_out_of_the_money",
    })  # fmt: skip

__all__ = [
    "SVI", "Chain", "Greeks", "Inspection", "Surface", "Surfaces", "bs", "bs_greeks", "greeks",
    "implied_volatility", "price", "volatility_reason",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
