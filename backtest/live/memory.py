"""What policies remember between decisions: read from a file, or rebuilt from history."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.base import (
    Either,
    FloatArray,
    ParameterError,
    Phrase,
    format_time,
    from_plain,
    to_plain,
    write_file,
)
from backtest.engine import Glimpse, ObservedPolicy, place_funding, read_index
from backtest.engine.portfolio_policies import BAR_NUMBERS
from backtest.live.facts import find_account_reads
from backtest.policy import AccountView, bind_plain, start_memory

if TYPE_CHECKING:
    from backtest.engine import Setup

Numbers = list[tuple[float, ...]]


class Remembered(NamedTuple):
    """What each policy remembers before the decision of the last close, and how it is known."""

    numbers: Numbers
    text: str


def start_numbers(setup: Setup) -> Numbers:
    """Return what the policies remember at first."""
    return [tuple(map(float, start_memory(p.policy) or ())) for p in setup.observed]


def name_policies(setup: Setup) -> list[str]:
    """Return a name for each policy: its instrument, or the overlay."""
    names = list(setup.markets.names)
    return [*names, "overlay"][: len(setup.observed)]


def recall(setup: Setup, file: Path | None) -> Remembered:
    """Return what the policies remember before the decision of the last close."""
    first = start_numbers(setup)
    if not any(first):
        return Remembered(first, "")
    if file is not None and file.exists():
        return Remembered(read_memory(setup, file, first), f"memory of {file.name}")
    reading = [p for p, kept in zip(setup.observed, first, strict=True) if kept and reads(p)]
    if not reading:
        rebuilt = [rebuild(setup, i) if kept else kept for i, kept in enumerate(first)]
        return Remembered(rebuilt, f"memory rebuilt from {setup.markets.n_bars:,} bars")
    if file is not None:
        return Remembered(first, f"memory begins now, in {file.name}")
    kind = type(reading[0].policy).__name__
    raise ParameterError(
        f"{kind} remembers what it saw of the account, which history cannot rebuild, got no memory",
        where="bt.decide, memory",
        cure=Phrase(
            "keep it between decisions with {}", Either("memory='policy.json'", "--state FILE")
        ),
    )


def reads(policy: ObservedPolicy) -> bool:
    """Return whether a policy reads anything of the account that its market does not give."""
    return bool(find_account_reads(policy.policy) - {"venue"})


def rebuild(setup: Setup, i: int) -> tuple[float, ...]:
    """Return what a policy remembers that was asked at every close but the last one."""
    policy = setup.observed[i]
    decide = bind_plain(policy.policy, tuple(policy.columns))
    columns, kept = tuple(policy.columns.values()), start_memory(policy.policy)
    numbers = tuple(map(float, kept))
    nothing = (math.nan,) * (len(AccountView._fields) - 1)
    view = AccountView._make((*nothing, None))
    bars, time = list_bars(setup, i), policy.market.time.tolist()
    with np.errstate(all="ignore"):
        for t in range(policy.market.n_bars - 1):
            seen = Glimpse(time[t], t, bars[:, t])
            _, numbers = decide(None, columns, numbers, seen, view, float(bars[6, t]), t)
    return tuple(numbers)


def list_bars(setup: Setup, i: int) -> FloatArray:
    """Return the bars that a policy saw, of shape (7, n_bars)."""
    policy, n = setup.observed[i], len(setup.markets)
    if i == n:
        return read_index(setup.observed, n, setup.markets.n_bars)
    market = policy.market
    names = ["mark_close" if name == "mark" else name for name in BAR_NUMBERS[:-1]]
    paid = place_funding(market, setup.venues[setup.markets.names[i]], 0)
    known = np.searchsorted(paid["funding_bar"], np.arange(market.n_bars), side="right") - 1
    rates = np.concatenate([paid["funding_rate"], [math.nan]])
    return np.stack([*(getattr(market, name) for name in names), rates[known]])


# ------------------------------------------------------------------------------------- the file


def read_memory(setup: Setup, file: Path, first: Numbers) -> Numbers:
    """Return what a file says the policies remember before the decision of the last close."""
    last = int(setup.markets.time[-1])
    data = load(file)
    stamp, names = int(data["time"]), name_policies(setup)
    before = last - int(setup.markets.time[-2]) if setup.markets.n_bars > 1 else 0
    if stamp not in (last, last - before):
        raise ParameterError(
            f"the memory must be that of the last close or the one before, {format_time(last)}, "
            f"got {format_time(stamp)}",
            where=str(file),
            cure="decide at every close, or delete the file to begin anew",
        )
    kept = data["before"] if stamp == last else data["after"]
    sizes = {name: len(numbers) for name, numbers in zip(names, first, strict=True)}
    if {name: len(numbers) for name, numbers in kept.items()} != sizes:
        raise ParameterError(
            f"the memory must be of these policies, {sizes}, got that of others",
            where=str(file),
            cure="give each policy a file of its own, or delete this one to begin anew",
        )
    return [tuple(map(float, kept[name])) for name in names]


def load(file: Path) -> dict[str, Any]:
    """Return the content of a file of memory."""
    try:
        data: dict[str, Any] = from_plain(json.loads(file.read_text(encoding="utf-8")))
        is_whole = {"time", "before", "after"} <= set(data)
    except (OSError, ValueError, TypeError) as error:
        raise report_file(file, error) from error
    if not is_whole:
        raise report_file(file, "other entries")
    return data


def report_file(file: Path, found: object) -> ParameterError:
    """Return the error of a file that holds no memory."""
    return ParameterError(
        f"the memory of policies must be a file that bt.decide wrote, got {found}",
        where=str(file),
        cure="give another file, or delete it to begin anew",
    )


def keep_memory(setup: Setup, file: Path, before: Numbers, after: Numbers) -> None:
    """Write what the policies remember before and after the decision of the last close."""
    names = name_policies(setup)
    data = {
        "time": int(setup.markets.time[-1]),
        "before": dict(zip(names, before, strict=True)),
        "after": dict(zip(names, after, strict=True)),
    }
    write_file(file, (json.dumps(to_plain(data), indent=1) + "\n").encode("utf-8"))
