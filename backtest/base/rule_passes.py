"""Compiler passes for rules: what an account does not have is not compiled."""

from __future__ import annotations

import operator
from typing import Any

from numba.core import consts, ir, types
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import FunctionPass, register_pass
from numba.core.ir_utils import get_definition, guard
from numba.core.untyped_passes import RewriteSemanticConstants

COMPARED = {operator.is_: True, operator.is_not: False}


@register_pass(mutates_CFG=False, analysis_only=False)  # type: ignore[no-untyped-call] # numba's
class CompareTypes(FunctionPass):
    _name = "compare_types"

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def run_pass(self, state: Any) -> bool:
        is_changed = False
        for block in state.func_ir.blocks.values():
            for line in block.body:
                outcome = compare(line.value, state) if isinstance(line, ir.Assign) else None
                if outcome is not None:
                    replace_value(state.func_ir, line, outcome)
                    is_changed = True
        if is_changed:
            state.func_ir._consts = consts.ConstantInference(state.func_ir)  # type: ignore[no-untyped-call]
        return is_changed


def compare(value: Any, state: Any) -> bool | None:
    is_comparison = isinstance(value, ir.Expr) and value.op == "binop" and value.fn in COMPARED
    if not is_comparison or find_type(value.rhs, state) is not types.none:
        return None
    kind = find_type(value.lhs, state)
    if kind is None or isinstance(kind, (types.Optional, types.Omitted)):
        return None
    return bool(COMPARED[value.fn] == isinstance(kind, types.NoneType))


def find_type(value: Any, state: Any) -> Any:
    if isinstance(value, ir.Var):
        value = guard(get_definition, state.func_ir, value)  # type: ignore[no-untyped-call]
    if isinstance(value, ir.Arg):
        return state.args[value.index]
    if isinstance(value, (ir.Const, ir.Global, ir.FreeVar)) and value.value is None:
        return types.none
    if isinstance(value, ir.Expr) and value.op == "getattr":
        record = find_type(value.value, state)
        record = getattr(record, "inner", record)  # of a shared record
        has_fields = isinstance(record, types.BaseNamedTuple)
        if has_fields and value.attr in record.fields:
            return record.types[record.fields.index(value.attr)]
    return None


def replace_value(func_ir: Any, line: Any, outcome: bool) -> None:
    constant = ir.Const(outcome, loc=line.loc)  # type: ignore[no-untyped-call]
    before, line.value = line.value, constant
    known = func_ir._definitions[line.target.name]
    known[known.index(before)] = line.value


class RuleCompiler(CompilerBase):
    def define_pipelines(self) -> list[Any]:
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)  # type: ignore[no-untyped-call]
        passes.add_pass_after(CompareTypes, RewriteSemanticConstants)
        passes.finalize()
        return [passes]
