"""Kernels: functions of arrays, compiled once per machine; ``KERNELS`` of a module names them.

The cache folder keeps compiled code between processes. A twin is a copy of a function with other
globals.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

from backtest.base.atomic_files import write_file
from backtest.base.code_names import find_version, hash_texts

# ------------------------------------------------------------------------------- the cache folder


def find_cache_folder() -> Path:
    lasting = find_lasting_folder()
    return Path(tempfile.mkdtemp(prefix="leverage-backtest-")) if lasting is None else lasting


def find_lasting_folder() -> Path | None:
    given = os.environ.get("BACKTEST_CACHE_DIR")
    home = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    candidates = [Path(given)] if given else [Path(home) / "leverage-backtest"]
    user = os.getuid() if hasattr(os, "getuid") else 0  # as st_uid is on Windows
    candidates.append(Path(tempfile.gettempdir()) / f"leverage-backtest-{user}")
    for folder in candidates:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if os.access(folder, os.W_OK) and folder.stat().st_uid == user:
                return folder
    return None


def write_once(path: Path, text: str) -> Path:
    content = text.encode()
    if read_bytes(path) != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, content)
    return path


def read_bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


# ------------------------------------------------------------------------------------------ twins


def make_twin(function: FunctionType, names: dict[str, Any], path: Path) -> FunctionType:
    code = function.__code__.replace(co_filename=str(path))
    copy = FunctionType(code, names, function.__name__, function.__defaults__, function.__closure__)
    copy.__qualname__ = function.__qualname__
    copy.__module__ = names["__name__"]
    return copy


def find_own_functions(
    module: ModuleType, left_out: Collection[str] = ()
) -> Iterator[tuple[str, FunctionType]]:
    for name, value in vars(module).items():
        is_own = isinstance(value, FunctionType) and value.__module__ == module.__name__
        if is_own and name not in left_out and not name.startswith("_"):
            yield name, value


@functools.cache
def describe_target() -> tuple[str, ...]:
    from llvmlite import binding  # noqa: PLC0415 - only needed where code runs

    versions = [find_version(name) for name in ("numba", "llvmlite", "numpy")]
    names = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "BACKTEST_FAST_LINK")
    chosen = [os.environ.get(name, "") for name in names]
    features = binding.get_host_cpu_features().flatten()
    host = (binding.get_process_triple(), binding.get_host_cpu_name(), features)
    here = Path(__file__)
    own = [here.with_name(f"{name}.py").read_text("utf-8") for name in ("compiler", "fast_link")]
    return (*versions, *chosen, *map(str, host), *own)


# ---------------------------------------------------------------------------------------- kernels

OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True, "_nrt": False}


@functools.cache
def compile_module(module: ModuleType) -> Any:
    return SimpleNamespace(**compile_functions(module, module.KERNELS))


@functools.cache
def compile_functions(module: ModuleType, kernels: tuple[str, ...] = ()) -> dict[str, Any]:
    from backtest.base.compiler import jit  # noqa: PLC0415 - loads numba

    found: dict[str, Any] = {}
    for other in helpers_of(module):
        found |= compile_functions(other)
    names, path = {**vars(module), **found}, write_copy(module)
    for name, function in find_own_functions(module):
        is_kernel = name in kernels
        options = {**OPTIONS, "cache": is_kernel, "forceinline": not is_kernel}
        names[name] = found[name] = jit(make_twin(function, names, path), **options)
    return found


@functools.cache
def write_copy(module: ModuleType) -> Path:
    sources = list_sources(module)
    texts = [Path(str(each.__file__)).read_text(encoding="utf-8") for each in sources]
    mark = hash_texts(*texts, *describe_target())
    name = Path(str(module.__file__)).name
    return write_once(find_cache_folder() / f"kernels-{mark}" / name, texts[0])


def list_sources(module: ModuleType) -> list[ModuleType]:
    found = [module]
    for other in found:
        found += [each for each in helpers_of(other) if each not in found]
    return found


def helpers_of(module: ModuleType) -> list[ModuleType]:
    functions = [value for value in vars(module).values() if isinstance(value, FunctionType)]
    names = {each.__module__ for each in functions if each.__module__ != module.__name__}
    names = {name for name in names if name.startswith("backtest.")}  # not typing.NamedTuple
    return [sys.modules[name] for name in sorted(names)]
