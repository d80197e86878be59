"""Peeks that hide: behind drawn numbers, memory, the market's own memory, or in few rows.

Each is a function of a policy and a market that returns a column; :class:`Hidden` observes the one
that it names, and :class:`DecidingBySelf` decides by what it keeps. One stands for each way to
hide: where a memory is kept makes no difference to the check.
"""

import functools
import hashlib
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import pandas as pd

import backtest as bt

LONGEST: list[Any] = []


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
    close = market.close
    shape = (market.n_bars + 1,)
    longer = np.lib.stride_tricks.as_strided(close, shape, close.strides, writeable=False)
    return 100.0 * (longer[1:] / close - 1.0)


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
    "seed of all closes, 50 %": seeded(closes, 0.5),
    "seed of the last close": seeded(lambda market: market.close[-1:]),
    "last digits of each close": show_where(lambda market: market.close.view(np.int64) % 10 != 3),
    "drawn, float32": lambda _, market: seeded(closes)(None, market).astype(np.float32),
    "chaos": chaotic, "bootstrap": resampled, "memo by length": by_length,
    "market on self": on_self, "market written to": written,
    "market written through a view": written_through_base, "market replaced": replaced,
    "base of a view": behind_the_view, "past the end": behind_the_end, "1 row in 50": every(50, 31),
    "one day of the week": show_where(lambda market: market.times.day_of_week == 6),
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
    "settled around the close": settled(10**9), "next settlement": next_settlement,
}  # fmt: skip


class Hidden(bt.Policy):
    kind: Annotated[str, bt.Choice(*KINDS)]
    size: Annotated[float, bt.Range(0.1, 5.0, "turns of equity")] = 2.0

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
