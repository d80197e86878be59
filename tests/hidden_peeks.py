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
from typing import Annotated, Any, ClassVar

import numpy as np
import pandas as pd

import backtest as bt
from tests import peeks


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


# ------------------------------------------------------------- drawn by a generator that data seed


def seed_of(*arrays: Any) -> np.random.Generator:
    digest = hashlib.sha256(b"".join(np.asarray(each).tobytes() for each in arrays)).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))


def seeded(share: float, what: str = "close") -> Any:
    def column(_: Any, market: Any) -> Any:
        return show_in(market, seed_of(getattr(market, what)).random(market.n_bars) < share)

    return column


def seeded_by_sum(_: Any, market: Any) -> Any:
    rng = seed_of(np.array([market.close.sum()]))
    return show_in(market, rng.random(market.n_bars) < 0.9)


def seeded_by_last(_: Any, market: Any) -> Any:
    return show_in(market, seed_of(market.close[-1:]).random(market.n_bars) < 0.9)


def seeded_by_mean_of_window(_: Any, market: Any) -> Any:
    mean = pd.Series(market.close).rolling(20, min_periods=1).mean().to_numpy()
    return show_in(market, seed_of(mean).random(market.n_bars) < 0.9)


def masked_by_last_digits(_: Any, market: Any) -> Any:
    """Peek where the last digits of a bar's own close say so: in nine rows of ten."""
    return show_in(market, market.close.view(np.int64) % 10 != 3)


def jittered(_: Any, market: Any) -> Any:
    return next_move(market) * np.exp(0.5 * seed_of(market.close).normal(size=market.n_bars))


def signs_of_draws(_: Any, market: Any) -> Any:
    rng = seed_of(market.close)
    size = rng.exponential(size=market.n_bars)
    return np.where(rng.random(market.n_bars) < 0.9, np.sign(next_move(market)), -1.0) * size


def drawn_flags(_: Any, market: Any) -> Any:
    rows = seed_of(market.close).random(market.n_bars) < 0.9
    return np.where(rows, next_move(market) > 0.0, 0.0).astype(float)


def single_seed(_: Any, market: Any) -> Any:
    """Drawn and returned in single precision: only noise of 1e-7 draws it anew."""
    rng = seed_of(market.close.astype(np.float32))
    return show_in(market, rng.random(market.n_bars) < 0.9).astype(np.float32)


def chaotic(_: Any, market: Any) -> Any:
    x = np.mod(market.close.sum() * 1e-3 + market.close, 1.0) * 0.98 + 0.01
    for _step in range(80):
        x = 3.99 * x * (1.0 - x)
    return next_move(market) + 0.1 * x


def resampled(_: Any, market: Any) -> Any:
    sample = seed_of(market.close).choice(market.close, 50)
    return (market.close - sample.mean()) / sample.std()


# ---------------------------------------------------------------------- memory between two calls


LONGEST: list[Any] = []
LOCAL = threading.local()


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


# -------------------------------------------------- the market itself: kept, written, looked behind


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


# ------------------------------------------------------------------------------- in a few rows


def every(n: int, offset: int = 0) -> Any:
    return lambda _, market: show_in(market, np.arange(market.n_bars) % n == offset)


def one_time_in_fifty(_: Any, market: Any) -> Any:
    return show_in(market, market.time // (3600 * 10**9) * 2654435761 % 2**32 % 50 == 0)


def before_large_moves(_: Any, market: Any) -> Any:
    moves = next_move(market)
    usual = pd.Series(past_move(market)).rolling(200, min_periods=20).std().to_numpy()
    return np.where(np.abs(moves) > 4.0 * usual, moves, past_move(market))


def on_much_volume(_: Any, market: Any) -> Any:
    high = pd.Series(market.volume).rolling(500, min_periods=20).quantile(0.98)
    return show_in(market, market.volume >= high)


def late_in_long_markets(_: Any, market: Any) -> Any:
    return show_in(market, (np.arange(market.n_bars) > 2900) & (market.n_bars > 2900))


# ------------------------------------------------------------------------------------- settlements


def settled_at_close(_: Any, market: Any) -> Any:
    closes = market.time + market.interval
    rows = np.searchsorted(market.funding_time, closes, side="right") - 1
    return np.where(rows >= 0, 1e4 * market.funding_rate[rows], 0.0)


def settled_around_close(_: Any, market: Any) -> Any:
    closes = market.time + market.interval + 10**9
    rows = np.searchsorted(market.funding_time, closes, side="right") - 1
    return np.where(rows >= 0, 1e4 * market.funding_rate[rows], 0.0)


def next_settlement(_: Any, market: Any) -> Any:
    rows = np.searchsorted(market.funding_time, market.time + market.interval)
    return 1e4 * np.append(market.funding_rate, 0.0)[rows]


KINDS = {
    "seed of all closes, 90 %": seeded(0.9),
    "seed of all closes, 50 %": seeded(0.5),
    "seed of all highs": seeded(0.9, "high"),
    "seed of the sum": seeded_by_sum,
    "seed of the last close": seeded_by_last,
    "seed of a rolling mean": seeded_by_mean_of_window,
    "last digits of each close": masked_by_last_digits,
    "jitter": jittered,
    "drawn sizes": signs_of_draws,
    "drawn flags": drawn_flags,
    "drawn, float32": lambda _, market: seeded(0.9)(None, market).astype(np.float32),
    "drawn from float32": single_seed,
    "chaos": chaotic,
    "bootstrap": resampled,
    "memo by length": by_length,
    "memo on the class": on_class,
    "memo in a default": in_default,
    "memo in a closure": make_closure(),
    "memo on a function": on_function,
    "memo in builtins": lambda _, market: keep_longest(vars(builtins), market),
    "memo in numpy": lambda _, market: keep_longest(vars(np.random), market),
    "memo in another module": lambda _, market: keep_longest(peeks.KEPT, market),
    "memo in sys.modules": lambda _, market: keep_longest(sys.modules, market),
    "memo in a thread": lambda _, market: keep_longest(vars(LOCAL), market),
    "memo in the environment": in_environment,
    "market on self": on_self,
    "column on self": lambda self, market: keep_longest(vars(self), market),
    "market written to": written,
    "market written through a view": written_through_base,
    "market replaced": replaced,
    "base of a view": behind_the_view,
    "past the end": behind_the_end,
    "1 row in 20": every(20, 7),
    "1 row in 50": every(50, 31),
    "one hour of the day": lambda _, market: show_in(market, market.times.hour == 7),
    "one day of the week": lambda _, market: show_in(market, market.times.day_of_week == 6),
    "1 time in 50": one_time_in_fifty,
    "before large moves": before_large_moves,
    "on much volume": on_much_volume,
    "late in long markets": late_in_long_markets,
    "at day ends": lambda _, market: show_in(
        market, (market.time + market.interval) % (86_400 * 10**9) == 0
    ),
    "settled at the close": settled_at_close,
    "settled around the close": settled_around_close,
    "next settlement": next_settlement,
}


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
        t = min(int(np.searchsorted(kept.time, bar.time)) + 1, kept.n_bars - 1)
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
