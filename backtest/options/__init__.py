"""Options: prices, Greeks, implied volatilities, chains of quotes, surfaces, schedules.

===========  ==================================================================================
word         what it is, and its unit
===========  ==================================================================================
option       a contract, or its terms: underlying, kind, strike, expiry, settlement, size
row          one quote of one option in a chain
chain        the rows of many options, at one or several instants
snapshot     the rows of one instant
k            log-moneyness, ln(strike / forward); in feeds the number of an option
years        time to expiry, years of 365 days
total        total variance, volatility^2 years
deviation    standard deviation of k at expiry: its root at the money
smile        total variance by k, of one expiry
surface      the smiles of a snapshot, by expiry
carry        ln(forward / spot) of an expiry
owner        the instrument in the account on which an option is written
listing      the options of an account, and the surfaces and chains that value them
feed         arrays by bar and option that the engine reads
quantities   signed contracts by time: the schedule
===========  ==================================================================================
"""

from typing import TYPE_CHECKING

from backtest.core.code_names import find_lazily

if TYPE_CHECKING:
    from backtest.core import Greeks
    from backtest.options.chain import Chain, Inspection
    from backtest.options.fitted_surface import Surface
    from backtest.options.option_listing import check_chain, find_underlying, refuse_options
    from backtest.options.option_schedule import check_columns, schedule_options
    from backtest.options.pricing import bs, bs_greeks, greeks, implied_volatility, price
    from backtest.options.pricing import volatility_reason
    from backtest.options.smile_fits import is_out_of_the_money
    from backtest.options.smiles import SVI
    from backtest.options.surfaces import Surfaces
else:
    __getattr__ = find_lazily(__name__, {
        "core": "Greeks",
        "options.chain": "Chain Inspection",
        "options.fitted_surface": "Surface",
        "options.option_listing": "check_chain find_underlying refuse_options",
        "options.option_schedule": "check_columns schedule_options",
        "options.pricing": "bs bs_greeks greeks implied_volatility price volatility_reason",
        "options.smile_fits": "is_out_of_the_money",
        "options.smiles": "SVI",
        "options.surfaces": "Surfaces",
    })  # fmt: skip

__all__ = [
    "SVI", "Chain", "Greeks", "Inspection", "Surface", "Surfaces", "bs", "bs_greeks", "greeks",
    "implied_volatility", "price", "volatility_reason",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
