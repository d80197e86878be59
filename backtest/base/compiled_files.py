"""The on-disk cache of compiled functions, with a checksum in every file."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
from llvmlite.binding import Linkage
from numba.core import event
from numba.core.caching import FunctionCache
from numba.core.ccallback import CFunc
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.serialize import dumps
from numba.core.sigutils import normalize_signature
from numba.core.types import unliteral

from backtest.base.atomic_files import write_file
from backtest.base.cache_folder import read_bytes, warn_of_damage
from backtest.base.compile_choice import COMPILING, count_as_compiling
from backtest.base.rule_passes import RuleCompiler

BLAS = "scipy.linalg.cython_blas"
ASKS = "numba.np.arraymath"


def import_without_blas() -> None:
    if BLAS in sys.modules or ASKS in sys.modules:
        return
    empty = sys.modules[BLAS] = ModuleType(BLAS)
    try:
        importlib.import_module(ASKS)
    finally:
        if sys.modules.get(BLAS) is empty:
            del sys.modules[BLAS]


import_without_blas()
MAGIC = b"backtest compiled code 1\n"
DIGEST_SIZE = hashlib.sha256().digest_size


class CheckedFiles:
    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name

    def path_of(self, key: Any) -> Path:
        text = f"{numba.__version__} {key}"
        return self.folder / f"{self.name}.{hashlib.sha256(text.encode()).hexdigest()[:20]}.nbc"

    def load(self, key: Any) -> Any:
        path = self.path_of(key)
        content = read_bytes(path)
        if content is None:
            return None
        try:
            found, data = pickle.loads(unseal(content))
        except (ImportError, AttributeError):  # of a release whose modules had other names
            return None
        except Exception:  # damaged bytes may raise any error
            warn_of_damage(path)
            return None
        return data if found == key else None

    def save(self, key: Any, data: Any) -> None:
        with contextlib.suppress(OSError):
            write_file(self.path_of(key), seal(dumps((key, data))))  # type: ignore[no-untyped-call] # numba's

    def flush(self) -> None:
        for path in self.folder.glob(f"{self.name}.*.nbc"):
            path.unlink(missing_ok=True)


def seal(content: bytes) -> bytes:
    return MAGIC + hashlib.sha256(content).digest() + content


def unseal(sealed: bytes) -> bytes:
    content = sealed[len(MAGIC) + DIGEST_SIZE :]
    if sealed != seal(content):
        raise ValueError("damaged")
    return content


class CheckedCache(FunctionCache):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call] # numba's
        files: Any = CheckedFiles(Path(self._cache_path), self._impl.filename_base)
        self._cache_file = files

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError):
            super().save_overload(sig, data)  # type: ignore[no-untyped-call] # numba's


def widen(kind: Any) -> Any:
    return unliteral(kind)  # type: ignore[no-untyped-call] # numba's


def jit(function: Callable[..., Any], *, cache: bool, **options: Any) -> Any:
    compiled = numba.njit(pipeline_class=RuleCompiler, **options)(function)
    find = compiled.get_call_template
    compiled.get_call_template = lambda args, kws: find(
        [widen(each) for each in args], {name: widen(each) for name, each in kws.items()}
    )
    compile_for = compiled.compile
    is_linked = bool(options.get("no_cpython_wrapper"))

    def compile_one(kinds: Any) -> Any:
        with compiling(is_linked=is_linked):
            return compile_for(kinds)

    compiled.compile = compile_one
    if cache:
        compiled._cache = CheckedCache(function)
    return compiled


def cfunc(signature: Any, function: Callable[..., Any], *, cache: bool, **options: Any) -> Any:
    types = normalize_signature(signature)  # type: ignore[no-untyped-call] # numba's
    passes: Any = RuleCompiler
    compiled: Any = CFunc(function, types, locals={}, options=options, pipeline_class=passes)
    if cache:
        compiled._cache = CheckedCache(function)
    with count_as_compiling():
        compiled.compile()
    return compiled


class CountingListener(event.Listener):
    def on_start(self, event: Any) -> None:  # noqa: ARG002 - numba's signature
        COMPILING.begin()

    def on_end(self, event: Any) -> None:  # noqa: ARG002
        COMPILING.end()


event.register("numba:compile", CountingListener())  # type: ignore[no-untyped-call] # numba's


CODEGEN: Any = cpu_target.target_context.codegen()
SET_ENVIRONMENT = getattr(CODEGEN, "set_env", None)
PARTS = (
    "finalize", "_finalize_final_module", "_finalize_dynamic_globals",
    "_verify_declare_only_symbols", "_get_module_for_linking", "serialize_using_object_code",
)  # fmt: skip
MANGLED = "_ZN"
CAN_LINK = (
    SET_ENVIRONMENT is not None
    and hasattr(CODEGEN, "_library_class")
    and all(hasattr(JITCodeLibrary, name) for name in PARTS)
)


class WholeLibrary(JITCodeLibrary):
    def finalize(self) -> None:
        functions = self._final_module.functions
        own = {each.name for each in functions if not each.is_declaration}
        libraries, self._linking_libraries = self._linking_libraries, []
        for library in link_all(self._final_module, libraries):
            self._reload_init.update(library._reload_init)
        share(self._final_module, own)
        super().finalize()  # type: ignore[no-untyped-call] # numba's

    def _verify_declare_only_symbols(self) -> None:
        functions = self._final_module.functions
        missing = [x.name for x in functions if x.is_declaration and x.name.startswith(MANGLED)]
        if missing:
            raise AssertionError(f"{self.name} calls {missing[0]}, which is not linked")


class LinkedLibrary(JITCodeLibrary):
    def finalize(self) -> None:
        self._finalize_final_module()

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()  # type: ignore[no-untyped-call] # numba's
        self._finalized = True

    def _get_module_for_linking(self) -> Any:
        if self._shared_module is None:
            self._shared_module = self._final_module.clone()
            link_all(self._shared_module, self._linking_libraries)
            share(self._shared_module, set())
        return self._shared_module

    def serialize_using_object_code(self) -> Any:
        return self.name, "bitcode", self._get_module_for_linking().as_bitcode()


def link_all(module: Any, libraries: list[Any]) -> list[Any]:
    linked: dict[int, Any] = {}
    waiting = libraries[::-1]
    while waiting:
        library = waiting.pop()
        if id(library) not in linked:
            linked[id(library)] = library
            waiting += list_needed(library)[::-1]
    for library in sorted(linked.values(), key=lambda each: not list_needed(each)):
        is_own = isinstance(library, LinkedLibrary)
        code = library._final_module if is_own else library._get_module_for_linking()
        module.link_in(code, preserve=True)
    return [*linked.values()]


def list_needed(library: Any) -> list[Any]:
    return library._linking_libraries if isinstance(library, LinkedLibrary) else []


def share(module: Any, kept: set[str]) -> None:
    for function in module.functions:
        is_defined = not function.is_declaration and function.linkage == Linkage.external
        if is_defined and function.name not in kept:
            function.linkage = "linkonce_odr"


@contextmanager
def compiling(*, is_linked: bool) -> Iterator[None]:
    if not CAN_LINK:
        yield
        return
    with global_compiler_lock:
        before = CODEGEN._library_class, CODEGEN.set_env
        CODEGEN._library_class = LinkedLibrary if is_linked else WholeLibrary
        CODEGEN.set_env = ignore_environment if is_linked else SET_ENVIRONMENT
        try:
            yield
        finally:
            CODEGEN._library_class, CODEGEN.set_env = before


def ignore_environment(*_: Any) -> None:
    """Set no Python objects for code that never runs."""
