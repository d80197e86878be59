"""Policies: the base class, its parameters and memory, formulas, and combinators."""

from typing import TYPE_CHECKING

from backtest.core import export_lazily

if TYPE_CHECKING:
    from backtest.policies.combinators import Combinator, OptionRule, held_leverage, list_written
    from backtest.policies.combinators import written_formulas
    from backtest._compile.bytecode import find_fields, may_read_of_account
    from backtest.policies.lookahead import Causality, observe, observe_together, start_check
    from backtest.policies.lookahead import takes_arrays
    from backtest.policies.policy import Bar, Columns, Parameter, Parameterized, Policy, Promise
    from backtest.policies.policy import change_settings, check_settings, find_rule_fault
    from backtest.policies.policy import format_title, formula_for, formula_of, freeze
    from backtest.policies.policy import margin_formula_for, number_elements, return_parameter
    from backtest.policies.policy import sets_margin, split_name, start_memory, trades_options
    from backtest.policies.view import AccountView

export_lazily(__name__)
