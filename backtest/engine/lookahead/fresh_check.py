"""Compare what was observed in this process with what a fresh one observes, once per code."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from backtest.account import Account
from backtest.base import (
    FloatArray,
    IntArray,
    PolicyError,
    find_lasting_folder,
    format_time,
    hash_texts,
    read_bytes,
    write_file,
)
from backtest.engine.lookahead.causality_checker import CausalityChecker
from backtest.engine.lookahead.code_origin import (
    CodeOrigin,
    NoSourceError,
    find_origin,
    hash_file,
)
from backtest.engine.lookahead.fresh_process import FreshProcess, FreshProcessError
from backtest.engine.lookahead.peek_errors import MarketPart
from backtest.engine.lookahead.rounding_noise import (
    UNSTABLE,
    find_differences,
    find_unstable_share,
    leave_out_spread,
)
from backtest.market import Market, Markets
from backtest.policy import Policy, start_memory
from backtest.venue import Venue

IS_FRESH = False
SAME = "the same in a fresh process"
NOT_COMPARED = "not compared with a fresh process"
VERSION = "1"
CURE = (
    "compute from the market that is given and from parameters alone: keep no cache, global, class "
    "attribute or market between calls, and fit nothing once for all parts"
)
_NOTES: dict[str, str] = {}


def compare_fresh(
    checker: CausalityChecker, subject: Any, policy: Policy | None, is_forced: bool
) -> str:
    origin = None if IS_FRESH else find_origin(subject)
    if origin is None:
        return ""
    note = None if is_forced else recall(origin)
    if note is None:
        checker.cut_densely()
        note = compare_in_process(checker, subject, policy, origin)
    return note


def is_known(subject: Any) -> bool:
    origin = None if IS_FRESH else find_origin(subject)
    return origin is None or recall(origin) is not None


def compare_in_process(
    checker: CausalityChecker, subject: Any, policy: Policy | None, origin: CodeOrigin
) -> str:
    note, files = SAME, {}
    try:
        with FreshProcess(origin, subject) as process:
            process.ask("make")
            parts = sorted(checker.parts, key=lambda part: part.stop)
            for k, part in enumerate(parts):
                compare_part(checker, part, process.ask("observe", checker.take(*part[:2])))
                if k == 0 and policy is not None:
                    compare_decisions(checker, part, policy, process)
            files = process.ask("files")
    except NoSourceError as error:
        _NOTES[origin.key] = note = f"{NOT_COMPARED}: {error}"
        return note
    except FreshProcessError as error:
        note = f"{NOT_COMPARED}, which `backtest check` tries again: {error}"
    remember(origin, note, files)
    return note


def compare_part(checker: CausalityChecker, part: MarketPart, fresh: Any) -> None:
    if fresh is None:
        raise FreshProcessError("it raises there (does it write, start a process or connect?)")
    for name, seen in part.seen.items():
        again = fresh.get(name)
        rows = np.arange(1) if again is None else leave_out_rounding(checker, part, name, again)
        if len(rows):
            row = int(rows[0])
            value = "unknown" if again is None else repr(float(again[row]))
            what = f"column {name!r} is" if name else "it is"
            raise refuse(checker, part.first + row, f"{what} {float(seen[row])!r}", value)


def leave_out_rounding(
    checker: CausalityChecker, part: MarketPart, name: str, fresh: FloatArray
) -> IntArray:
    def observe_column(market: Market | Markets) -> FloatArray | None:
        return (checker.observe(market) or {}).get(name)

    seen = part.seen[name]
    rows = find_differences(seen, fresh)
    if len(rows) == 0:
        return rows
    market = checker.take(part.first, part.stop)
    is_wide = len(rows) > UNSTABLE * len(seen)
    if is_wide and find_unstable_share(observe_column, market, seen) > UNSTABLE:
        return rows
    return leave_out_spread(observe_column, market, rows, seen, fresh)


def compare_decisions(
    checker: CausalityChecker, part: MarketPart, policy: Policy, process: FreshProcess
) -> None:
    stop = min(part.stop + BARS, checker.market.n_bars)
    market = checker.take(part.first, stop)
    columns = checker.observe(market)
    if not isinstance(market, Market) or columns is None:
        return
    try:
        ours = decide(policy, market, columns)
    except Exception:  # the account of the probe may not suit it; its run shows its own errors
        return
    theirs: FloatArray = process.ask("decide", (policy, market, columns))
    rows = find_differences(ours, theirs)
    if len(rows):
        row = int(rows[0])
        values = f"the leverage is {float(ours[row])!r}", repr(float(theirs[row]))
        raise refuse(checker, part.first + row, *values)


def refuse(checker: CausalityChecker, bar: int, ours: str, theirs: str) -> PolicyError:
    errors = checker.errors
    return PolicyError(
        f"{errors.name} keeps something between calls: {ours} in this process, {theirs} in a fresh "
        f"one that is given the same bars, at bar {bar}, "
        f"{format_time(int(errors.market.time[bar]))} UTC; {CURE}"
    )


# -------------------------------------------------------------------------------- notes of the past


def recall(origin: CodeOrigin) -> str | None:
    if origin.key in _NOTES:
        return _NOTES[origin.key]
    place = find_place(origin)
    content = None if place is None else read_bytes(place)
    try:
        kept = json.loads(content or b"")
        is_same = all(hash_file(file) == digest for file, digest in kept["files"].items())
        note = str(kept["note"]) if is_same else None
    except (ValueError, KeyError, TypeError, AttributeError):  # none, or a damaged one
        return None
    if note is not None:
        _NOTES[origin.key] = note
    return note


def remember(origin: CodeOrigin, note: str, files: dict[str, str]) -> None:
    _NOTES[origin.key] = note
    place = find_place(origin)
    if place is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_file(place, json.dumps({"note": note, "files": files}).encode())


def find_place(origin: CodeOrigin) -> Path | None:
    folder = find_lasting_folder()
    name = f"{hash_texts(VERSION, origin.key)}.json"
    return None if folder is None else folder / "fresh" / name


BARS = 256
"""Bars after the end of the part that was observed, at which a policy decides."""


def decide(policy: Policy, market: Market, columns: Mapping[str, FloatArray]) -> FloatArray:
    """Return the leverage that a policy decides in plain Python, of shape (n_bars,)."""
    from backtest.engine.loop_driver import LoopStart, run_loop  # noqa: PLC0415 - they import the check
    from backtest.engine.loop_inputs import read_inputs, start_state  # noqa: PLC0415

    venue, account = Venue.preset("binance-usdm", "BTCUSDT"), Account()
    inputs = read_inputs(
        market,
        venue,
        account,
        signal=np.ones(1),
        sampling="1d",
        first=0,
        started=market.start,
    )
    begin = LoopStart(start_state(account), tuple(map(float, start_memory(policy) or ())), 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = (policy, inputs, columns, begin)
        outcome = run_loop(*given, stop=market.n_bars, is_compiled=False, progress=None)
    return outcome.of_positions("target")[:, 0].copy()
