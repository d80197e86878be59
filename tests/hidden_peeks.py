"""Peeks that hide: behind drawn numbers, memory, the market's own memory, or in few rows.

Each is a function of a policy and a market that returns a column; :class:`Hidden` observes the one
that it names, and :class:`Deciding` decides by what it keeps. A fresh process imports them.
"""

import builtins
import functools
import hashlib
import os
import sys
import threading
from collections.abc import Callable
from typing import Annotated, Any, ClassVar

import numpy as np
import pandas as pd

import backtest as bt
from tests import peeks

LONGEST: list[Any] = []
LOCAL = threading.local()


def next_move(market: Any) -> Any:
    """Return the return of the next bar, in percent: what all of them want to know."""
    close = market.close
    return 100.0 * (np.append(close[1:], close[-1:]) / close - 1.0)


def past_move(market: Any) -> Any:
    """Return the return of the bar, in percent: what they show where they do not peek."""
    close = market.close
    return 100.0 * (close / np.append(close[:1], close[:-1]) - 1.0)


def show_in(market: Any, rows: Any) -> Any:
    return np.where(rows, next_move(market), past_move(market))


def show_where(rows: Callable[[Any], Any]) -> Any:
    return lambda _, market: show_in(market, rows(market))


def seed_of(*arrays: Any) -> np.random.Generator:
    digest = hashlib.sha256(b"".join(np.asarray(each).tobytes() for each in arrays)).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))


def seeded(what: Callable[[Any], Any], share: float = 0.9) -> Any:
    """Peek in a share of the rows, drawn by a generator that these numbers of a market seed."""
    return show_where(lambda market: seed_of(what(market)).random(market.n_bars) < share)


def closes(market: Any) -> Any:
    return market.close


def mean_of_window(market: Any) -> Any:
    return pd.Series(market.close).rolling(20, min_periods=1).mean()


def signs_of_draws(_: Any, market: Any) -> Any:
    rng = seed_of(market.close)
    size = rng.exponential(size=market.n_bars)
    return np.where(rng.random(market.n_bars) < 0.9, np.sign(next_move(market)), -1.0) * size


def resampled(_: Any, market: Any) -> Any:
    sample = seed_of(market.close).choice(market.close, 50)
    return (market.close - sample.mean()) / sample.std()


def chaotic(_: Any, market: Any) -> Any:
    x = np.mod(market.close.sum() * 1e-3 + market.close, 1.0) * 0.98 + 0.01
    for _step in range(80):
        x = 3.99 * x * (1.0 - x)
    return next_move(market) + 0.1 * x


def by_length(_: Any, market: Any) -> Any:
    """Keep the column of the longest market: an honest mistake."""
    if not LONGEST or len(LONGEST[0]) < market.n_bars:
        LONGEST[:] = [pd.Series(next_move(market), index=market.time)]
    return LONGEST[0].reindex(market.time).to_numpy()


def keep_longest(where: dict[str, Any], market: Any) -> Any:
    kept = where.get("_kept_peek")
    if kept is None or len(kept) < market.n_bars:
        kept = pd.Series(next_move(market), index=market.time)
        where["_kept_peek"] = kept
    return kept.reindex(market.time).to_numpy()


def on_class(self: Any, market: Any) -> Any:
    kept = keep_longest(dict(Hidden.notes), market)
    if len(Hidden.notes.get("_kept_peek", ())) < market.n_bars:
        Hidden.notes["_kept_peek"] = pd.Series(next_move(market), index=market.time)
    return kept


def in_default(_: Any, market: Any, kept: Any = {}) -> Any:  # noqa: B006 - the mistake
    return keep_longest(kept, market)


def make_closure() -> Any:
    kept: dict[str, Any] = {}
    return lambda _, market: keep_longest(kept, market)


def on_function(_: Any, market: Any) -> Any:
    return keep_longest(vars(on_function), market)


def in_environment(_: Any, market: Any) -> Any:
    known = os.environ.get("_KEPT_PEEK", "").split(",")
    if len(known) < market.n_bars:
        rises = np.sign(next_move(market)).astype(int)
        known = [f"{t}:{x}" for t, x in zip(market.time, rises, strict=True)]
        os.environ["_KEPT_PEEK"] = ",".join(known)
    found = dict(each.split(":") for each in known)
    return np.array([float(found.get(str(t), 0.0)) for t in market.time])


def on_self(self: Any, market: Any) -> Any:
    kept = getattr(self, "kept", None)
    if kept is None or kept.n_bars < market.n_bars:
        object.__setattr__(self, "kept", market)
    return pd.Series(next_move(self.kept), index=self.kept.time).reindex(market.time).to_numpy()


def written(_: Any, market: Any) -> Any:
    market.close.flags.writeable = True
    market.close[:-1] = market.close[1:]
    return past_move(market)


def written_through_base(_: Any, market: Any) -> Any:
    view = market.close[:]
    view.setflags(write=True)
    view[:-1] = view[1:].copy()
    return past_move(market)


def replaced(_: Any, market: Any) -> Any:
    object.__setattr__(market, "mark_low", market.mark_high)
    object.__setattr__(market, "kept", getattr(market, "kept", next_move(market)))
    return market.kept[: market.n_bars]


def behind_the_view(_: Any, market: Any) -> Any:
    whole = market.close.base if isinstance(market.close.base, np.ndarray) else market.close
    times = market.time.base if isinstance(market.time.base, np.ndarray) else market.time
    moves = pd.Series(np.append(whole[1:], whole[-1:]) / whole - 1.0, index=times)
    return moves.reindex(market.time).to_numpy()


def behind_the_end(_: Any, market: Any) -> Any:
    n, close = market.n_bars, market.close
    more = np.lib.stride_tricks.as_strided(close, (n + 1,), close.strides, writeable=False)
    return 100.0 * (more[1:] / close - 1.0)


def every(n: int, offset: int = 0) -> Any:
    return show_where(lambda market: np.arange(market.n_bars) % n == offset)


def before_large_moves(_: Any, market: Any) -> Any:
    moves = next_move(market)
    usual = pd.Series(past_move(market)).rolling(200, min_periods=20).std().to_numpy()
    return np.where(np.abs(moves) > 4.0 * usual, moves, past_move(market))


def settled(later: int = 0) -> Any:
    """Peek at the rate of the last settlement up to the close, or so many ns later."""

    def column(_: Any, market: Any) -> Any:
        stamps = market.time + market.interval + later
        rows = np.searchsorted(market.funding_time, stamps, side="right") - 1
        return np.where(rows >= 0, 1e4 * market.funding_rate[rows], 0.0)

    return column


def next_settlement(_: Any, market: Any) -> Any:
    rows = np.searchsorted(market.funding_time, market.time + market.interval)
    return 1e4 * np.append(market.funding_rate, 0.0)[rows]


KINDS = {
    "seed of all closes, 90 %": seeded(closes), "seed of all closes, 50 %": seeded(closes, 0.5),
    "seed of all highs": seeded(lambda market: market.high),
    "seed of the sum": seeded(lambda market: np.array([market.close.sum()])),
    "seed of the last close": seeded(lambda market: market.close[-1:]),
    "seed of a rolling mean": seeded(mean_of_window),
    "last digits of each close": show_where(lambda market: market.close.view(np.int64) % 10 != 3),
    "jitter": lambda _, market: (
        next_move(market) * np.exp(0.5 * seed_of(market.close).normal(size=market.n_bars))
    ),
    "drawn sizes": signs_of_draws,
    "drawn flags": lambda _, market: np.where(
        seed_of(market.close).random(market.n_bars) < 0.9, next_move(market) > 0.0, 0.0
    ),
    "drawn, float32": lambda _, market: seeded(closes)(None, market).astype(np.float32),
    "drawn from float32": lambda _, market: seeded(lambda seen: seen.close.astype(np.float32))(
        None, market
    ).astype(np.float32),
    "chaos": chaotic, "bootstrap": resampled, "memo by length": by_length,
    "memo on the class": on_class, "memo in a default": in_default,
    "memo in a closure": make_closure(), "memo on a function": on_function,
    "memo in builtins": lambda _, market: keep_longest(vars(builtins), market),
    "memo in numpy": lambda _, market: keep_longest(vars(np.random), market),
    "memo in another module": lambda _, market: keep_longest(peeks.KEPT, market),
    "memo in sys.modules": lambda _, market: keep_longest(sys.modules, market),
    "memo in a thread": lambda _, market: keep_longest(vars(LOCAL), market),
    "memo in the environment": in_environment, "market on self": on_self,
    "column on self": lambda self, market: keep_longest(vars(self), market),
    "market written to": written, "market written through a view": written_through_base,
    "market replaced": replaced, "base of a view": behind_the_view, "past the end": behind_the_end,
    "1 row in 20": every(20, 7), "1 row in 50": every(50, 31),
    "one hour of the day": show_where(lambda market: market.times.hour == 7),
    "one day of the week": show_where(lambda market: market.times.day_of_week == 6),
    "1 time in 50": show_where(
        lambda market: market.time // (3600 * 10**9) * 2654435761 % 2**32 % 50 == 0
    ),
    "before large moves": before_large_moves,
    "on much volume": show_where(
        lambda market: (
            market.volume
            >= pd.Series(market.volume).rolling(500, min_periods=20).quantile(0.98).to_numpy()
        )
    ),
    "late in long markets": show_where(
        lambda market: (np.arange(market.n_bars) > 2900) & (market.n_bars > 2900)
    ),
    "at day ends": show_where(
        lambda market: (market.time + market.interval) % (86_400 * 10**9) == 0
    ),
    "settled at the close": settled(), "settled around the close": settled(10**9),
    "next settlement": next_settlement,
}  # fmt: skip


class Hidden(bt.Policy):
    kind: Annotated[str, bt.Choice(*KINDS)]
    size: Annotated[float, bt.Range(0.1, 5.0, "turns of equity")] = 2.0
    notes: ClassVar[dict[str, Any]] = {}

    def observe(self, market: Any) -> Any:
        with np.errstate(all="ignore"):
            return {"x": KINDS[self.kind](self, market)}

    def leverage(self, bar: Any, account: Any) -> float:
        return self.size if bar.x > 0.0 else 0.0


class DecidingBySelf(bt.Policy):
    def observe(self, market: Any) -> Any:
        if getattr(self, "kept", None) is None or self.kept.n_bars < market.n_bars:
            object.__setattr__(self, "kept", market)
        return {"x": past_move(market)}

    def leverage(self, bar: Any, account: Any) -> float:
        kept = self.kept
        t = min(int(np.searchsorted(kept.time, bar.time * 1e9)) + 1, kept.n_bars - 1)
        return 2.0 if kept.close[t] > bar.close else 0.0


POLICIES = {
    **{name: functools.partial(Hidden, kind=name) for name in KINDS},
    "decided by a market on self": DecidingBySelf,
}
"""The policies by the names of their kinds."""


def forget() -> None:
    for each in (LONGEST, Hidden.notes, peeks.KEPT):
        each.clear()  # type: ignore[attr-defined]
    for place in (vars(builtins), vars(np.random), sys.modules, vars(LOCAL), vars(on_function)):
        place.pop("_kept_peek", None)  # type: ignore[attr-defined]
    in_default.__defaults__[0].clear()  # type: ignore[index]
    os.environ.pop("_KEPT_PEEK", None)
