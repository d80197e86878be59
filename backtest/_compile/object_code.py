"""Compiled functions as object files, which load without numba and read a table of words.

A file holds one function for arguments of certain kinds: a line of JSON, then the object. Its name
names the function, the kinds, and the sources that it was compiled from, so a file of other sources
is never found. :data:`BUILT` is written with the package, the cache holds what was compiled later.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from backtest._compile import cache_folders, interruptions
from backtest._compile.cache_folders import BUILT, binding
from backtest._compile.trusted_files import UntrustedError, read_own_file, warn_once
from backtest.core.atomic_files import write_file
from backtest.core.code_versions import hash_texts
from backtest.core.fields import Choice

MODE = "BACKTEST_COMPILE"


def read_mode() -> str:
    """Return when formulas compile, ``"auto"`` or ``"now"``; any other word is refused."""
    mode = os.environ.get(MODE, "").lower() or "auto"
    return str(Choice("auto", "now").check(f"the environment variable {MODE}", mode))


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
        content = json.dumps(head).encode() + b"\n" + self.code
        digest = hashlib.sha256(content).hexdigest().encode()
        return digest + b" " + content

    @classmethod
    def read(cls, path: Path) -> ObjectFile | None:
        """Return the object of a file; None if there is none, or it is damaged or not ours.

        Its symbol is a hash of its name, so one file cannot stand in for another.
        """
        is_ours = BUILT in path.parents or path.parent == BUILD.folder
        try:
            file = path.read_bytes() if is_ours else read_own_file(path)
        except UntrustedError as fault:
            warn_once(str(fault))
            return None
        except OSError:
            return None

        digest, _, content = file.partition(b" ")
        if digest != hashlib.sha256(content).hexdigest().encode():
            return None
        with contextlib.suppress(ValueError, KeyError, TypeError):
            line, _, code = content.partition(b"\n")
            head = json.loads(line)
            if head["symbol"] == name_symbol(path.stem):
                return cls(head["symbol"], head["returns"], tuple(head["needs"]), code)
        return None


def name_symbol(name: str) -> str:
    """Return the symbol of the function in the object of a name."""
    return f"call_{hash_texts(name)}"


class Loaded(NamedTuple):
    address: int
    returns: str


def find_object(name: str) -> ObjectFile | None:
    """Return the object of a name from the first folder that has one which loads here; else None.

    While the core is built (:func:`building`), that is the folder it is built into alone. Each name
    that is asked for is noted as in use, so that building removes only what no one asks for.
    """
    BUILD.used.add(name)
    folders = cache_folders.list_folders()
    if BUILD.folder is not None:
        folders = iter((BUILD.folder,))

    for folder in folders:
        made = ObjectFile.read(folder / f"{name}.o")
        if made is not None and can_load(made):
            return made
    return None


BUILD: Any = SimpleNamespace(folder=None, used=set())
"""The folder into which the core is built, if it is, and the objects that are in use."""


@contextlib.contextmanager
def building(folder: Path) -> Iterator[None]:
    """Take and keep objects in one folder alone; at the end, remove those that are not in use.

    In use is what this process has looked for by name, also before: it holds such a function, and
    does not look again. If the block raises, nothing is removed, as not all was looked for.
    """
    BUILD.folder = folder
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
    """Return the loader of objects.

    It maps all sections of an object side by side (``use_lmm``): code addresses its constants by 32
    bits. LLVM's own way is to map a section wherever there is room, and to end the process where
    that is over 2 GB from the others, as happens in one with much memory.
    """
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_default_triple()
    machine = target.create_target_machine(reloc="pic", codemodel="small")
    return binding.create_mcjit_compiler(binding.parse_assembly(""), machine, use_lmm=True)


def load(made: ObjectFile) -> Loaded:
    """Return the function of an object whose needs :func:`can_load` has checked."""
    if made.symbol in LOADED:
        return LOADED[made.symbol]

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
    if not all(binding.address_of_symbol(symbol) for symbol in made.needs):
        return False
    return made.symbol in LOADED or not cache_folders.is_for_higher_level()


def load_or_compile(
    name: str, compile_now: Callable[[], ObjectFile], *, is_kept: bool = True
) -> Loaded:
    """Return the compiled function of a name: from a folder of objects, or compiled now.

    ``compile_now`` returns its object. That is kept in a folder, if it loads without numba; unless
    ``is_kept`` is False, as the name does not say all that it depends on.
    """
    if not is_kept:
        return load(call_with_room(compile_now))
    made = find_object(name)
    if made is not None:
        return load(made)

    # Another process may have compiled it while this one waited.
    with one_process(name):
        made = find_object(name)
        if made is None:
            made = call_with_room(compile_now)
            COMPILED.append(name)
        loads_without_numba = all(hasattr(OF_PYTHON, symbol) for symbol in made.needs)
        if loads_without_numba:
            with contextlib.suppress(OSError):  # the folder need not be writable
                keep_object(name, made)
    return load(made)


def keep_object(name: str, made: ObjectFile) -> None:
    """Write an object into the folder that is built, or else into the cache."""
    folder = BUILD.folder or cache_folders.find_object_folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    path = folder / f"{name}.o"
    write_file(path, made.pack())
    path.chmod(path.stat().st_mode & ~0o022)  # whatever the umask


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
    file_lock = interruptions.load_file_lock()  # imported only where something compiles

    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, NotImplementedError):
            folder = cache_folders.find_object_folder()
            folder.mkdir(parents=True, exist_ok=True, mode=0o755)
            stack.enter_context(file_lock(folder / f"{name}.lock"))
        yield


OF_PYTHON = ctypes.CDLL(None)
"""What every process of Python has, with the C library."""


COMPILING: Any = SimpleNamespace(depth=0, seconds=0.0)
"""How deep this process is in the compiler, and the seconds that it was there."""
