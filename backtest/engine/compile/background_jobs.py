"""The compiling that the background process does."""

from __future__ import annotations

import contextlib
from importlib import import_module
from typing import Any

from numba.core.typing.typeof import Purpose, typeof

from backtest.base.argument_types import rebuild_argument
from backtest.base.compile_choice import KernelOrder
from backtest.engine.compile.loop_compiler import compile_core, load_policy_loop
from backtest.engine.compile.plain_or_compiled import LoopOrder, mark_ready
from backtest.features.compiled import compile_module


def compile_order(kernels: tuple[KernelOrder, ...], order: LoopOrder) -> None:
    """Compile kernels and a loop, and mark the loop as ready."""
    with contextlib.suppress(OSError):  # count the attempt
        order.tries.parent.mkdir(parents=True, exist_ok=True)
        with order.tries.open("ab") as file:
            file.write(b".")
    for each in kernels:
        kernel = getattr(compile_module(import_module(each.module)), each.name)
        kernel.compile_for(each.arguments)
    loop: Any = load_policy_loop(compile_core(), order.recipe)
    given = map(rebuild_argument, order.arguments)
    loop.compile(tuple(typeof(each, Purpose.argument) for each in given))  # type: ignore[no-untyped-call] # numba's
    mark_ready(order)
