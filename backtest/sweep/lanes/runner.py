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
from backtest.core import BacktestError, FloatArray, IntArray, list_values
from backtest.engine import Recipe, Setup, measure_account, measure_observed
from backtest.policies import split_name
from backtest.results import sampled_returns
from backtest.results.measure_table import CORE, STREAMED
from backtest.sweep import sets as s
from backtest.sweep.lanes import block as b
from backtest.sweep.lanes.block import LEAST_LANES
from backtest.sweep.lanes.formulas import (
    find_block,
    find_observed_texts,
    is_formula_compiled,
    locate_lane_formula,
    write_general_formula,
    write_lane_formula,
)
from backtest.sweep.lanes.rows import GROUP, LANES
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
    """Score all parameter sets over threads; yield their places and scores, in the order done.

    ``names`` are the measures; with ``returns`` the scores have sampled returns too. ``find_panel``
    returns the markets and columns that a set shares with those of the same signals and margins.
    Observed columns of a block take at most ``memory`` bytes. When the caller stops asking for
    scores, tasks that wait are dropped, and those that run end soon.
    """
    # At most two tasks a thread are waiting or running, and a new one is made as one is done: so
    # few columns are in memory, and the first scores are there before the last task is made.
    n_threads = max(1, min(threads, count_sets(sets)))
    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="sweep")
    tasks = list_tasks(sets, find_panel, threads, memory, returns=returns)
    stopped = threading.Event()

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
        # Tasks that run look at this flag, and end.
        stopped.set()
        pool.shutdown(wait=True, cancel_futures=True)


def list_tasks(
    sets: Sets,
    find_panel: Callable[[Mapping[str, Any]], Panel],
    threads: int,
    memory: float,
    *,
    returns: bool,
) -> Iterator[SetTask | IntArray]:
    """Yield the tasks of a sweep: parameter sets to be scored together, and the panel they share.

    A panel is what sets of the same signals and margins share: their markets, columns and setups.
    It is made when its first task is, so panels of later sets need no memory before. Where it
    cannot be made, the places of its sets are yielded alone: their own runs give the reason. The
    arguments are those of :func:`score_sets`.
    """
    of_panel = [name for name in sets if name.startswith((s.SIGNAL, s.MARGIN))]
    codes = s.number_rows({name: sets[name] for name in of_panel}, count_sets(sets))

    # Sets of one panel are shared out among the threads; of several each fills its blocks. A block
    # of 32 lanes takes less than half again as long as one of 4: smaller ones are not worth it.
    block_size = LANES
    has_one_panel = not codes.any()
    if has_one_panel:
        share = -(-count_sets(sets) // threads)  # rounded up
        block_size = min(LANES, max(GROUP, share))

    for rows in s.group_rows(codes):
        sets_of_panel = take_sets(sets, rows)
        try:
            panel = find_panel(take_sets(sets_of_panel, 0))
        except BacktestError:
            yield rows
            continue
        # The rows of these tasks count the sets of the panel; those of the sweep are their places.
        for task in split_panel(sets_of_panel, panel, returns, block_size, memory):
            yield task._replace(rows=rows[task.rows])


class Order(NamedTuple):
    """An order of parameter sets, in which sets that can share a block stand side by side.

    ``rows`` are the places of the sets in this order. ``ends`` are places in ``rows`` at which a
    block must end, one past its last set. ``observed`` are the parameters that policies observe by,
    each with a value for each set: sets with the same values share their columns.
    """

    rows: IntArray
    ends: IntArray
    observed: list[np.ndarray]


def order_sets(sets: Sets, panel: Panel) -> Order:
    """Return an order of the sets of a panel in which those that can share a block are neighbors.

    A block has only sets that agree in the keys of :func:`list_shared_keys`. Within it, sets with
    the same values of the parameters that policies observe by are neighbors too, as they share
    columns.
    """
    shared_keys = list_shared_keys(sets, panel)
    observed_names = dict.fromkeys(name for columns in panel.columns for name in columns.reads)
    observed = [sets[name] for name in observed_names if name in sets]

    # The last key of a lexsort sorts first. So sets are sorted by what blocks share, and then by
    # what their policies observe by.
    keys = [*reversed(observed), *shared_keys]
    rows = np.arange(count_sets(sets))
    if keys:
        rows = np.lexsort([s.find_codes(key) for key in keys])
    ends = find_ends(rows, shared_keys)
    return Order(rows, ends, observed)


def list_shared_keys(sets: Sets, panel: Panel) -> list[np.ndarray]:
    """Return the keys by which sets are grouped into blocks: arrays with a value for each set.

    A block has only sets that agree in all keys, as one code simulates them, with the same texts
    and the same rules of margin.

    - Numbers of policies may differ, so they are no keys.
    - Texts of policies are keys, but for those that only choose what a policy observes.
    - Terms of account and venue, such as ``account.capital``, are keys. Those in OWN_TERMS may
      differ, but must be on (over 0) in all sets of a block or off in all: that is their key.
    """
    # A taker fee that is part of the margin requirement is not a lane's own: lanes share those.
    own_terms = OWN_TERMS
    if any(venue.includes_close_fee for venue in list_values(panel.varied.venue)):
        own_terms = OWN_TERMS - {"venue.fees.taker"}

    observed_texts = find_observed_texts(panel.varied.policy_class)
    shared_keys = []
    for name, values in sets.items():
        owner, _ = split_name(name)
        is_shared_term = bool(owner) and name not in own_terms
        is_text = values.dtype == object
        is_shared_text = is_text and name not in observed_texts
        if is_shared_term or is_shared_text:
            shared_keys.append(values)

    # A term that may differ, such as a stop, a band or a lot, is off at 0: all lanes of a block
    # have it, or none has.
    for name, values in sets.items():
        if name in own_terms and values.dtype != object:
            has_one = values > 0.0
            shared_keys.append(has_one)
    return shared_keys


def split_panel(
    sets: Sets, panel: Panel, has_returns: bool, block_size: int, memory: float
) -> Iterator[SetTask]:
    """Yield the tasks of the sets of a panel: blocks of lanes where they fit, else single sets.

    A block has at most ``block_size`` sets, and at least LEAST_LANES; its columns take at most
    ``memory`` bytes. Only the task of a block has a ``setup``, that of its first set.
    """
    # How long the sweep takes without lanes, in bars: for each set those of its market, and the
    # time to set it up (SET_BARS). A short sweep does not wait until lanes are compiled.
    n_bars = len(panel.span.closes)
    n_simulated = panel.repeats * count_sets(sets) * (n_bars + SET_BARS)
    is_worth_compiling = n_simulated >= LEAST_BAR_SETS

    # Lanes share policies and overlay, so sets with policies of their own have none. A small sweep
    # takes lanes only if they are compiled already.
    has_lanes = is_worth_compiling or find_block().is_compiled()
    may_fit = has_lanes and not panel.varied.has_own(sets)
    size = max(block_size, LEAST_LANES)

    order = order_sets(sets, panel)
    for alike in s.cut_rows_at(order.rows, order.ends):
        # ``alike`` are places of sets that agree in all that a block shares. So all of them can be
        # simulated in lanes, or none: the first one is tested.
        setup = None
        parts: Iterable[IntArray] = [alike]
        if may_fit and len(alike) >= LEAST_LANES:
            setup = find_lane_setup(panel, take_sets(sets, int(alike[0])))
        if setup is not None:
            parts = cut_by_memory(alike, order.observed, setup, size, memory)

        for rows, is_block in cut_to_tasks(parts, size, fits=setup is not None):
            yield SetTask(
                rows=rows,
                sets=take_sets(sets, rows),
                panel=panel,
                has_returns=has_returns,
                setup=setup if is_block else None,
                waits_for_compiler=is_worth_compiling,
            )


def cut_to_tasks(
    parts: Iterable[IntArray], size: int, *, fits: bool
) -> Iterator[tuple[IntArray, bool]]:
    """Yield the rows of each task, and whether they make a block of lanes.

    ``parts`` are rows of sets; ``fits`` says whether lanes have their rules. Sets that do not fit,
    or are too few for a block, are a task each.
    """
    for rows in cut_to_size(parts, size):
        if fits and len(rows) >= LEAST_LANES:
            yield rows, True
            continue
        for k in range(len(rows)):
            yield rows[k : k + 1], False


def find_lane_setup(panel: Panel, values: Mapping[str, Any]) -> Setup | None:
    """Return the setup of a set if it can be simulated in lanes, else None.

    Also None if the setup is wrong: its own run gives the reason.
    """
    with suppress(BacktestError):
        setup = panel.set_up(values)
        _, deciders, _ = panel.begin(setup)
        if b.fits_lanes(setup, deciders):
            return setup
    return None


def cut_by_memory(
    rows: IntArray, observed: list[np.ndarray], setup: Setup, size: int, memory: float
) -> Iterable[IntArray]:
    """Cut rows (places of sets) into groups whose observed columns fit together into memory.

    ``observed`` are the parameters that policies observe by, each with a value for each set. Rows
    with equal values share their columns, and are neighbors: a stretch of rows. ``setup`` is that
    of the first row; the columns of all stretches are taken to be as large as its columns.
    ``memory`` is in bytes.

    A group is later cut into blocks of at most ``size`` rows. So if ``size`` different columns fit,
    all rows are one group.
    """
    n_bytes = 0
    for of_policy in setup.observed:
        n_bytes += sum(column.nbytes for column in of_policy.columns.values())

    # How many runs of rows fit. A block of ``size`` rows has at most as many runs.
    n_fitting = max(1, int(memory // max(n_bytes, 1)))
    if n_fitting >= size:
        return [rows]

    # ``ends`` has the end of each run. A group ends after ``n_fitting`` runs, and the last one,
    # which may have fewer, where the rows end.
    ends = find_ends(rows, observed)
    ends_of_full_groups = ends[n_fitting - 1 : -1 : n_fitting]
    return s.cut_rows_at(rows, np.append(ends_of_full_groups, ends[-1]))


def cut_to_size(groups: Iterable[IntArray], size: int) -> Iterator[IntArray]:
    """Yield parts of groups of at most ``size`` rows."""
    for group in groups:
        for first in range(0, len(group), size):
            yield group[first : first + size]


def find_ends(rows: IntArray, columns: list[np.ndarray]) -> IntArray:
    """Return where each stretch of equal values ends in ``rows``: places, one past its last row.

    A stretch ends where any of the ``columns`` has another value in the next row, and with the last
    row.
    """
    is_last = np.zeros(len(rows), dtype=np.bool_)
    is_last[-1:] = True
    for column in columns:
        codes = s.find_codes(column[rows])
        is_last[:-1] |= codes[1:] != codes[:-1]
    return np.flatnonzero(is_last) + 1


def score_task(
    names: tuple[str, ...], task: SetTask | IntArray, is_stopped: Callable[[], bool]
) -> list[Found]:
    """Score the sets of a task: side by side as a block of lanes if they make one, else one by one.

    Returns pairs, one for the block or one for each set: its rows in the sweep, and its scores.
    Scores are None if the sweep was stopped, and BlockFault if a run of the set must give the
    error. A task of rows alone, whose panel cannot be made, is such a fault.
    """
    if not isinstance(task, SetTask):
        return [(task, BlockFault())]

    # A block that fails says nothing of which set failed: its sets are scored one by one instead.
    if task.setup is not None:
        with suppress(BacktestError, BlockFault):
            return [(task.rows, score_lanes(names, task, task.setup, is_stopped))]

    # Each set in the loop of a run, as a task of one row.
    scored: list[Found] = []
    for k in range(len(task.rows)):
        one = task._replace(rows=task.rows[k : k + 1], sets=take_sets(task.sets, k))
        scored.append((one.rows, score_set(names, one, is_stopped)))
    return scored


def score_lanes(
    names: tuple[str, ...], task: SetTask, first: Setup, is_stopped: Callable[[], bool]
) -> Scored | None:
    """Score the sets of a task side by side, as a block of lanes; None if the sweep was stopped.

    ``first`` is the setup of its first set. Raises BlockFault if the sets share too little for a
    block, or if a formula is not compiled and the task does not wait for the compiler.
    """
    panel = task.panel
    setups = panel.set_up_lanes(first, list_sets(task.sets))
    check_shared(setups)

    varied = find_varied(task.sets)
    columns = b.join_columns(setups)
    formulas = locate_formulas(task, setups[0], frozenset(varied), columns)

    # The memory of a thread: its blocks are scored in it one after another.
    with panel.lend_room() as lent:
        block = b.Block(
            setups=setups,
            varied=varied,
            deciders=panel.find_deciders(first),
            addresses=formulas.addresses,
            columns=columns,
            has_own_columns=formulas.has_own_columns,
            warm_ups=b.find_warm_ups(setups, len(panel.markets)),
            span=panel.span,
            has_returns=task.has_returns,
            is_full=bool(EXPOSED & {*names}),
            table=panel.find_table(setups[0]),
            lent=lent,
        )
        return b.score_block(names, block, is_stopped)


def list_sets(sets: Sets) -> list[dict[str, Any]]:
    """Return the sets one by one, each with its values as Python has them."""
    columns = [column.tolist() for column in sets.values()]
    return [dict(zip(sets, values, strict=True)) for values in zip(*columns, strict=True)]


def find_varied(sets: Sets) -> dict[str, list[Any]]:
    """Return the parameters in which sets differ, each with its values by set.

    Only numbers: texts that differ within a block are read by no formula, just by what observes.
    """
    varied = {}
    for name, column in sets.items():
        values = column.tolist()
        if column.dtype != object and len(set(values)) > 1:
            varied[name] = values
    return varied


def check_shared(setups: list[Setup]) -> None:
    """Raise BlockFault unless some setups have in common what the lanes of a block share.

    That is terms and feed (:func:`.block.list_shared`), and the names of the columns observed.
    """
    # Setups with the same object as their inputs have them in common.
    by_inputs = {id(setup.inputs): setup for setup in setups}
    first, *others = by_inputs.values()
    for other in others:
        if not b.is_same(b.list_shared(first), b.list_shared(other)):
            raise BlockFault

    # A parameter that is a text may choose which columns a policy observes, so names may differ.
    names_of_first = [tuple(observed.columns) for observed in setups[0].observed]
    for setup in setups:
        names = [tuple(observed.columns) for observed in setup.observed]
        if names != names_of_first:
            raise BlockFault


class BlockFormulas(NamedTuple):
    """The addresses of the formulas of a block, one of each policy, and what they read.

    With ``has_own_columns`` each lane has columns of its own, else all have those of the first.
    """

    addresses: list[int]
    has_own_columns: bool


def locate_formulas(
    task: SetTask, setup: Setup, varied: frozenset[str], columns: list[list[FloatArray]]
) -> BlockFormulas:
    """Return the addresses of the compiled formulas of a block, one for each of its policies.

    ``setup`` is that of the first set, ``varied`` the parameters that differ between the sets, and
    ``columns`` what each set observes, by set and policy.

    There are two kinds of formulas. A fast one is written for what the sets vary: other parameters
    are read once for all lanes, or are constants. The general one, in which all numbers vary,
    serves every sweep, so an earlier one may have compiled it. A long sweep compiles the fast ones.
    A short one does not wait for the compiler: it takes whichever kind is compiled. Raises
    BlockFault if neither is; the sets are then run one by one.
    """
    swept = frozenset(task.sets)  # the names of the sweep's parameters
    columns_differ = b.has_own_columns(columns)
    with COMPILER_LOCK:
        recipes = write_formulas(setup, varied, swept, has_own_columns=columns_differ)
        if task.waits_for_compiler or all(map(is_formula_compiled, recipes)):
            return BlockFormulas([*map(locate_lane_formula, recipes)], columns_differ)

        # The general formulas read the columns of each lane, or those of the first lane for all.
        # Columns that are equal may be read either way, different ones only lane by lane.
        ways = (True,) if columns_differ else (True, False)
        for has_own_columns in ways:
            recipes = write_general_formulas(setup, has_own_columns=has_own_columns)
            if all(map(is_formula_compiled, recipes)):
                return BlockFormulas([*map(locate_lane_formula, recipes)], has_own_columns)
    raise BlockFault


def write_formulas(
    setup: Setup, varied: frozenset[str], swept: frozenset[str], *, has_own_columns: bool
) -> list[Recipe]:
    """Return the formulas of a setup, one a policy, for what its sets vary: texts and names."""
    recipes = []
    for observed in setup.observed:
        columns = tuple(observed.columns)
        recipe = write_lane_formula(
            observed.policy,
            columns,
            varied,
            swept,
            fields_read=b.find_read(observed.policy, columns),
            has_own_columns=has_own_columns,
        )
        recipes.append(recipe)
    return recipes


def write_general_formulas(setup: Setup, *, has_own_columns: bool) -> list[Recipe]:
    """Return the formulas of a setup, one a policy, that serve every sweep: texts and names."""
    recipes = []
    for observed in setup.observed:
        columns = tuple(observed.columns)
        read = b.find_read(observed.policy, columns)
        recipe = write_general_formula(
            observed.policy, columns, read, has_own_columns=has_own_columns
        )
        recipes.append(recipe)
    return recipes


def score_set(
    names: tuple[str, ...], task: SetTask, is_stopped: Callable[[], bool]
) -> Scored | BlockFault | None:
    """Score one parameter set by the loop of a single run; None if the sweep was stopped.

    Returns BlockFault if the run fails. The task has one row, and ``names`` are the measures
    wanted. The answer has the shapes of a block of one lane: measures of shape (1,), returns of
    shape (samples, 1).
    """

    def go_on(_done: int, _all: int) -> None:
        """Raise Stopped where the sweep must stop; the loop calls it after each chunk of bars."""
        if is_stopped():
            raise Stopped

    panel = task.panel
    try:
        setup = panel.set_up(task.sets)
        state, deciders, tally = panel.begin(setup)
        equity_at_start = np.array([state.wallet.equity])
        with panel.lend_room() as lent:
            units = measure_account(
                setup.inputs,
                state,
                deciders,
                tally,
                panel.first,
                has_units=task.has_returns,
                progress=go_on,
                simulate=lent.simulate,
            )
    except BacktestError:
        return BlockFault()
    except Stopped:
        return None

    numbers = {name: np.array([value]) for name, value in tally.to_dict().items()}
    wallets = state.wallet.numbers[None]
    metrics = b.measure_wallets(names, panel.span, numbers, wallets, equity_at_start)
    returns = np.zeros(0)
    if task.has_returns:
        ends = setup.inputs.clock.ends_sample[panel.first :]
        returns = sampled_returns(units, ends, tally.first_unit)

    has_traded = bool(numbers["traded"][0] > 0.0)
    decided = measure_observed(setup.observed, panel.markets, panel.first, has_traded=has_traded)
    return Scored(metrics, returns[:, None], np.array([decided]))


def count_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
