"""The compiling that the background process does."""

from __future__ import annotations

import contextlib
from importlib import import_module
from pathlib import Path
from typing import Any

from numba.core.typing.typeof import Purpose, typeof

from backtest.base import KernelOrder, compile_module, rebuild_argument
from backtest.engine.compile.loop_compiler import load_policy_loop
from backtest.engine.compile.plain_or_compiled import LoopOrder, mark_ready


def compile_order(kernels: tuple[KernelOrder, ...], order: LoopOrder) -> None:
    count_attempt(order.tries)
    compile_kernels(kernels)
    compile_for(load_loop(order), order.arguments)
    mark_ready(order)


def load_loop(order: LoopOrder) -> Any:
    if order.recipe is not None:
        return load_policy_loop(order.recipe)
    from backtest.engine.compile.general_compiler import find_general_loop  # noqa: PLC0415

    return find_general_loop(order.arguments[0])


def count_attempt(tries: Path) -> None:
    with contextlib.suppress(OSError):
        tries.parent.mkdir(parents=True, exist_ok=True)
        with tries.open("ab") as file:
            file.write(b".")


def compile_kernels(kernels: tuple[KernelOrder, ...]) -> None:
    for each in kernels:
        kernel = getattr(compile_module(import_module(each.module)), each.name)
        kernel.compile_for(each.arguments)


def compile_for(loop: Any, arguments: tuple[Any, ...]) -> None:
    given = map(rebuild_argument, arguments)
    loop.compile(tuple(typeof(each, Purpose.argument) for each in given))  # type: ignore[no-untyped-call] # numba's
