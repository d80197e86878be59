"""Count the bars of a run of one position whose order matters, without living every bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from backtest.account import (
    Feed,
    InstrumentRules,
    Position,
    Watch,
    find_adverse,
    find_side,
    quote_bar,
)
from backtest.account.ledger import LIQUIDATED, STOP_KINDS
from backtest.engine import (
    LoopStart,
    Outcome,
    Result,
    build_compiled,
    build_plain,
    find_loop_start,
    observe,
    run_chunks,
    write_recipe,
)
from backtest.engine.loop_driver import CHUNK, PLAIN_CHUNK
from backtest.risk.bounds.bounds_position import PositionOrders, may_stop


def count_ambiguous_bars(orders: PositionOrders) -> int:
    advance, count = find_loop(orders), 0
    begin = find_loop_start(None, orders.result.account, orders.policy, orders.first)
    for t in list_suspects(orders):
        if t > begin.first:
            reached = advance(begin, t)
            begin = LoopStart(reached.state, reached.memory, t)
        lane = orders.begin()._replace(state=begin.state, memory=begin.memory)
        orders.rules = orders.inputs.at(t + 1).rules
        count += bool(orders.pass_bar(lane, t).others)
    return count


def find_loop(orders: PositionOrders) -> Callable[[LoopStart, int], Outcome]:
    policy, columns = orders.policy, observe(orders.policy, orders.market)
    is_compiled = orders.result.manifest["compiled"] == "yes"

    def advance(begin: LoopStart, stop: int) -> Outcome:
        inputs = orders.inputs.at(begin.first)
        if not is_compiled:
            return run_chunks(
                build_plain(policy, inputs, columns), begin, stop, None, "", PLAIN_CHUNK
            )
        recipe = write_recipe(policy, tuple(columns))
        return run_chunks(
            build_compiled(policy, inputs, columns, recipe), begin, stop, None, "", CHUNK
        )

    return advance


def list_suspects(orders: PositionOrders) -> list[int]:
    result, feed, first = orders.result, orders.inputs.feed, orders.first
    after = result.of_positions("quantity")[:, 0]
    before = np.concatenate(([0.0], after[:-1]))
    is_suspect = np.zeros(len(after), np.bool_)
    entries = np.asarray(result.entries)
    forced = np.isin(entries[:, 1], (LIQUIDATED, *STOP_KINDS))
    is_suspect[entries[forced, 0].astype(np.int64) - first] = True
    inside = np.asarray(feed.funding_bar)[np.asarray(feed.funding_is_open) == 0] - first
    is_suspect[inside] |= (before != 0.0)[inside] | (after != 0.0)[inside]
    instrument = orders.inputs.rules.instrument
    if instrument.trailing_stop > 0.0:
        is_suspect[[*find_trailing(instrument, feed, result, first)]] = True
    found = np.flatnonzero(is_suspect) + first
    return [int(t) for t in found if t > 0]


def find_trailing(
    instrument: InstrumentRules, feed: Feed, result: Result, first: int
) -> Iterator[int]:
    held, entries = result.of_positions("quantity")[:, 0], result.of_positions("entry")[:, 0]
    last = 0.0
    for row in np.flatnonzero(held):
        t = first + int(row)
        position = Position(float(held[row]), float(entries[row]), 0.0, 0.0)
        quote, side = quote_bar(instrument, feed, t), find_side(position)
        reached = find_adverse(position, quote.high, quote.low)
        goes_on = row > 0 and held[row - 1] * side > 0.0
        is_better = not goes_on or (reached - last) * side > 0.0
        last = reached if is_better else last
        if may_stop(instrument, position, quote, Watch(last, 0.0)):
            yield int(row)
