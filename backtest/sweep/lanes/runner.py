"""Score sets of parameters: in blocks of lanes, or one after another, over threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from backtest._compile import COMPILER_LOCK
from backtest.core import BacktestError, IntArray, list_values
from backtest.engine import Setup, measure_account, measure_observed
from backtest.policies import split_name
from backtest.results import sampled_returns
from backtest.results.measure_table import CORE, STREAMED
from backtest.sweep import sets as s
from backtest.sweep.lanes import block as b
from backtest.sweep.lanes.block import LEAST_LANES
from backtest.sweep.lanes.formulas import (
    find_block,
    is_formula_compiled,
    locate_lane_formula,
    write_lane_formula,
)
from backtest.sweep.lanes.rows import LANES
from backtest.sweep.panel import BlockFault, Panel, Scored
from backtest.sweep.sets import Sets, count_sets, take_sets

OWN_TERMS = frozenset(
    {
        "account.capital", "account.band", "account.min_leverage", "account.max_leverage",
        "account.stop_loss", "account.take_profit", "account.trailing_stop",
        "venue.contract.lot", "venue.contract.min_notional", "venue.slippage.rate",
        "venue.fees.taker", "venue.fees.maker", "venue.fees.maker_share",
        "venue.liquidation.fee", "venue.liquidation.slippage",
    }
)  # fmt: skip
"""Terms in which the lanes of a block may differ, where all have them or none."""

LEAST_BAR_SETS = 1_000_000
"""Bars of all sets from which a sweep takes lanes: below, the loop of a run is soon done."""

SET_BARS = 10_000
"""Bars that a set counts besides its own: to set up a run takes 12 to 25 ms, in which the loop
passes 50,000 bars; to set up a lane takes under 1 ms. 500 sets of 48 bars, one by one and in lanes:
14.1 and 0.6 s of ``Constant``, 10.3 and 0.8 s of ``VolTarget``."""

EXPOSED = frozenset(STREAMED) - frozenset(CORE)
"""Measures for which each close is looked at."""


class Stopped(Exception):  # noqa: N818 - no error
    """Signal that a sweep must stop."""


class SetTask(NamedTuple):
    """Sets to be scored; ``setup`` is that of the first if they make a block.

    A block that does not wait for the compiler is scored set by set if its policy's formula for
    lanes is not compiled.
    """

    rows: IntArray
    sets: Sets
    panel: Panel
    has_returns: bool
    setup: Setup | None = None
    waits_for_compiler: bool = True


Found = tuple[IntArray, Scored | BlockFault | None]
"""Places of sets, and what is found of them: a fault if their own runs give the reason."""


def score_sets(
    names: tuple[str, ...],
    sets: Sets,
    find_panel: Callable[[Mapping[str, Any]], Panel],
    threads: int,
    memory: float,
    *,
    returns: bool,
) -> Iterator[Found]:
    def list_tasks() -> Iterator[SetTask | IntArray]:
        seen = {name: each for name, each in sets.items() if name.startswith((s.SIGNAL, s.MARGIN))}
        codes = s.number_rows(seen, count_sets(sets))
        most = LANES if codes.any() else -(-count_sets(sets) // threads)  # 0 is the first group
        for rows in s.group_rows(codes):
            some = take_sets(sets, rows)
            try:
                panel = find_panel(take_sets(some, 0))
            except BacktestError:
                yield rows
                continue
            for task in split(some, panel, returns, min(LANES, most), memory):
                yield task._replace(rows=rows[task.rows])

    n_threads = max(1, min(threads, count_sets(sets)))
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="sweep")
    tasks, stopped = list_tasks(), threading.Event()
    waiting: set[Future[list[Found]]] = set()
    try:
        while True:
            for task in islice(tasks, 2 * n_threads - len(waiting)):
                waiting.add(pool.submit(score_task, names, task, stopped.is_set))
            if not waiting:
                return
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield from future.result()
    finally:
        stopped.set()
        pool.shutdown(wait=True, cancel_futures=True)


def split(
    sets: Sets, panel: Panel, has_returns: bool, most: int, memory: float
) -> Iterator[SetTask]:
    reads = dict.fromkeys(name for each in panel.columns for name in each.reads)
    texts = [name for name in sets if sets[name].dtype == object]
    venues = list_values(panel.varied.venue)
    is_in_margin = any(each.includes_close_fee for each in venues)  # lanes share requirements
    own_terms = OWN_TERMS - {"venue.fees.taker"} if is_in_margin else OWN_TERMS
    terms = [name for name in sets if split_name(name)[0] and name not in own_terms]
    apart = [sets[name] for name in dict.fromkeys([*texts, *terms])]
    shared = [sets[name] for name in sets if name in own_terms and sets[name].dtype != object]
    apart += [each > 0.0 for each in shared]
    read = [sets[name] for name in reads if name in sets]
    keys = [*reversed(read), *apart]
    order = np.lexsort([*map(s.find_codes, keys)]) if keys else np.arange(count_sets(sets))
    n_bars = len(panel.span.closes)
    fits = not panel.varied.has_own(sets)  # lanes share policies and overlay
    bars_in_all = panel.repeats * count_sets(sets) * (n_bars + SET_BARS)
    is_worth_compiling = bars_in_all >= LEAST_BAR_SETS
    fits = fits and (is_worth_compiling or find_block().is_compiled())
    for rows in s.cut_rows_at(order, find_ends(order, apart)):
        setup, limit = None, 0
        if fits and len(rows) >= LEAST_LANES:
            with suppress(BacktestError):  # the run of this set gives the reason
                first = panel.set_up(take_sets(sets, int(rows[0])))
                setup = first if b.fits_lanes(first, panel.begin(first)[1]) else None
        if setup is not None:
            columns = [x for policy in setup.observed for x in policy.columns.values()]
            limit = max(1, int(memory // max(sum(x.nbytes for x in columns), 1)))
        groups: Iterable[IntArray] = [rows]
        size = max(most, LEAST_LANES)
        if 0 < limit < size:  # whose columns have room at once
            ends = find_ends(rows, read)
            groups = s.cut_rows_at(rows, np.append(ends[limit - 1 : -1 : limit], ends[-1]))
        for part in (group[k : k + size] for group in groups for k in range(0, len(group), size)):
            is_block = setup is not None and len(part) >= LEAST_LANES
            like = setup if is_block else None
            for some in [part] if is_block else part[:, None]:
                own = take_sets(sets, some)
                yield SetTask(some, own, panel, has_returns, like, is_worth_compiling)


def find_ends(rows: IntArray, columns: list[np.ndarray]) -> IntArray:
    """Return the places in rows after which a value of some column is another, and their number."""
    is_last = np.zeros(len(rows), dtype=np.bool_)
    is_last[-1:] = True
    for column in columns:
        codes = s.find_codes(column[rows])
        is_last[:-1] |= codes[1:] != codes[:-1]
    return np.flatnonzero(is_last) + 1


def score_task(
    names: tuple[str, ...], task: SetTask | IntArray, is_stopped: Callable[[], bool]
) -> list[Found]:
    if not isinstance(task, SetTask):
        return [(task, BlockFault())]
    if task.setup is not None:
        try:
            return [(task.rows, score_lanes(names, task, task.setup, is_stopped))]
        except (BacktestError, BlockFault):
            pass
    found: list[Found] = []
    for k in range(len(task.rows)):
        one = task._replace(rows=task.rows[k : k + 1], sets=take_sets(task.sets, k))
        found.append((one.rows, score_set(names, one, is_stopped)))
    return found


def score_lanes(
    names: tuple[str, ...], task: SetTask, like: Setup, is_stopped: Callable[[], bool]
) -> Scored | None:
    panel = task.panel
    columns_of_sets = [each.tolist() for each in task.sets.values()]
    sets = [dict(zip(task.sets, row, strict=True)) for row in zip(*columns_of_sets, strict=True)]
    setups = panel.set_up_lanes(like, sets)
    first, *others = {id(each.inputs): each for each in setups}.values()
    if not all(b.is_same(b.list_shared(first), b.list_shared(each)) for each in others):
        raise BlockFault

    columns = b.join_columns(setups)
    pairs = zip(task.sets, columns_of_sets, strict=True)
    varied = {name: values for name, values in pairs if len({*values}) > 1}
    own, asked = b.has_own_columns(columns), frozenset(task.sets)
    with COMPILER_LOCK:
        formulas = []
        for each in setups[0].observed:
            shown = each.policy, tuple(each.columns)
            read = b.find_read(*shown)
            recipe = write_lane_formula(*shown, frozenset(varied), asked, read, has_own_columns=own)
            if not (task.waits_for_compiler or is_formula_compiled(recipe)):
                raise BlockFault
            formulas.append(locate_lane_formula(recipe))

    with panel.lend_room() as lent:
        block = b.Block(
            setups=setups,
            varied=varied,
            deciders=panel.find_deciders(like),
            addresses=formulas,
            columns=columns,
            warm_ups=b.find_warm_ups(setups, len(panel.markets)),
            span=panel.span,
            has_returns=task.has_returns,
            is_full=bool(EXPOSED & {*names}),
            table=panel.find_table(first),
            lent=lent,
        )
        return b.score_block(names, block, is_stopped)


def score_set(
    names: tuple[str, ...], task: SetTask, is_stopped: Callable[[], bool]
) -> Scored | BlockFault | None:
    """Score a set in the loop of a run; None if it was stopped."""

    def go_on(_done: int, _all: int) -> None:
        if is_stopped():
            raise Stopped

    panel = task.panel
    try:
        setup = panel.set_up(task.sets)
        state, deciders, tally = panel.begin(setup)
        began = np.array([state.wallet.equity])
        given = (setup.inputs, state, deciders, tally, panel.first)
        with panel.lend_room() as lent:
            units = measure_account(
                *given, has_units=task.has_returns, progress=go_on, simulate=lent.simulate
            )
    except BacktestError:
        return BlockFault()
    except Stopped:
        return None
    flat = {name: np.array([value]) for name, value in tally.to_dict().items()}
    metrics = b.measure_wallets(names, panel.span, flat, state.wallet.numbers[None], began)
    returns = np.zeros(0)
    if task.has_returns:
        ends = setup.inputs.clock.ends_sample[panel.first :]
        returns = sampled_returns(units, ends, tally.first_unit)
    has_traded = bool(flat["traded"][0] > 0.0)
    decided = measure_observed(setup.observed, panel.markets, panel.first, has_traded=has_traded)
    return Scored(metrics, returns[:, None], np.array([decided]))


def count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
