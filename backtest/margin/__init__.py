"""Mathematics of margin: requirements, cross margin, liquidation prices, calculators."""

from typing import TYPE_CHECKING

from backtest.core.code_names import find_lazily

if TYPE_CHECKING:
    from backtest.margin.calculators import BookCalculation, Calculation, calculate_book
    from backtest.margin.calculators import calculate_liquidation, find_touch_factor
    from backtest.margin.calculators import touch_probability
    from backtest.margin.collateral import Collateral, RateCurve, check_collateral
    from backtest.margin.functions import bankruptcy_price, collateral_value, initial
    from backtest.margin.functions import largest_notional, liquidation_price, maintenance
    from backtest.margin.functions import option_value, requirement, strategy_deposit
    from backtest.margin.functions import survivable_notional
    from backtest.margin.presets import MarginPreset, list_presets, margin_preset
    from backtest.margin.option_kernels import bound_asset_slope, bound_linear_slope
    from backtest.margin.option_kernels import bound_option_slope, compute_option_requirement
    from backtest.margin.option_kernels import fill_option
    from backtest.margin.option_packing import check_moves, number_groups, pack_option_rules
    from backtest.margin.option_values import OptionPool, OptionPositions, OptionRules
    from backtest.margin.option_values import compute_counted_rate, compute_counted_value
    from backtest.margin.option_values import compute_option_delta, compute_option_value
    from backtest.margin.option_values import compute_options_value, is_vega_small
    from backtest.margin.portfolio_kernels import Holdings, MarginBracket, PortfolioRules, Segment
    from backtest.margin.portfolio_kernels import Waypoint, aim, find_bracket
    from backtest.margin.portfolio_kernels import compute_collateral_value, compute_full_backing
    from backtest.margin.portfolio_kernels import compute_full_value, compute_haircut
    from backtest.margin.portfolio_kernels import compute_haircuts, compute_portfolio_backing
    from backtest.margin.portfolio_kernels import compute_portfolio_requirement
    from backtest.margin.portfolio_kernels import compute_value_at_rate, fill_shares, find_failure
    from backtest.margin.portfolio_kernels import find_failure_ratio, find_maintenance
    from backtest.margin.portfolio_kernels import find_bracket_amount, find_own_maintenance
    from backtest.margin.portfolio_kernels import is_in_pool, is_pool_failing, is_spot_leg
    from backtest.margin.portfolio_kernels import move_holdings, pick_rules, scale_rate
    from backtest.margin.brackets import LEVELS, MarginRules, compute_affordable
    from backtest.margin.brackets import compute_best_leverage, compute_initial
    from backtest.margin.brackets import compute_largest_notional, compute_liquidation_value
    from backtest.margin.brackets import compute_maintenance, compute_price, compute_setting
    from backtest.margin.brackets import compute_step_floor, read_rules
    from backtest.margin.requirement_rule import Brackets, MarginRule, OwnMargin, PresetMargin
    from backtest.margin.requirement_rule import Requirement, RequirementRule, ScenarioMargin
    from backtest.margin.requirement_rule import Standard, Strategy
    from backtest.margin.rule_tables import number_each, pack_brackets, pack_spot
    from backtest.margin.scenario_fields import OptionShocks
    from backtest.venue.contract_value import compute_payment, compute_value
else:
    __getattr__ = find_lazily(__name__, {
        "margin.brackets": (
            "LEVELS MarginRules compute_affordable compute_best_leverage compute_initial "
            "compute_largest_notional compute_liquidation_value compute_maintenance compute_price "
            "compute_setting compute_step_floor read_rules"
        ),
        "margin.calculators": (
            "BookCalculation Calculation calculate_book calculate_liquidation find_touch_factor "
            "touch_probability"
        ),
        "margin.collateral": "Collateral RateCurve check_collateral",
        "margin.functions": (
            "bankruptcy_price collateral_value initial largest_notional liquidation_price "
            "maintenance option_value requirement strategy_deposit survivable_notional"
        ),
        "margin.presets": "MarginPreset list_presets margin_preset",
        "margin.option_kernels": (
            "bound_asset_slope bound_linear_slope bound_option_slope compute_option_requirement "
            "fill_option"
        ),
        "margin.option_packing": "check_moves number_groups pack_option_rules",
        "margin.option_values": (
            "OptionPool OptionPositions OptionRules compute_counted_rate compute_counted_value "
            "compute_option_delta compute_option_value compute_options_value is_vega_small"
        ),
        "margin.portfolio_kernels": (
            "Holdings MarginBracket PortfolioRules Segment Waypoint aim compute_collateral_value "
            "compute_full_backing compute_full_value compute_haircut compute_haircuts "
            "compute_portfolio_backing compute_portfolio_requirement compute_value_at_rate "
            "fill_shares find_bracket find_failure find_failure_ratio find_maintenance "
            "find_bracket_amount find_own_maintenance is_in_pool is_pool_failing is_spot_leg "
            "move_holdings pick_rules scale_rate"
        ),
        "margin.requirement_rule": (
            "Brackets MarginRule OwnMargin PresetMargin Requirement RequirementRule ScenarioMargin "
            "Standard Strategy"
        ),
        "margin.rule_tables": "number_each pack_brackets pack_spot",
        "margin.scenario_fields": "OptionShocks",
        "venue.contract_value": "compute_payment compute_value",
    })  # fmt: skip

__all__ = [
    "bankruptcy_price", "collateral_value", "initial", "largest_notional", "liquidation_price",
    "maintenance", "option_value", "requirement", "strategy_deposit", "survivable_notional",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
