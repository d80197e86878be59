"""Compile the loop over paths around a policy's formula, with the twins of the single run."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

from backtest.base import cache_folder
from backtest.base.code_identity import hash_texts
from backtest.base.compiled_files import jit
from backtest.base.compiled_twins import make_twin
from backtest.engine.compile.loop_compiler import OPTIONS, compile_core, jit_tree
from backtest.engine.compile.recipe import Recipe
from backtest.paths import paths_loop

_loaded: dict[str, Callable[..., Any]] = {}


def load_paths_loop(recipe: Recipe) -> Callable[..., Any]:
    """Return :func:`backtest.paths.paths_loop.live_paths` with a policy's formula in it.

    The first call compiles it, or loads it from the cache. A recipe that is not complete is not
    cached.
    """
    own = hash_texts(Path(str(paths_loop.__file__)).read_text(encoding="utf-8"))
    name, is_cached = f"paths_{own}_{recipe.name}", recipe.is_complete
    if is_cached and name in _loaded:
        return _loaded[name]
    core = compile_core()
    path = cache_folder.write_once(core.folder / f"{name}.py", recipe.text)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    rule = jit_tree(recipe.rule, {})
    module.__dict__.update(NamedTuple=NamedTuple, rule=rule, Memory=recipe.memory)
    spec.loader.exec_module(module)
    scope = {**core.names, "__name__": name}
    inner: dict[str, Any] = {**OPTIONS, "cache": False, "forceinline": True}
    scope["decide"] = jit(module.decide, **inner)
    for function in (paths_loop.begin_path, paths_loop.live_path):
        plain = cast("types.FunctionType", function)
        scope[plain.__name__] = jit(make_twin(plain, scope, path), **inner)
    outer: dict[str, Any] = {**OPTIONS, "cache": is_cached, "nogil": True}
    whole = cast("types.FunctionType", paths_loop.live_paths)
    loop: Callable[..., Any] = jit(make_twin(whole, scope, path), **outer)
    if is_cached:
        _loaded[name] = loop
    return loop
