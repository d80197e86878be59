"""Compiled functions as object files, which load without numba and take a table of words.

A file holds one function for arguments of certain kinds: a line of JSON, then the object. Its name
names the function, the kinds, and the sources that it was compiled from, so a file of other sources
is never found. :data:`BUILT` is written with the package, the cache holds what was compiled later.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib
import json
import os
import signal
import struct
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from backtest._compile.trusted_files import UntrustedError, check_folder, read_own_file, warn_once
from backtest.core.atomic_files import write_file
from backtest.core.code_names import LateModule, find_version, hash_texts
from backtest.core.fields import Choice
from backtest.core.structs import Column, Struct, Structs

binding: Any = LateModule("llvmlite.binding")
MODE = "BACKTEST_COMPILE"


def read_mode() -> str:
    """Return when formulas compile, ``"auto"`` or ``"now"``; any other word is refused."""
    mode = os.environ.get(MODE, "").lower() or "auto"
    return str(Choice("auto", "now").check(f"the environment variable {MODE}", mode))


"""LLVM, which is imported where code runs."""

BUILT = Path(__file__).parents[1] / "_built"
"""Folders of objects by processor, written by ``backtest compile`` and with a wheel."""

LEVELS = {
    "x86-64-v4": ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
    "x86-64-v3": ("avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"),
}
"""Levels of x86-64 by the features that they add, the highest first."""

COMPILER_LOCK = threading.RLock()
"""Held while a function is compiled or loaded."""

HELD_FOR_FORK: list[Any] = []
"""Locks that the forking thread holds until both processes go on."""


def hold_compiler() -> None:
    """Wait before a fork until no thread compiles: the child has that thread no more."""
    numba_module = sys.modules.get("numba.core.compiler_lock")
    locks = [COMPILER_LOCK, getattr(numba_module, "global_compiler_lock", None)]
    for lock in filter(None, locks):
        lock.acquire()
        HELD_FOR_FORK.append(lock)


def release_compiler() -> None:
    while HELD_FOR_FORK:
        HELD_FOR_FORK.pop().release()


# The hooks of the libraries below hold their locks, which a compiling thread may need. What is
# registered last is called first, so they are loaded before.
for _library in ("logging", "concurrent.futures.thread", "random"):
    importlib.import_module(_library)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=hold_compiler, after_in_parent=release_compiler, after_in_child=release_compiler
    )


class ObjectFile(NamedTuple):
    """An object: the symbol to call, the kinds that it returns, and the symbols that it needs.

    ``here`` is the same code for this processor, if ``code`` is for one of a higher level: the core
    of a wheel is built by running accounts. It is not written.
    """

    symbol: str
    returns: str
    needs: tuple[str, ...]
    code: bytes
    here: bytes = b""

    def pack(self) -> bytes:
        """Return the file: a digest of the rest, a line of JSON, then the code."""
        head = {"symbol": self.symbol, "returns": self.returns, "needs": self.needs}
        rest = json.dumps(head).encode() + b"\n" + self.code
        return hashlib.sha256(rest).hexdigest().encode() + b" " + rest

    @classmethod
    def read(cls, path: Path) -> ObjectFile | None:
        """Return the object of a file; None if there is none, or it is damaged or not ours.

        Its symbol is a hash of its name, so one file cannot stand in for another.
        """
        is_ours = BUILT in path.parents or path.parent == BUILD.folder
        try:
            content = path.read_bytes() if is_ours else read_own_file(path)
        except UntrustedError as fault:
            warn_once(str(fault))
            return None
        except OSError:
            return None
        digest, _, rest = content.partition(b" ")
        if digest != hashlib.sha256(rest).hexdigest().encode():
            return None
        with contextlib.suppress(ValueError, KeyError, TypeError):
            first, _, code = rest.partition(b"\n")
            head = json.loads(first)
            if head["symbol"] == name_symbol(path.stem):
                return cls(head["symbol"], head["returns"], tuple(head["needs"]), code)
        return None


def name_symbol(name: str) -> str:
    """Return the symbol of the function in the object of a name."""
    return f"call_{hash_texts(name)}"


class Loaded(NamedTuple):
    address: int
    returns: str


def find_lasting_folder() -> Path | None:
    """Return the cache folder, or one in the temporary directory; None if neither can be used.

    A folder that belongs to others, or to which they may write, is not used.
    """
    if not (given := os.environ.get("BACKTEST_CACHE_DIR")):
        from platformdirs import user_cache_dir  # noqa: PLC0415 - imported only where used

        given = user_cache_dir("leverage-backtest", appauthor=False)
    user = os.getuid() if hasattr(os, "getuid") else 0
    temporary = Path(tempfile.gettempdir()) / f"leverage-backtest-{user}"
    for folder in (Path(given), temporary):
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            check_folder(folder, follows_links=folder != temporary)
        except UntrustedError as fault:
            warn_once(str(fault))
            return None
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    return None


@functools.cache
def is_for_higher_level() -> bool:
    """Return whether numba compiles for a level of x86-64 that this processor does not have."""
    level = os.environ.get("NUMBA_CPU_NAME", "")
    return level in LEVELS and level not in choose_levels(binding.get_host_cpu_features())


@functools.cache
def name_target() -> str:
    versions = [find_version(name) for name in ("numba", "llvmlite", "numpy")]
    names = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "BACKTEST_FAST_LINK")
    chosen = [os.environ.get(name, "") for name in names]
    features = binding.get_host_cpu_features().flatten()
    host = (binding.get_process_triple(), binding.get_host_cpu_name(), features)
    return hash_texts(*versions, *chosen, *map(str, host))


def describe_processor() -> tuple[str, list[str]]:
    """Return the name of this processor and its features, sorted."""
    features = binding.get_host_cpu_features()
    return str(binding.get_host_cpu_name()), sorted(name for name, has in features.items() if has)


def list_folders() -> Iterator[Path]:
    """Yield the folders that may hold objects for this processor, the best first."""
    levels = choose_levels(binding.get_host_cpu_features())
    names = [f"native-{name_target()}", *levels, "generic"]
    yield from (BUILT / f"{name_platform()}-{name}" for name in names)
    yield find_object_folder()


def choose_levels(present: Mapping[str, bool]) -> list[str]:
    needed: set[str] = set()
    chosen: list[str] = []
    for name, features in reversed(LEVELS.items()):
        needed |= {*features}
        if all(present.get(each, False) for each in needed):
            chosen.insert(0, name)
    return chosen


def name_platform() -> str:
    machine, _, rest = str(binding.get_process_triple()).partition("-")
    return f"{'macos' if 'darwin' in rest else 'linux' if 'linux' in rest else rest}-{machine}"


@functools.cache
def find_object_folder() -> Path:
    """Return the folder of objects in the cache; one that cannot be made, if none can be used."""
    cache = find_lasting_folder()
    if cache is None:
        return IN_MEMORY
    folder = cache / f"objects-{name_target()}"
    with contextlib.suppress(FileNotFoundError):
        try:
            check_folder(folder, follows_links=False)
        except UntrustedError as fault:
            warn_once(str(fault))
            return IN_MEMORY
    return folder


IN_MEMORY = Path(os.devnull) / "objects"
"""A folder that cannot be made: what is compiled is not kept."""


def find_object(name: str) -> ObjectFile | None:
    BUILD.used.add(name)
    folders = list_folders() if BUILD.folder is None else (BUILD.folder,)
    found = (ObjectFile.read(folder / f"{name}.o") for folder in folders)
    return next((each for each in found if each and can_load(each)), None)


BUILD: Any = SimpleNamespace(folder=None, used=set())
"""The folder into which the core is built, if it is, and the objects that are in use."""


@contextlib.contextmanager
def building(folder: Path) -> Iterator[None]:
    """Take and keep objects in one folder alone; at the end, remove those that are not in use."""
    BUILD.folder = folder
    BUILD.used.clear()
    try:
        yield
    finally:
        BUILD.folder = None
    for path in folder.glob("*.o"):
        if path.stem not in BUILD.used:
            path.unlink(missing_ok=True)


LOADED: dict[str, Loaded] = {}
"""What is loaded, by its symbol; it stays for the life of the process."""


@functools.cache
def start_loader() -> Any:
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_default_triple()
    machine = target.create_target_machine(reloc="pic", codemodel="small")
    return binding.create_mcjit_compiler(binding.parse_assembly(""), machine)


def load(made: ObjectFile) -> Loaded:
    """Return the function of an object whose needs :func:`can_load` has checked."""
    if made.symbol not in LOADED:
        loader = start_loader()
        loader.add_object_file(binding.object_file.ObjectFileRef.from_data(made.here or made.code))
        loader.finalize_object()
        address = int(loader.get_function_address(made.symbol))
        if address == 0:
            raise LookupError(f"compiled code lacks its function {made.symbol}; please report this")
        LOADED[made.symbol] = Loaded(address, made.returns)
    return LOADED[made.symbol]


def can_load(made: ObjectFile) -> bool:
    """Return whether this process has all symbols of an object: LLVM ends it for want of one.

    An object for a higher level only counts where its twin for this processor is loaded.
    """
    start_loader()  # which has the symbols of the process
    has_symbols = all(binding.address_of_symbol(each) for each in made.needs)
    return has_symbols and (made.symbol in LOADED or not is_for_higher_level())


KINDS = {float: "d", np.float64: "d", int: "q", np.int64: "q", bool: "b", np.bool_: "b"}
RETURNED = {"q": ctypes.c_int64, "d": ctypes.c_double, "b": ctypes.c_bool}


class Packed(NamedTuple):
    """An argument as words, and its kinds: letters of numbers, types of arrays."""

    kinds: tuple[str, ...]
    words: bytes


def pack(value: Any) -> Packed:
    """Return an argument as numba passes it: tuples flat, an array as its seven or more words.

    A struct is the word of its address.
    """
    kinds: list[str] = []
    form: list[str] = []
    words: list[Any] = []
    for leaf in flatten(value):
        own: tuple[Any, ...] = (leaf,)
        if isinstance(leaf, np.ndarray):
            is_whole = leaf.flags.c_contiguous and not isinstance(leaf, Column)
            kind = f"{leaf.dtype.str}{leaf.ndim}{'C' if is_whole else 'A'}"
            place = leaf.ctypes.data
            own = (0, 0, leaf.size, leaf.itemsize, place, *leaf.shape, *leaf.strides)
        elif isinstance(leaf, Struct):
            kind, own = type(leaf).__name__, (leaf.numbers.ctypes.data,)
        elif isinstance(leaf, Structs):
            kind = f"{leaf.kind.__name__}1C"
            n, size = leaf.numbers.shape[0], leaf.numbers.strides[0]
            own = (0, 0, n, size, leaf.numbers.ctypes.data, n, size)
        elif leaf is None:
            kind, own = "n", (0,)
        else:
            kind = KINDS[type(leaf)]
        kinds.append(kind)
        words += own
        form.append("d" if kind == "d" else f"{len(own)}q")
    return Packed(tuple(kinds), struct.pack("".join(form), *words))


def flatten(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple):
        for each in value:
            yield from flatten(each)
    else:
        yield value


CALLED = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p)


class Entry:
    """A function that Python calls, one object for each kinds of arguments.

    ``mark`` names its sources; ``compile_for`` returns the object of a name for given arguments.
    """

    def __init__(self, name: str, mark: str, compile_for: Callable[..., ObjectFile]) -> None:
        self.name, self.prefix, self.compile_for = name, f"{name}-{mark}", compile_for
        self.found: dict[tuple[tuple[str, ...], ...], tuple[Any, str]] = {}

    def is_compiled(self) -> bool:
        """Return whether it is in memory or in a folder, for arguments of some kinds."""
        files = (folder.glob(f"{self.prefix}*.o") for folder in list_folders())
        return bool(self.found) or any(map(any, files))

    def find(self, kinds: tuple[tuple[str, ...], ...], given: tuple[Any, ...]) -> tuple[Any, str]:
        """Return the function for these kinds, compiled if no folder has it, and its returns."""
        if kinds not in self.found:
            with COMPILER_LOCK:
                name = f"{self.prefix}-{hash_texts(repr(kinds))[:12]}"
                loaded = load_or_compile(name, lambda: self.compile_for(name, given))
                self.found[kinds] = CALLED(loaded.address), loaded.returns
        return self.found[kinds]

    def __call__(self, *given: Any) -> Any:
        return Caller(self)(*given)


class Caller:
    """Call an entry again and again; what is the same object as before is not packed again."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.kept: dict[int, tuple[Any, Packed]] = {}

    def bind(self, *given: Any) -> Callable[[], Any]:
        """Return the call itself; what must be compiled for it is compiled before."""
        parts = []
        for k, value in enumerate(given):
            last = self.kept.get(k)
            if last is None or last[0] is not value:
                last = self.kept[k] = value, pack(value)
            parts.append(last[1])
        function, returns = self.entry.find(tuple(each.kinds for each in parts), given)
        words = b"".join(each.words for each in parts)
        return functools.partial(call, self.entry.name, function, returns, words)

    def __call__(self, *given: Any) -> Any:
        return self.bind(*given)()


def call(name: str, function: Any, returns: str, words: bytes) -> Any:
    """Return what a function returns: None, a number, or a tuple of numbers."""
    room = (ctypes.c_int64 * 8)()
    fault = ctypes.c_void_p()
    status = function(words, ctypes.addressof(room), ctypes.addressof(fault))
    if status != 0:
        raise RuntimeError(f"compiled {name} ended with status {status}; please report this")
    place = ctypes.addressof(room)
    kinds: list[Any] = [RETURNED[each] for each in returns]
    found = tuple(kind.from_address(place + 8 * k).value for k, kind in enumerate(kinds))
    return found if len(found) > 1 else found[0] if found else None


def load_or_compile(
    name: str, compile_now: Callable[[], ObjectFile], *, is_kept: bool = True
) -> Loaded:
    """Return a function from a folder; else compile it, and keep what loads without numba."""
    if not is_kept:
        return load(call_with_room(compile_now))
    found = find_object(name)
    if found is None:
        with one_process(name):
            found = find_object(name)
            if found is None:
                found = call_with_room(compile_now)
                COMPILED.append(name)
            if all(hasattr(OF_PYTHON, each) for each in found.needs):  # else only beside numba
                with contextlib.suppress(OSError):  # the folder need not be writable
                    place = BUILD.folder or find_object_folder()
                    place.mkdir(parents=True, exist_ok=True, mode=0o755)
                    path = place / f"{name}.o"
                    write_file(path, found.pack())
                    path.chmod(path.stat().st_mode & ~0o022)  # whatever the umask
    return load(found)


def call_with_room(function: Callable[[], Any]) -> Any:
    """Return what a function returns; for its large frame Python maps a large piece of stack.

    In pieces of 16 KB, each call at the edge of one maps the next anew: half of all page faults.
    """
    return function()


call_with_room.__code__ = call_with_room.__code__.replace(co_stacksize=2**18)

COMPILED: list[str] = []
"""Names of the objects that this process has compiled."""


@contextlib.contextmanager
def one_process(name: str) -> Iterator[None]:
    """Let one process compile an object, where its folder can be written; the others wait."""
    from filelock import FileLock  # noqa: PLC0415 - only where something compiles

    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, NotImplementedError):
            folder = find_object_folder()
            folder.mkdir(parents=True, exist_ok=True, mode=0o755)
            stack.enter_context(FileLock(folder / f"{name}.lock"))
        yield


OF_PYTHON = ctypes.CDLL(None)
"""What every process of Python has, with the C library."""


COMPILING: Any = SimpleNamespace(depth=0, seconds=0.0)
"""How deep this process is in the compiler, and the seconds that it was there."""


class SignalGate:
    is_closed = True

    def __init__(self) -> None:
        self.kept: list[Callable[[], Any]] = []

    def handle(self, handler: Callable[..., Any], number: int, frame: FrameType | None) -> None:
        if self.is_closed:
            self.kept.append(functools.partial(handler, number, frame))
        else:
            handler(number, frame)

    def open(self) -> None:
        self.is_closed = False
        while self.kept:
            self.kept.pop(0)()


@contextlib.contextmanager
def hold_signals() -> Iterator[SignalGate]:
    """Keep signals until the block ends, and then answer all of them, though one raises.

    What a handler raises while compiled code runs would be lost.
    """
    gate = SignalGate()
    with contextlib.ExitStack() as answers, contextlib.ExitStack() as handlers:
        if threading.current_thread() is threading.main_thread():
            for number in signal.valid_signals():
                if callable(handler := signal.getsignal(number)):
                    handlers.callback(signal.signal, number, handler)
                    signal.signal(number, functools.partial(gate.handle, handler))
        try:
            yield gate
        finally:
            gate.is_closed = False
            for answer in reversed(gate.kept):
                answers.callback(answer)
