"""How a rule becomes machine code.

The rules of the account are plain functions: plain Python runs them as they are, and they are
compiled once for all accounts. This package knows numba, LLVM and bytecode, and no rule; what is
compiled stands in ``engine`` and ``sweep.lanes``, and the functions themselves say how
(:mod:`backtest.core.kernels`). ARCHITECTURE.md, "Compiled code", follows a rule to its object.

Each technique beyond numba's documented ones has a switch: ``BACKTEST_FAST_LINK=no`` leaves
linking and optimizing to numba, and ``compile=False`` leaves all of it out.

====================  ==============================================================================
word                  what it is
====================  ==============================================================================
rule                  a plain function of the account, which also compiles
twin                  a copy of a rule whose globals are compiled rules
mirror                a module as twins see it: with compiled functions and plain numbers
kernel                a function of a module without rules that Python calls compiled
formula               what a policy decides by, of a user or of the package
object                the machine code of one function that Python or the loop calls, in a file
symbol                the name of that function in the object: a hash of the object's name
entry                 a rule or kernel as Python calls it: an object for each kinds of arguments
kinds                 what compiled code distinguishes of arguments: numbers, arrays, structs
words                 arguments as a table of 64 bits each
====================  ==============================================================================
"""

from typing import TYPE_CHECKING

from backtest.core.code_names import find_lazily

if TYPE_CHECKING:
    from backtest._compile.arguments import Caller, Entry
    from backtest._compile.cache_folders import describe_processor, find_lasting_folder
    from backtest._compile.compiler import jit
    from backtest._compile.interruptions import COMPILER_LOCK
    from backtest._compile.kernels import bind_functions, compile_functions, compile_module
    from backtest._compile.kernels import compile_rules, compile_twin, list_sources, read_checks
    from backtest._compile.kernels import read_compiler, return_always
    from backtest._compile.lowering import (
        choose_number,
        compile_text,
        find_lowest,
        import_source,
        locate_function,
    )
    from backtest._compile.lowering import make_call, make_loop_call, read_number, register_overload
    from backtest._compile.lowering import read_record, register_power, share_record, view_memory
    from backtest._compile.object_code import ObjectFile, find_object, load_or_compile
else:
    __getattr__ = find_lazily(__name__, {
        "_compile.arguments": "Caller Entry",
        "_compile.cache_folders": "describe_processor find_lasting_folder",
        "_compile.compiler": "jit",
        "_compile.interruptions": "COMPILER_LOCK",
        "_compile.kernels": (
            "bind_functions compile_functions compile_module compile_rules compile_twin "
            "list_sources read_checks read_compiler return_always"
        ),
        "_compile.lowering": (
            "choose_number compile_text find_lowest import_source locate_function make_call "
            "make_loop_call read_number read_record register_overload register_power share_record "
            "view_memory"
        ),
        "_compile.object_code": "ObjectFile find_object load_or_compile",
    })  # fmt: skip
