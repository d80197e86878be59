"""Compile functions with numba, and write them as objects that load without it.

numba optimizes each function, and again in every other that calls it, which is two thirds of the
seconds of a kernel of some hundred functions. Here a function that only compiled code calls is kept
as it was lowered; the one that becomes an object links all that it reaches, and is optimized once.
With ``BACKTEST_FAST_LINK=no``, and with a numba that lacks these parts, numba does it its own way.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import numba
from llvmlite import binding, ir
from llvmlite.binding import Linkage, newpassmanagers, parse_assembly
from numba.core import config, types
from numba.core.codegen import JITCodeLibrary, get_host_cpu_features
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.types import unliteral
from numba.extending import typeof_impl

from backtest._compile import cache_folders, object_code
from backtest._compile.object_code import COMPILING, ObjectFile
from backtest.core.structs import Column, Struct, Structs

OPTIONS: dict[str, Any] = {
    "error_model": "numpy", "_nrt": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True,
}  # fmt: skip
"""Options of all functions: only compiled code calls them, and they allocate nothing."""


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Compile what is inside as the only thread, and count the seconds in ``COMPILING``.

    Python's search for garbage is off: numba keeps what it makes, and to search costs an eighth of
    the time. Blocks may nest: the outermost counts the seconds of all.
    """
    was_on = gc.isenabled()
    with global_compiler_lock:
        began = time.perf_counter()
        COMPILING.depth += 1
        gc.disable()

        try:
            yield
        finally:
            COMPILING.depth -= 1
            if COMPILING.depth == 0:
                COMPILING.seconds += time.perf_counter() - began
            if was_on:
                gc.enable()


def jit(function: Callable[..., Any], *, is_linked: bool = True, **options: Any) -> Any:
    """Return numba's compiled form of a function; ``options`` are numba's, beside OPTIONS.

    With ``is_linked`` other compiled functions call it, and contain its code; else it becomes an
    object file of its own. numba compiles a version of it for each set of types of its arguments,
    at the first call with these.

    Two methods of numba's result are replaced. The one that finds a version no longer makes one for
    each constant among the arguments. The one that compiles lets only one thread do so at a time.
    """
    compiled: Any = numba.njit(**{**OPTIONS, **options})(function)
    find_version = compiled.get_call_template
    compile_version = compiled.compile
    drop_constant: Callable[[Any], Any] = unliteral

    def find_without_constants(args: Any, kws: Any) -> Any:
        kinds = [drop_constant(kind) for kind in args]
        named_kinds = {name: drop_constant(kind) for name, kind in kws.items()}
        return find_version(kinds, named_kinds)

    def compile_alone(kinds: Any) -> Any:
        # What is not linked becomes an object, under its own name.
        object_name = None if is_linked else function.__qualname__
        with compiling(), linking(object_name):
            return compile_version(kinds)

    compiled.get_call_template = find_without_constants
    compiled.compile = compile_alone
    return compiled


def read_kinds(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(map(read_kind, arguments))


def read_kind(value: Any) -> Any:
    """Return numba's type of an argument, of arrays as if they could be written into.

    Whether they can be is a matter of Python alone: one object serves both kinds.
    """
    if isinstance(value, tuple):
        of_tuple: Any = types.BaseTuple
        return of_tuple.from_types([*map(read_kind, value)], type(value))
    kind: Any = numba.typeof(value)  # type: ignore[no-untyped-call]
    if isinstance(kind, types.Array):
        return kind.copy(readonly=False)
    return kind


@functools.cache
def find_layout(kind: type[Struct]) -> Any:
    """Return numba's type of a kind of structs; its name stands in that of each function."""
    fields: list[tuple[str, Any]] = []
    size = 0
    for name, kind_of_field in kind.fields():
        inner = types.float64
        if issubclass(kind_of_field, Struct):
            inner = find_layout(kind_of_field)
        fields.append((name, {"type": inner, "offset": size}))
        size += ctypes.sizeof(kind_of_field)

    layout = types.Record(fields, size, aligned=True)
    layout.name = f"Struct({kind.__name__})"
    return layout


ARRAY: Any = types.Array
typeof_impl.register(Struct, lambda record, _: find_layout(record.__class__))
typeof_impl.register(Structs, lambda records, _: ARRAY(find_layout(records.kind), 1, "C"))
typeof_impl.register(Column, lambda *_: ARRAY(types.float64, 1, "A"))


LETTERS = {types.float64: "d", types.int64: "q", types.boolean: "b"}


def compile_entry(function: Callable[..., Any], name: str, kinds: tuple[Any, ...]) -> ObjectFile:
    """Return the object file of a function that Python calls.

    Python passes one table of 64-bit words with all arguments, and the place for the results.
    ``name`` is the name of the object, ``kinds`` are numba's types of the arguments. The function
    returns None, a number, or a tuple of numbers.
    """
    made = compile_whole(function, kinds)
    returned: Any = made.signature.return_type
    if not isinstance(returned, types.BaseTuple):
        returned = (returned,)
    letters = [LETTERS[part] for part in returned if part is not types.none]
    return emit(made, name, "".join(letters), write_table_call)


def compile_formula(function: Callable[..., Any], name: str, kinds: tuple[Any, ...]) -> ObjectFile:
    """Return the object file of a user's formula, which is called as a C function.

    ``kinds`` are numba's types of its arguments. C has no exceptions: where the formula raises, it
    returns "no", which is -1 for a float (a leverage) and 0 for an integer.
    """
    made = compile_whole(function, kinds)
    return emit(made, name, LETTERS[made.signature.return_type], write_plain_call)


def compile_whole(function: Any, kinds: tuple[Any, ...]) -> Any:
    """Return numba's compiled version of a function for arguments of some types (``kinds``).

    ``function`` is a Python function, or one that numba's ``jit`` has wrapped already.
    """
    dispatcher = function
    if not hasattr(function, "overloads"):
        dispatcher = jit(function, is_linked=False)
    dispatcher.compile(kinds)
    return dispatcher.overloads[kinds]


# From a compiled function to an object.


def emit(made: Any, name: str, returns: str, write: Callable[[Any, str, str], str]) -> ObjectFile:
    """Return the machine code of a compiled function as an object file with one public symbol.

    ``made`` is numba's compiled version of the function, ``name`` the name of the object, and
    ``returns`` the kinds of its results, a letter each. Callers do not know numba's way to call
    the function. So a second function, the call, is added: it takes the arguments as callers have
    them, and passes them on. ``write`` writes it as LLVM assembly. It has the public symbol.

    All other functions become internal to the object, so that LLVM may inline and drop them. The
    function itself stays public until the call is linked to it by its name.
    """
    # 1. A module of LLVM: the function, which alone is public, and all that it calls.
    library = made.library
    if isinstance(library, WholeLibrary):
        module = library._final_module.clone()
    else:
        module = parse_assembly(library.get_llvm_str())
    entry = module.get_function(made.fndesc.llvm_func_name)
    make_internal(module, public={entry.name})

    # 2. The call is linked in. Then it alone is public.
    symbol = object_code.name_symbol(name)
    call = parse_assembly(write(entry, symbol, returns))
    call.triple = module.triple
    call.data_layout = module.data_layout
    module.link_in(call)
    module.get_function(entry.name).linkage = "internal"

    # 3. A call that is marked so is inlined, and what no call reaches is dropped. The rest must not
    # need the interpreter's lock, as print does: it would wait for it for ever.
    machine = describe_machine()
    inline_and_drop(module, machine)
    needs = list_needs(module)
    if "numba_gil_ensure" in needs:
        raise TypeError("print is not supported in compiled code")

    # 4. Machine code for the processor that numba compiles for. Where that has instructions which
    # this processor lacks (a higher level), a second object is made that can be loaded here.
    here = b""
    if cache_folders.is_for_higher_level():
        here = bytes(describe_machine(is_here=True).emit_object(module))
    code = bytes(machine.emit_object(module))
    return ObjectFile(symbol, returns, tuple(needs), code, here)


def inline_and_drop(module: Any, machine: Any) -> None:
    """Inline the calls that are marked so in a module of LLVM, and remove what nothing calls.

    Numba has optimized the module before; only what was inlined is simplified here, so that its
    results stay in registers.
    """
    passes = newpassmanagers.create_new_module_pass_manager()
    passes.add_always_inliner_pass()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    passes.add_global_dead_code_eliminate_pass()
    tuning = newpassmanagers.create_pipeline_tuning_options(0)
    passes.run(module, newpassmanagers.create_pass_builder(machine, tuning))


def list_needs(module: Any) -> list[str]:
    """Return the symbols that a module declares and does not define, but LLVM's own, sorted."""
    values = [*module.functions, *module.global_variables]
    declared = [value.name for value in values if value.is_declaration]
    return sorted(name for name in declared if not name.startswith("llvm."))


def describe_machine(*, is_here: bool = False) -> Any:
    """Return LLVM's description of a processor, with which machine code is written.

    That is the processor that numba compiles for, which the environment may name (NUMBA_CPU_NAME);
    with ``is_here`` the one that this process runs on. The code may be loaded at any address
    ("pic"), and reaches its own constants by offsets of 32 bits ("small").
    """
    settings: Any = config
    name = binding.get_host_cpu_name()
    features = None
    if not is_here:
        name = settings.CPU_NAME or name
        features = settings.CPU_FEATURES
    if features is None:
        features = get_host_cpu_features()  # type: ignore[no-untyped-call]

    target = binding.Target.from_default_triple()
    return target.create_target_machine(
        cpu=name, features=features, opt=3, reloc="pic", codemodel="small"
    )


def write_table_call(entry: Any, symbol: str, _returns: str) -> str:
    """Return the LLVM assembly of a function that calls one of numba with arguments from a table.

    The function that is written, ``symbol``, takes three addresses: of a table with a word of 64
    bits for each argument, and of the places for result and fault. The function of numba,
    ``entry``, takes the last two, and then each argument in its own type. Its status is returned: 0
    if all went well.
    """
    result, fault, *kinds = list_argument_kinds(entry)
    types = ", ".join([result, fault, *kinds])
    loads = []
    arguments = [f"{result} %result", f"{fault} %fault"]
    for k, kind in enumerate(kinds):
        loads += [
            f"  %address{k} = getelementptr i64, ptr %words, i64 {k}",
            f"  %word{k} = load i64, ptr %address{k}",
            f"  %argument{k} = {write_conversion(kind, f'%word{k}')}",
        ]
        arguments.append(f"{kind} %argument{k}")

    lines = [
        f'declare i32 @"{entry.name}"({types})',
        f"define i32 @{symbol}(ptr %words, ptr %result, ptr %fault) {{",
        *loads,
        f'  %status = call i32 @"{entry.name}"({", ".join(arguments)})',
        "  ret i32 %status",
        "}",
    ]
    return "\n".join(lines)


def list_argument_kinds(entry: Any) -> list[str]:
    """Return LLVM's types of numba's arguments: addresses of result and fault, then the others."""
    return [str(argument.type) for argument in entry.arguments]


def write_conversion(kind: str, word: str) -> str:
    """Return LLVM's text of how a word of 64 bits becomes an argument; an i64 is itself."""
    if kind == "i64":
        return f"add i64 {word}, 0"
    how = {"ptr": "inttoptr", "double": "bitcast"}.get(kind, "trunc")
    return f"{how} i64 {word} to {kind}"


def write_plain_call(entry: Any, symbol: str, returns: str) -> str:
    """Return the LLVM assembly of a C function that passes its arguments on to one of numba.

    The function of numba, ``entry``, returns a status, 0 if all went well, and writes its result to
    the address in its first argument. The C function, ``symbol``, returns the result itself, of the
    kind ``returns``: "d" for a float, else a whole number. If the status is not 0, it returns a
    refusal: -1 for a float, which is no valid leverage, and 0 for a whole number, which is 1 where
    all leverages are sound.

    The call is marked to be inlined: the loop calls a formula at each bar, and to hand eleven
    arguments on through the stack takes longer than most formulas.
    """
    result, fault, *kinds = list_argument_kinds(entry)
    types = ", ".join([result, fault, *kinds])
    arguments = ", ".join(f"{kind} %argument{k}" for k, kind in enumerate(kinds))
    returned = "i64"
    refusal = "0"
    if returns == "d":
        returned = "double"
        refusal = "-1.0"

    lines = [
        f'declare i32 @"{entry.name}"({types})',
        f"define {returned} @{symbol}({arguments}) {{",
        f"  %result = alloca {returned}",
        "  %fault = alloca ptr",
        f'  %status = call i32 @"{entry.name}"(ptr %result, ptr %fault, {arguments}) alwaysinline',
        f"  %value = load {returned}, ptr %result",
        "  %is_sound = icmp eq i32 %status, 0",
        f"  %returned = select i1 %is_sound, {returned} %value, {returned} {refusal}",
        f"  ret {returned} %returned",
        "}",
    ]
    return "\n".join(lines)


# Linking: what calls others contains their code.

CODEGEN: Any = cpu_target.target_context.codegen()
SET_ENVIRONMENT = getattr(CODEGEN, "set_env", None)
PARTS = (
    "finalize", "_finalize_final_module", "_finalize_dynamic_globals", "_optimize_functions",
    "_verify_declare_only_symbols", "_get_module_for_linking",
)  # fmt: skip
MANGLED = "_ZN"
CAN_LINK = (
    os.environ.get("BACKTEST_FAST_LINK", "") != "no"
    and SET_ENVIRONMENT is not None
    and hasattr(CODEGEN, "_library_class")
    and all(hasattr(JITCodeLibrary, name) for name in PARTS)
)


class OwnLibrary(JITCodeLibrary):
    """Code whose functions take records by reference."""

    def add_ir_module(self, ir_module: Any) -> None:
        mark_records(ir_module)
        super().add_ir_module(ir_module)  # type: ignore[no-untyped-call] # numba's


def mark_records(module: ir.Module) -> None:
    """Mark all arguments that are pointers to records as "noalias": no store changes a record.

    A record has the addresses of arrays, and never changes. Without the mark LLVM must assume that
    a store into one of the arrays changes the record, and reads all addresses anew after each
    store. Then it cannot compute several accounts with one vector instruction.
    """
    for function in module.functions:
        for argument in function.args:
            kind = getattr(argument.type, "pointee", None)
            if isinstance(kind, ir.LiteralStructType):
                argument.add_attribute("noalias")


class LinkedLibrary(OwnLibrary):
    """The code of one compiled function that is linked into what calls it.

    A *library* is numba's word for a module of LLVM with a compiled function, and the list of
    libraries that it calls. numba calls the methods below in the order in which they stand here.
    Those of its own class would optimize each library with all that it calls, and load it, so that
    it has an address. Here it is only simplified, and stays a text of LLVM that others take in:
    the library of the object (:class:`WholeLibrary`) is optimized once, with all that it holds.
    """

    def _optimize_functions(self, ll_module: Any) -> None:
        """Simplify the functions that a module defines, one by one, before it is added.

        numba's own method also looks at declarations, four in five of all functions: 2 ms each.
        """
        ll_module.data_layout = self._codegen._data_layout
        for function in ll_module.functions:
            if not function.is_declaration:
                passes, builder = self._codegen._function_pass_manager()  # type: ignore[no-untyped-call]
                passes.run(function, builder)

    def finalize(self) -> None:
        """Note that no code is added to this library any more; numba calls it when that is so.

        numba's own method would link in all that is called, and optimize the result. Here that is
        left to the library of the whole object (:class:`WholeLibrary`), which does it once.
        """
        self._finalize_final_module()

    def _finalize_final_module(self) -> None:
        """Do the last steps of numba's own method, but do not load the code.

        They give global constants their names, and mark the library as finished.
        """
        self._finalize_dynamic_globals()  # type: ignore[no-untyped-call] # numba's
        self._finalized = True

    def _get_module_for_linking(self) -> Any:
        """Return a copy of the code with all that it calls, which numba links into other code.

        Only libraries of numba's own class ask for it; ours link without it (:func:`link_all`). It
        is made once, and kept.
        """
        if self._shared_module is None:
            self._shared_module = self._final_module.clone()
            link_all(self._shared_module, self._linking_libraries)
            share(self._shared_module)
        return self._shared_module


class WholeLibrary(OwnLibrary):
    """The code of a function that becomes an object, with all that it calls, optimized as one.

    numba loads none of it: :func:`emit` writes it. The methods stand in for those of numba's
    library, and numba calls them.
    """

    def finalize(self) -> None:
        """Link all that the function calls into one module, and let numba optimize that as a whole.

        numba calls it once all code of the library is written. The ``finalize`` of its own class,
        called last, optimizes what the module then has. It would also link the libraries that are
        listed, a second time: so the list is emptied before.
        """
        module = self._final_module
        own_names = {function.name for function in module.functions if not function.is_declaration}

        libraries = self._linking_libraries
        self._linking_libraries = []  # numba has nothing left to link
        for library in link_all(module, libraries):
            # What numba must set up anew where the code is read from a cache.
            self._reload_init.update(library._reload_init)

        # Nothing outside calls what was linked. So LLVM may inline a function that is called once,
        # whatever its size, and change how others take their arguments.
        make_internal(module, public=own_names)
        super().finalize()  # type: ignore[no-untyped-call] # numba's

    def _finalize_final_module(self) -> None:
        """Check that no compiled function is missing in the module; do not load it, as numba would.

        ``finalize`` of numba's class calls it last. A function that is declared but not defined is
        missing in the object. C functions may be; functions that numba compiled, whose names begin
        with MANGLED, may not.
        """
        self._finalize_dynamic_globals()  # type: ignore[no-untyped-call] # numba's
        for function in self._final_module.functions:
            if function.is_declaration and function.name.startswith(MANGLED):
                raise AssertionError(f"{self.name} calls {function.name}, which is not linked")
        self._finalized = True


def link_all(module: Any, libraries: list[Any]) -> list[Any]:
    """Link libraries, and all libraries that they call, into a module; return each of them once.

    A library is a compiled function with the list of libraries that it calls. The module of a
    LinkedLibrary has its own code alone, so the libraries that it calls are linked too. A library
    of numba's own class contains what it calls.
    """
    # All libraries that are called, in the order in which a search from the first one meets them.
    # ``waiting`` is a stack, so lists go onto it reversed.
    found: dict[int, Any] = {}
    waiting = libraries[::-1]
    while waiting:
        library = waiting.pop()
        if id(library) not in found:
            found[id(library)] = library
            waiting += list_needed(library)[::-1]

    # LLVM takes of shared code only what the module calls already. So libraries that call others
    # are linked first, and those that call none last; sorting keeps the order among each.
    for library in sorted(found.values(), key=lambda library: not list_needed(library)):
        if isinstance(library, LinkedLibrary):
            code = library._final_module
        else:
            code = library._get_module_for_linking()
        module.link_in(code, preserve=True)  # ``code`` itself stays as it is
    return [*found.values()]


def list_needed(library: Any) -> list[Any]:
    """Return the libraries that one calls; those of numba's own bring what they call."""
    if not isinstance(library, LinkedLibrary):
        return []
    needed: list[Any] = library._linking_libraries
    return needed


def share(module: Any) -> None:
    """Mark the public functions of a module as copies: the linker keeps one of each.

    Several libraries may define the same function. Without the mark ("linkonce_odr") the linker
    would refuse the second one. A marked function is also dropped once all its calls are inlined.
    """
    for function in module.functions:
        if not function.is_declaration and function.linkage == Linkage.external:
            function.linkage = "linkonce_odr"


def make_internal(module: Any, public: set[str]) -> None:
    """Hide the functions that a module defines from all other code, but for those in ``public``."""
    for function in module.functions:
        if not function.is_declaration and function.name not in public:
            function.linkage = "internal"


@contextlib.contextmanager
def linking(whole: str | None) -> Iterator[None]:
    """Let numba compile with our library classes inside a ``with`` block, and undo that after it.

    numba makes a library for each function that it compiles. The one named ``whole`` becomes an
    object file (:class:`WholeLibrary`); the code of all others is linked into their callers
    (:class:`LinkedLibrary`). With None none becomes an object. A version of numba without the parts
    that our classes replace keeps its own class, with which compiling takes longer.
    """
    if not CAN_LINK:
        yield
        return

    def make_library(codegen: Any, name: str) -> Any:
        kind: Any = LinkedLibrary
        if name == whole:
            kind = WholeLibrary
        return kind(codegen, name)

    library_before = CODEGEN._library_class
    environment_before = CODEGEN.set_env
    CODEGEN._library_class = make_library
    CODEGEN.set_env = lambda *_: None  # no Python objects for code that numba does not run
    try:
        yield
    finally:
        CODEGEN._library_class = library_before
        CODEGEN.set_env = environment_before
