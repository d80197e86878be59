"""Copies of the kernels' source files in the cache folder."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from types import FunctionType, ModuleType

from backtest.base import cache_folder
from backtest.base.code_identity import hash_texts
from backtest.base.compiled_twins import describe_target


@functools.cache
def write_copy(module: ModuleType) -> Path:
    """Copy the source of a module to the cache folder, and return the path of the copy."""
    sources = list_sources(module)
    texts = [Path(str(each.__file__)).read_text(encoding="utf-8") for each in sources]
    mark = hash_texts(*texts, *describe_target())
    name = Path(str(module.__file__)).name
    return cache_folder.write_once(
        cache_folder.find_cache_folder() / f"kernels-{mark}" / name, texts[0]
    )


def list_sources(module: ModuleType) -> list[ModuleType]:
    """Return a module of kernels, and all that it imports functions of, directly or not."""
    found = [module]
    for other in found:
        found += [each for each in helpers_of(other) if each not in found]
    return found


def helpers_of(module: ModuleType) -> list[ModuleType]:
    """Return our modules whose functions a module of kernels imports, in order of name."""
    functions = [value for value in vars(module).values() if isinstance(value, FunctionType)]
    names = {each.__module__ for each in functions if each.__module__ != module.__name__}
    names = {name for name in names if name.startswith("backtest.")}  # not typing.NamedTuple
    return [sys.modules[name] for name in sorted(names)]
