"""A venue's rules: contract, brackets, fees, margin, liquidation price, and funding formula."""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.venue.venue import Bracket
    from backtest.venue.calculators import BookCalculation, calculate_book
    from backtest.venue.collateral import Collateral, Prices, StoredMarket, check_collateral
    from backtest.venue.portfolio_kernels import compute_collateral_value, compute_full_value
    from backtest.venue.portfolio_kernels import compute_value_at_rate
    from backtest.venue.requirement import compute_payment, compute_price
    from backtest.venue.requirement import compute_value
    from backtest.venue.venue import check_no_column, find_newest, has_spread, list_dated
    from backtest.venue.venue import list_numbers, pick_cost, read_newest, scale_cost
    from backtest.venue.venue import Earlier, InForce, InUse
    from backtest.venue.venue import FeeTier
    from backtest.venue.funding import FundingTerms, terms
    from backtest.venue.venue import find_charged
    from backtest.venue.collateral import RateCurve, read_column
    from backtest.venue.calculators import Calculation, calculate_liquidation
    from backtest.venue.calculators import find_touch_factor, touch_distance
    from backtest.venue.calculators import touch_probability
    from backtest.venue.requirement import compute_liquidation_value
    from backtest.venue.margin_presets import MarginPreset, PresetMargin, list_presets
    from backtest.venue.margin_presets import margin_preset
    from backtest.venue.venue import choose_multipliers, is_one
    from backtest.venue.option_kernels import bound_asset_slope, bound_linear_slope
    from backtest.venue.option_kernels import bound_option_slope, bound_relief_slope
    from backtest.venue.option_contract import Option, OptionPosition
    from backtest.venue.option_contract import OptionCosts, require_costs
    from backtest.venue.option_kernels import OptionPositions, OptionRules
    from backtest.venue.option_kernels import compute_option_requirement, fill_option
    from backtest.venue.requirement_rule import Standard, Strategy
    from backtest.venue.requirement_rule import OptionShocks
    from backtest.venue.requirement_rule import check_moves, number_each, number_groups
    from backtest.venue.requirement_rule import pack_option_rules
    from backtest.venue.option_kernels import compute_counted_rate, compute_counted_value
    from backtest.venue.option_kernels import compute_option_delta, compute_option_value
    from backtest.venue.option_kernels import compute_options_value, is_vega_small
    from backtest.venue.requirement_rule import OwnMargin, Requirement
    from backtest.venue.portfolio_kernels import Waypoint, find_failure, move_holdings
    from backtest.venue.portfolio_kernels import aim, find_failure_ratio
    from backtest.venue.portfolio_kernels import compute_full_backing, compute_haircut
    from backtest.venue.portfolio_kernels import compute_haircuts, compute_own_maintenance
    from backtest.venue.portfolio_kernels import compute_portfolio_backing
    from backtest.venue.portfolio_kernels import compute_portfolio_initial
    from backtest.venue.portfolio_kernels import compute_portfolio_requirement, fill_shares
    from backtest.venue.portfolio_kernels import find_maintenance, find_own_maintenance
    from backtest.venue.portfolio_kernels import is_pool_failing, scale_rate
    from backtest.venue.portfolio_kernels import Holdings, PortfolioRules, is_spot_leg, pick_rules
    from backtest.venue.requirement_rule import pack_brackets, pack_holdings, pack_spot
    from backtest.venue.requirement import LEVELS, MarginRules, compute_affordable
    from backtest.venue.requirement import compute_best_leverage
    from backtest.venue.requirement import compute_initial, compute_largest_notional
    from backtest.venue.requirement import compute_maintenance
    from backtest.venue.requirement import compute_setting, compute_step_floor
    from backtest.venue.requirement import read_rules
    from backtest.venue.requirement_rule import Brackets, MarginRule, RequirementRule
    from backtest.venue.requirement_rule import ScenarioMargin
    from backtest.venue.venue import agree_settlement, check_names_agree
    from backtest.venue.venue import Contract, Fees, Liquidation, Slippage, has_other_unit
    from backtest.venue.venue import Venue

open_door(__name__)
