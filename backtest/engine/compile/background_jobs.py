"""What the process in the background compiles."""

from __future__ import annotations

import contextlib
from importlib import import_module
from typing import Any

from numba.core.typing.typeof import Purpose, typeof

from backtest.base.argument_types import rebuild_argument
from backtest.base.compile_choice import KernelOrder
from backtest.engine.compile.loop_compiler import compile_core, load_policy
from backtest.engine.compile.plain_or_compiled import LoopOrder, mark_ready
from backtest.features.compiled import compile_module


def carry_out(kernels: tuple[KernelOrder, ...], order: LoopOrder) -> None:
    """Compile kernels and a loop, and note what is done."""
    note_try(order)
    for each in kernels:
        kernel = getattr(compile_module(import_module(each.module)), each.name)
        kernel.compile_for(each.arguments)
    compiled = load_policy(compile_core(), order.recipe)
    loop: Any = compiled.simulate
    loop.compile(find_types(order.arguments))
    mark_ready(order)


def note_try(loop: LoopOrder) -> None:
    """Count that this loop was begun."""
    with contextlib.suppress(OSError):
        loop.tries.parent.mkdir(parents=True, exist_ok=True)
        with loop.tries.open("ab") as file:
            file.write(b".")


def find_types(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return numba's types of outlined arguments."""
    given = map(rebuild_argument, arguments)
    return tuple(typeof(each, Purpose.argument) for each in given)  # type: ignore[no-untyped-call] # numba's
