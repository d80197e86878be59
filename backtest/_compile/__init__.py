"""How a rule becomes machine code.

The rules of the account are plain functions: plain Python runs them as they are, and they are
compiled once for all accounts. This package knows numba, LLVM and bytecode, and no rule; what is
compiled stands in ``engine`` and ``sweep.lanes``, and the functions themselves say how
(:mod:`backtest.core.kernels`): ``@inlined``, ``@cold``, ``@of_options``, ``@kernel``.

1. :func:`compile_rules` copies each function of some modules. The globals of a copy are compiled
   copies too, so one rule calls another as it does in plain Python. What has another text when it
   is compiled (a function called by its address, a record passed by reference) is given.
2. numba types a copy for the kinds of its arguments and lowers it to LLVM's language. It is not
   optimized there: only what Python calls becomes an object, with all that it reaches
   (``compiler``).
3. An object is a file with one function, which takes a table of words and a place for its result.
   Its name has the kinds of its arguments and a hash of all sources it was made of, so one of other
   sources is never found (``object_code``). LLVM alone loads it, in milliseconds, without numba.
4. :class:`Entry` is such a function for Python: it packs arguments into words, finds the object in
   the package or the cache, and else compiles and keeps it.
5. The formula of a policy is the text of a function around the user's own (:func:`compile_text`),
   an object of its own, which the loop calls by its address. ``bytecode`` says what a formula
   refers to and reads, which names its object and shows the loop what to prepare.

Each technique beyond numba's documented ones has a switch: ``BACKTEST_FAST_LINK=no`` leaves
linking and optimizing to numba, and ``compile=False`` leaves all of it out.
"""

from typing import TYPE_CHECKING

from backtest.core import export_lazily

if TYPE_CHECKING:
    from backtest._compile.compiler import compile_entry, jit, read_kinds
    from backtest._compile.kernels import Mirror, bind_functions, compile_functions, compile_module
    from backtest._compile.kernels import compile_rules, compile_twin, find_own_functions
    from backtest._compile.kernels import list_sources, make_twin, mirror_modules, read_compiler
    from backtest._compile.kernels import return_always
    from backtest._compile.lowering import compile_text, find_lowest, import_source
    from backtest._compile.lowering import locate_function, make_call, make_loop_call, read_number
    from backtest._compile.lowering import register_overload, register_power, share_record
    from backtest._compile.lowering import view_memory
    from backtest._compile.object_code import COMPILER_LOCK, Caller, Entry, ObjectFile
    from backtest._compile.object_code import describe_processor, describe_target
    from backtest._compile.object_code import find_lasting_folder, hold_signals, load_or_compile

export_lazily(__name__)
