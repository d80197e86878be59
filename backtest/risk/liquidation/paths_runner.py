"""Take one account and its policies through many paths, a block at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from backtest.engine import Progress, Result
from backtest.risk.liquidation.fast_loop import FastLoop
from backtest.risk.liquidation.general_loop import GeneralLoop
from backtest.risk.liquidation.path_events import PathLives
from backtest.risk.liquidation.paths_account import PathsAccount
from backtest.risk.paths.path_set import find_path_number

SMALL = 16
"""Paths that are drawn as one block."""


@dataclass(frozen=True, eq=False, kw_only=True)
class PathsRunner(PathsAccount):
    @functools.cached_property
    def loop(self) -> FastLoop | GeneralLoop:
        return FastLoop(self) if self.is_one_position else GeneralLoop(self)

    def run_path(self, i: int) -> Result:
        number = find_path_number(i, self.paths.count)
        bars = self.paths.draw_all(number, number + 1)
        path = self.paths.markets_of(bars, 0, number)
        return self.loop.run_path(path, is_compiled=self.compile)

    def run_chunks(
        self, *, count: int | None = None, threads: int = 1, progress: Progress | None = None
    ) -> Iterator[PathLives]:
        self.prepare()  # compiled before threads start
        edges = list_blocks(self.paths.count if count is None else count, self.loop.block)

        def work(edge: tuple[int, int]) -> PathLives:
            return self.run_block(*edge)

        yield from run_blocks(work, edges, threads, progress)

    def prepare(self) -> None:
        self.loop.prepare()

    def run_block(self, first: int, stop: int) -> PathLives:
        return self.loop.run_block(first, stop)


def list_blocks(total: int, size: int) -> list[tuple[int, int]]:
    size += size % 2
    starts = [0] if total <= SMALL else [0, *range(2, total, size)]
    return [(k, min(stop, total)) for k, stop in zip(starts, [*starts[1:], total], strict=True)]


def run_blocks(
    work: Callable[[tuple[int, int]], PathLives],
    edges: list[tuple[int, int]],
    threads: int,
    progress: Progress | None,
) -> Iterator[PathLives]:
    done = 0
    for lives in map_in_order(work, edges, threads):
        done += len(lives.wealth)
        if progress is not None:
            progress(done, edges[-1][1])
        yield lives


def map_in_order(work: Callable[[Any], Any], items: list[Any], threads: int) -> Iterator[Any]:
    if threads == 1 or len(items) < 2:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="paths") as pool:
        waiting = [pool.submit(work, item) for item in items[: 2 * threads]]
        for k in range(len(items)):
            yield waiting[k].result()
            waiting[k] = None  # type: ignore[call-overload] # its memory is free again
            if k + 2 * threads < len(items):
                waiting.append(pool.submit(work, items[k + 2 * threads]))
