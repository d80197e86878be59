"""Policies: the base class, its parameters and memory, formulas, and combinators."""

from typing import TYPE_CHECKING

from backtest.core.code_names import find_lazily

if TYPE_CHECKING:
    from backtest.policies.combinators import Combinator, OptionRule, held_leverage, list_written
    from backtest.policies.combinators import written_formulas
    from backtest._compile.bytecode import find_fields, may_read_of_account
    from backtest.policies.lookahead import Causality, check_once, observe, observe_together
    from backtest.policies.lookahead import parts_take_arrays, takes_arrays
    from backtest.policies.policy import Bar, Columns, Parameter, Parameterized, Policy, Promise
    from backtest.policies.policy import change_settings, check_settings, find_rule_fault
    from backtest.policies.policy import format_title, formula_for, formula_of, freeze
    from backtest.policies.policy import margin_formula_for, number_elements, return_parameter
    from backtest.policies.policy import sets_margin, split_name, start_memory, trades_options
    from backtest.policies.view import AccountView
else:
    __getattr__ = find_lazily(__name__, {
        "_compile.bytecode": "find_fields may_read_of_account",
        "policies.combinators": "Combinator OptionRule held_leverage list_written written_formulas",
        "policies.lookahead": (
            "Causality check_once observe observe_together parts_take_arrays takes_arrays"
        ),
        "policies.policy": (
            "Bar Columns Parameter Parameterized Policy Promise change_settings check_settings "
            "find_rule_fault format_title formula_for formula_of freeze margin_formula_for "
            "number_elements return_parameter sets_margin split_name start_memory trades_options"
        ),
        "policies.view": "AccountView",
    })  # fmt: skip
