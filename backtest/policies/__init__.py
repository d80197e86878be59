"""Policies: the base class, its parameters and memory, formulas, and combinators.

==========  ===================================================================================
word        what it is
==========  ===================================================================================
parameter   a field of a policy with a range or a choice
setting     the value of a parameter, ``settings`` all of them by name
element     a number of a list or a table, ``levels.0``
column      numbers by bar that ``observe`` returns, one per bar of the market
formula     the method ``leverage``, or what stands in for it, as a function that compiles
memory      a named tuple of floats that a formula gets and returns
part        of a combinator: a policy inside it; of a check: bars that are observed alone
written     the class that a user wrote, without the policies that it combines
flat name   the name of an inner policy's parameter among those of the combinator
cut         the end of a part, at which a later bar could have been seen
beginning   a part that begins with the market
chain       parts that begin at one bar and grow
==========  ===================================================================================
"""

from typing import TYPE_CHECKING

from backtest.core.code_names import find_lazily

if TYPE_CHECKING:
    from backtest._compile.bytecode import find_fields, may_read_of_account
    from backtest.policies.combinators import Combinator, OptionRule, held_leverage, list_written
    from backtest.policies.combinators import written_formulas
    from backtest.policies.lookahead import Causality
    from backtest.policies.observing import check_once, observe, observe_together
    from backtest.policies.observing import parts_take_arrays, takes_arrays
    from backtest.policies.parameters import Parameter, Parameterized, change_settings
    from backtest.policies.parameters import check_settings, format_title, freeze
    from backtest.policies.parameters import holds_settings_alone, number_elements, split_name
    from backtest.policies.policy import Bar, Columns, Policy, Promise
    from backtest.policies.policy import find_rule_fault, formula_for, formula_of
    from backtest.policies.policy import margin_formula_for, return_parameter
    from backtest.policies.policy import sets_margin, start_memory, trades_options
    from backtest.policies.view import AccountView
else:
    __getattr__ = find_lazily(__name__, {
        "_compile.bytecode": "find_fields may_read_of_account",
        "policies.combinators": "Combinator OptionRule held_leverage list_written written_formulas",
        "policies.lookahead": "Causality",
        "policies.observing": (
            "check_once observe observe_together parts_take_arrays takes_arrays"
        ),
        "policies.parameters": (
            "Parameter Parameterized change_settings check_settings format_title freeze "
            "holds_settings_alone number_elements split_name"
        ),
        "policies.policy": (
            "Bar Columns Policy Promise find_rule_fault formula_for formula_of "
            "margin_formula_for return_parameter sets_margin start_memory trades_options"
        ),
        "policies.view": "AccountView",
    })  # fmt: skip
