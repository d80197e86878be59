"""A venue's rules: contract, fees, slippage, liquidation, funding, and dated presets."""

from typing import TYPE_CHECKING

from backtest.core.code_names import find_lazily

if TYPE_CHECKING:
    from backtest.venue.margin_rules import DynamicMargin, Rule
    from backtest.venue.funding import FundingTerms, read_terms, terms
    from backtest.venue.option_contract import Option, OptionCosts, OptionPosition, format_strike
    from backtest.venue.option_contract import require_costs
    from backtest.venue.contract import Contract, agree_settlement
    from backtest.venue.margin_table import Bracket, ChangedFrom, Earlier, InForce, InUse
    from backtest.venue.trade_costs import FeeTier, Fees, Liquidation, Slippage, check_no_column
    from backtest.venue.trade_costs import find_newest, has_spread, list_dated, pick_cost
    from backtest.venue.trade_costs import read_newest, scale_cost
    from backtest.venue.venue import Venue, VenueLike, choose_multipliers, find_charged, read_venue
else:
    __getattr__ = find_lazily(__name__, {
        "venue.funding": "FundingTerms read_terms terms",
        "venue.margin_rules": "DynamicMargin Rule",
        "venue.option_contract": (
            "Option OptionCosts OptionPosition format_strike require_costs"
        ),
        "venue.contract": "Contract agree_settlement",
        "venue.margin_table": "Bracket ChangedFrom Earlier InForce InUse",
        "venue.trade_costs": (
            "FeeTier Fees Liquidation Slippage check_no_column find_newest has_spread list_dated "
            "pick_cost read_newest scale_cost"
        ),
        "venue.venue": "Venue VenueLike choose_multipliers find_charged read_venue",
    })  # fmt: skip
