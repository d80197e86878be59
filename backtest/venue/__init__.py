"""A venue's rules: contract, fees, slippage, liquidation, funding, and dated presets."""

from typing import TYPE_CHECKING

from backtest.core.code_names import find_lazily

if TYPE_CHECKING:
    from backtest.venue.margin_rules import DynamicMargin, Rule
    from backtest.venue.funding import FundingTerms, read_terms, terms
    from backtest.venue.option_contract import Option, OptionCosts, OptionPosition, require_costs
    from backtest.venue.venue import Bracket, Contract, Earlier, FeeTier, Fees, InForce, InUse
    from backtest.venue.venue import Liquidation, Slippage, Venue, VenueLike, agree_settlement
    from backtest.venue.venue import check_no_column, choose_multipliers, find_charged, find_newest
    from backtest.venue.venue import has_spread, list_dated, pick_cost, read_newest, read_venue
    from backtest.venue.venue import scale_cost
else:
    __getattr__ = find_lazily(__name__, {
        "venue.funding": "FundingTerms read_terms terms",
        "venue.margin_rules": "DynamicMargin Rule",
        "venue.option_contract": "Option OptionCosts OptionPosition require_costs",
        "venue.venue": (
            "Bracket Contract Earlier FeeTier Fees InForce InUse Liquidation Slippage Venue "
            "VenueLike agree_settlement check_no_column choose_multipliers find_charged "
            "find_newest has_spread list_dated pick_cost read_newest read_venue scale_cost"
        ),
    })  # fmt: skip
