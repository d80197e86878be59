"""Folders that hold compiled code, by processor: that of the package, and that of the cache."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from backtest._compile.trusted_files import UntrustedError, check_folder, warn_once
from backtest.core.code_names import LateModule
from backtest.core.code_versions import find_version, hash_texts

binding: Any = LateModule("llvmlite.binding")
"""LLVM, which is imported where code runs."""

BUILT = Path(__file__).parents[1] / "_built"
"""Folders of objects by processor, written by ``backtest compile`` and with a wheel."""

LEVELS = {
    "x86-64-v4": ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
    "x86-64-v3": ("avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"),
}
"""Levels of x86-64 by the features that they add, the highest first."""


def find_lasting_folder() -> Path | None:
    """Return the cache folder, or one in the temporary directory; None if neither can be used.

    A folder that belongs to others, or to which they may write, is not used.
    """
    cache = os.environ.get("BACKTEST_CACHE_DIR")
    if not cache:
        from platformdirs import user_cache_dir  # noqa: PLC0415 - imported only where used

        cache = user_cache_dir("leverage-backtest", appauthor=False)
    user = 0
    if hasattr(os, "getuid"):
        user = os.getuid()
    temporary = Path(tempfile.gettempdir()) / f"leverage-backtest-{user}"

    for folder in (Path(cache), temporary):
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
    """Return a hash of all that decides what machine code numba makes here."""
    versions = [find_version(name) for name in ("numba", "llvmlite", "numpy")]
    switches = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "BACKTEST_FAST_LINK")
    settings = [os.environ.get(name, "") for name in switches]
    features = binding.get_host_cpu_features().flatten()
    host = (binding.get_process_triple(), binding.get_host_cpu_name(), features)
    return hash_texts(*versions, *settings, *map(str, host))


def describe_processor() -> tuple[str, list[str]]:
    """Return the name of this processor and its features, sorted."""
    features = binding.get_host_cpu_features()
    present = [name for name, is_present in features.items() if is_present]
    return str(binding.get_host_cpu_name()), sorted(present)


def list_folders() -> Iterator[Path]:
    """Yield the folders that may hold objects for this processor, the best first."""
    levels = choose_levels(binding.get_host_cpu_features())
    for name in (f"native-{name_target()}", *levels, "generic"):
        yield BUILT / f"{name_platform()}-{name}"
    yield find_object_folder()


def choose_levels(present: Mapping[str, bool]) -> list[str]:
    """Return the levels of x86-64 that a processor has, the highest first; each needs the lower."""
    needed: set[str] = set()
    levels: list[str] = []
    for level, features in reversed(LEVELS.items()):
        needed.update(features)
        if all(present.get(feature, False) for feature in needed):
            levels.insert(0, level)
    return levels


def name_platform() -> str:
    machine, _, system = str(binding.get_process_triple()).partition("-")
    for name, word in (("macos", "darwin"), ("linux", "linux")):
        if word in system:
            return f"{name}-{machine}"
    return f"{system}-{machine}"


@functools.cache
def find_object_folder() -> Path:
    """Return the folder of objects in the cache; one that cannot be made, if none can be used."""
    cache = find_lasting_folder()
    if cache is None:
        return IN_MEMORY

    # One that is not there yet is made by the first object.
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
