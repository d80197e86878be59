"""A venue's rules: contract, brackets, fees, margin, liquidation price, and funding formula."""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.venue.calculators import BookCalculation, calculate_book, calculate_liquidation
    from backtest.venue.calculators import Calculation, find_touch_factor, touch_probability
    from backtest.venue.collateral import check_collateral, Collateral, RateCurve
    from backtest.venue.funding import FundingTerms, terms
    from backtest.venue.option_contract import Option, OptionCosts, OptionPosition, require_costs
    from backtest.venue.option_kernels import bound_asset_slope, bound_linear_slope
    from backtest.venue.option_kernels import bound_option_slope
    from backtest.venue.option_kernels import compute_counted_rate, compute_counted_value
    from backtest.venue.option_kernels import compute_option_delta, compute_option_requirement
    from backtest.venue.option_kernels import compute_option_value, compute_options_value
    from backtest.venue.option_kernels import fill_option, is_vega_small, OptionPositions
    from backtest.venue.option_kernels import OptionRules
    from backtest.venue.portfolio_kernels import aim, compute_collateral_value, compute_full_backing
    from backtest.venue.portfolio_kernels import compute_full_value, compute_haircut
    from backtest.venue.portfolio_kernels import compute_haircuts, compute_own_maintenance
    from backtest.venue.portfolio_kernels import compute_portfolio_backing
    from backtest.venue.portfolio_kernels import compute_portfolio_initial
    from backtest.venue.portfolio_kernels import compute_portfolio_requirement
    from backtest.venue.portfolio_kernels import compute_value_at_rate, fill_shares, find_failure
    from backtest.venue.portfolio_kernels import find_failure_ratio, find_maintenance
    from backtest.venue.portfolio_kernels import find_own_maintenance, Holdings, is_pool_failing
    from backtest.venue.portfolio_kernels import is_spot_leg, move_holdings, pick_rules
    from backtest.venue.portfolio_kernels import PortfolioRules, scale_rate, Waypoint
    from backtest.venue.requirement import compute_affordable, compute_best_leverage
    from backtest.venue.requirement import compute_initial, compute_largest_notional
    from backtest.venue.requirement import compute_liquidation_value, compute_maintenance
    from backtest.venue.requirement import compute_payment, compute_price, compute_setting
    from backtest.venue.requirement import compute_step_floor, compute_value, LEVELS, MarginRules
    from backtest.venue.requirement import read_rules
    from backtest.venue.requirement_rule import Brackets, check_moves, list_presets, margin_preset
    from backtest.venue.requirement_rule import MarginPreset, MarginRule, number_each, number_groups
    from backtest.venue.requirement_rule import OptionShocks, OwnMargin, pack_brackets
    from backtest.venue.requirement_rule import pack_option_rules, pack_spot, PresetMargin
    from backtest.venue.requirement_rule import Requirement, RequirementRule, ScenarioMargin
    from backtest.venue.requirement_rule import Standard, Strategy
    from backtest.venue.venue import agree_settlement, Bracket, check_no_column
    from backtest.venue.venue import choose_multipliers, Contract, Earlier, Fees, FeeTier
    from backtest.venue.venue import find_charged, find_newest, has_spread, InForce
    from backtest.venue.venue import InUse, Liquidation, list_dated, pick_cost, read_newest
    from backtest.venue.venue import read_venue, scale_cost, Slippage, Venue, VenueLike

open_door(__name__)
