"""Policies: the base class, its parameters and memory, formulas, and combinators."""

from typing import TYPE_CHECKING

from backtest.base import open_door

if TYPE_CHECKING:
    from backtest.policy.combinators import Combinator, held_leverage, list_written
    from backtest.policy.combinators import OptionRule, name_tuple, written_formulas
    from backtest.policy.formulas import find_fields, may_read_of_account
    from backtest.policy.policy import Bar, Columns, Parameter, Parameterized, Policy, Promise
    from backtest.policy.policy import change_settings, check_columns, check_settings
    from backtest.policy.policy import (
        find_rule_fault,
        format_title,
        formula_for,
        formula_of,
        freeze,
    )
    from backtest.policy.policy import margin_formula_for, return_parameter
    from backtest.policy.policy import sets_margin, start_memory, trades_options
    from backtest.policy.view import AccountView

open_door(__name__)
