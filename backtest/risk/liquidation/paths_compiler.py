"""Compile the loop over paths around a policy's formula, with the twins of the single run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from backtest.base import hash_texts
from backtest.engine import Recipe, load_policy_loop
from backtest.risk.liquidation import paths_loop
from backtest.risk.liquidation.paths_loop import begin_path, live_path, live_paths


def load_paths_loop(recipe: Recipe) -> Callable[..., Any]:
    """Return :func:`paths_loop.live_paths` with a policy's formula in it."""
    own = hash_texts(Path(str(paths_loop.__file__)).read_text(encoding="utf-8"))
    named = recipe._replace(name=f"paths_{own}_{recipe.name}")
    return load_policy_loop(named, live_paths, (begin_path, live_path), nogil=True)
