"""Mathematics of margin: requirements, cross margin, liquidation prices, calculators."""

from typing import TYPE_CHECKING

from backtest.core import export_lazily

if TYPE_CHECKING:
    from backtest.margin.calculators import calculate_book, calculate_liquidation, find_touch_factor
    from backtest.margin.calculators import BookCalculation, Calculation, touch_probability
    from backtest.margin.collateral import Collateral, RateCurve, check_collateral
    from backtest.margin.functions import bankruptcy_price, liquidation_price, survivable_notional
    from backtest.margin.functions import collateral_value, largest_notional, strategy_deposit
    from backtest.margin.functions import initial, maintenance, option_value, requirement
    from backtest.margin.option_kernels import OptionPool, OptionPositions, OptionRules
    from backtest.margin.option_kernels import bound_asset_slope, bound_linear_slope
    from backtest.margin.option_kernels import bound_option_slope, compute_counted_rate
    from backtest.margin.option_kernels import compute_counted_value, compute_option_delta
    from backtest.margin.option_kernels import compute_option_requirement, compute_option_value
    from backtest.margin.option_kernels import compute_options_value, fill_option, is_vega_small
    from backtest.margin.portfolio_kernels import compute_full_value, compute_portfolio_requirement
    from backtest.margin.portfolio_kernels import compute_portfolio_backing, compute_value_at_rate
    from backtest.margin.portfolio_kernels import compute_collateral_value, compute_full_backing
    from backtest.margin.portfolio_kernels import Holdings, find_failure_ratio, find_own_maintenance
    from backtest.margin.portfolio_kernels import PortfolioRules, compute_haircuts, find_maintenance
    from backtest.margin.portfolio_kernels import compute_haircut, is_pool_failing, move_holdings
    from backtest.margin.portfolio_kernels import fill_shares, find_failure, is_spot_leg, pick_rules
    from backtest.margin.portfolio_kernels import Segment, Waypoint, aim, scale_rate
    from backtest.margin.brackets import LEVELS, compute_largest_notional, compute_liquidation_value
    from backtest.margin.brackets import compute_best_leverage, compute_initial, compute_maintenance
    from backtest.margin.brackets import compute_affordable, compute_setting, compute_step_floor
    from backtest.margin.brackets import MarginRules, compute_price, read_rules
    from backtest.margin.requirement_rule import RequirementRule, ScenarioMargin, pack_option_rules
    from backtest.margin.requirement_rule import margin_preset, number_groups, pack_brackets
    from backtest.margin.requirement_rule import MarginPreset, OptionShocks, OwnMargin, PresetMargin
    from backtest.margin.requirement_rule import Requirement, check_moves, list_presets, number_each
    from backtest.margin.requirement_rule import Brackets, MarginRule, Standard, Strategy, pack_spot
    from backtest.venue.contract_value import compute_payment, compute_value

export_lazily(__name__)

__all__ = [
    "bankruptcy_price", "collateral_value", "initial", "largest_notional", "liquidation_price",
    "maintenance", "option_value", "requirement", "strategy_deposit", "survivable_notional",
]  # fmt: skip
