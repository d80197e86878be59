"""A synthetic perpetual future: regimes, jumps, crashes, a mark price and funding."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from backtest.base import FloatArray, IntArray, ParameterError, format_duration
from backtest.base.units import DAY, HOUR, YEAR_DAYS

INSTRUMENT = "SYNTHETIC-PERP"
START = 19_358 * DAY  # 2023-01-01

_FIRST_PRICE = 30_000.0
_TICK = 0.1
_FUNDING_EVERY = 8 * HOUR
_REGIMES = ((0.36, 24.0), (0.58, 14.0), (1.0, 4.0))  # annual volatility, mean days
_REGIME_ODDS = np.array([[0.0, 0.85, 0.15], [0.7, 0.0, 0.3], [0.35, 0.65, 0.0]])
_VOLATILITY_SPREAD = 0.30  # standard deviation of log volatility within a regime
_VOLATILITY_HALF_LIFE = 1.0  # days
_REVERSION_HALF_LIFE = 730.0  # days: decades of bars neither vanish nor explode
_JUMPS_A_YEAR = 60.0
_JUMP_SIZE = 0.011
_CRASHES_A_YEAR = 6.0
_PREMIUM_SPREAD = 4e-4
_PREMIUM_HALF_LIFE = 0.4  # days
_INTEREST = 1e-4
_CLAMP = 5e-4
_CAP = 7.5e-3


class _Path(NamedTuple):
    """Log prices at the closes, volatility and crash moves, each of shape (n_bars,)."""

    log: FloatArray
    sigma: FloatArray
    crash: FloatArray


def generate_sample(*, bars: int, seed: int, length: int) -> dict[str, Any]:
    """Return the fields of bars of ``length`` ns, or of the hours that make them."""
    if _FUNDING_EVERY % length == 0:
        return generate(bars=bars, seed=seed, interval=length)
    if DAY % length or length % HOUR:
        raise ParameterError(
            "interval must be a whole part of 8 hours or of a day in hours ('5m', '4h', '1d'), "
            f"got {format_duration(length)!r}"
        )
    return generate(bars=bars * (length // HOUR), seed=seed, interval=HOUR)


def generate(*, bars: int, seed: int, interval: int) -> dict[str, Any]:
    """Return the fields of a synthetic market; ``interval`` (ns) is a whole part of 8 hours."""
    names = ("path", "regime", "volatility", "jump", "crash", "range", "mark", "premium", "volume")
    seeds = np.random.SeedSequence(seed).spawn(len(names))
    streams = {
        name: np.random.Generator(np.random.PCG64(s)) for name, s in zip(names, seeds, strict=True)
    }
    days = interval / DAY
    path = _walk(streams, bars, days)
    opens, highs, lows, closes = _candles(streams["range"], path)
    premium = _premium(streams["premium"], path, days)
    mark = _mark(streams["mark"], (opens, highs, lows, closes), premium)
    funding_time, funding_rate = _funding(premium, interval)
    return {
        "instrument": INSTRUMENT,
        "interval": interval,
        "time": START + interval * np.arange(bars, dtype=np.int64),
        "open": opens,
        "high": highs,
        "low": lows,
        "close": closes,
        "volume": _volume(streams["volume"], path, days),
        **dict(zip(("mark_open", "mark_high", "mark_low", "mark_close"), mark, strict=True)),
        "has_mark": True,
        "funding_time": funding_time,
        "funding_rate": funding_rate,
        "funding_mark": np.full(funding_time.size, np.nan),
        "columns": {},
        "synthetic": True,
        "sessions": False,
        "filled": {},
    }


def _walk(streams: dict[str, np.random.Generator], bars: int, days: float) -> _Path:
    level = _regimes(streams["regime"], bars, days)
    noise = streams["volatility"].standard_normal(bars)
    swing = _autoregression(noise, _VOLATILITY_SPREAD, _VOLATILITY_HALF_LIFE / days)
    sigma = level * np.exp(swing - _VOLATILITY_SPREAD**2 / 2) * math.sqrt(days / YEAR_DAYS)
    crash = _crashes(streams["crash"], bars, days)
    jumps = _jumps(streams["jump"], bars, days)
    step = sigma * streams["path"].standard_normal(bars) - sigma**2 / 2 + jumps + crash
    keep = 0.5 ** (days / _REVERSION_HALF_LIFE)
    drift = 0.6 * days / YEAR_DAYS  # what crashes take away, and a little more
    log = np.array([*accumulate((step + drift).tolist(), lambda x, e: keep * x + e)])
    return _Path(log, sigma, crash)


def _regimes(rng: np.random.Generator, bars: int, days: float) -> FloatArray:
    level = np.empty(bars)
    row, regime = 0, 1
    while row < bars:
        volatility, mean_days = _REGIMES[regime]
        stay, move = rng.random(2)
        length = 1 + int(-mean_days * math.log1p(-stay) / days)
        level[row : row + length] = volatility
        row += length
        regime = int(np.searchsorted(np.cumsum(_REGIME_ODDS[regime]), move, side="right"))
    return level


def _jumps(rng: np.random.Generator, bars: int, days: float) -> FloatArray:
    happens, size, side = rng.random((bars, 3)).T
    move = _JUMP_SIZE * np.sqrt(-2.0 * np.log1p(-size)) * np.where(side < 0.5, -1.0, 1.0)
    return np.where(happens < _JUMPS_A_YEAR * days / YEAR_DAYS, move, 0.0)


def _crashes(rng: np.random.Generator, bars: int, days: float) -> FloatArray:
    moves = np.zeros(bars)
    back = max(1, round(2.0 / days))
    row = 0
    while True:
        wait, size, part = rng.random(3)
        row += 1 + int(-YEAR_DAYS / _CRASHES_A_YEAR * math.log1p(-wait) / days)
        if row >= bars:
            return moves
        fall = min(0.07 - 0.045 * math.log1p(-size), 0.25)
        moves[row] -= fall
        moves[row + 1 : row + 1 + back] += 0.6 * part * fall / back


def _candles(
    rng: np.random.Generator, path: _Path
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    before = np.concatenate([[0.0], path.log[:-1]])
    move = path.log - before
    draws = rng.random((path.log.size, 3))
    spread = -2.0 * path.sigma**2 * np.log1p(-draws[:, 0])
    up = (move + np.sqrt(move**2 + spread)) / 2
    spread = -2.0 * path.sigma**2 * np.log1p(-draws[:, 1])
    down = (move - np.sqrt(move**2 + spread)) / 2
    down += np.minimum(path.crash, 0.0) * np.where(path.crash < -0.03, draws[:, 2], 0.0) * 2 / 3
    opens, closes = _ticks(before), _ticks(path.log)
    highs = np.maximum(_ticks(before + up), np.maximum(opens, closes))
    lows = np.minimum(_ticks(before + down), np.minimum(opens, closes))
    return opens, highs, lows, closes


def _premium(rng: np.random.Generator, path: _Path, days: float) -> FloatArray:
    noise = rng.standard_normal(path.log.size)
    calm = _autoregression(noise, _PREMIUM_SPREAD, _PREMIUM_HALF_LIFE / days)
    fade = 0.5 ** (days / 3.0)
    moves = np.diff(path.log, prepend=0.0).tolist()
    trend = np.array([*accumulate(moves, lambda x, e: fade * x + e)])
    return np.clip(calm + 0.008 * trend, -0.02, 0.02)


def _mark(
    rng: np.random.Generator,
    last: tuple[FloatArray, FloatArray, FloatArray, FloatArray],
    premium: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    opens, highs, lows, closes = last
    shares = rng.random((opens.size, 2)) * 0.5 + 0.35
    basis = 1.0 - premium / 2
    mark_close = np.round(closes * basis, 2)
    mark_open = np.concatenate([opens[:1], mark_close[:-1]])
    top, bottom = np.maximum(mark_open, mark_close), np.minimum(mark_open, mark_close)
    mark_high = top + shares[:, 0] * (highs - np.maximum(opens, closes))
    mark_low = bottom - shares[:, 1] * (np.minimum(opens, closes) - lows)
    return mark_open, np.round(mark_high, 2), np.round(mark_low, 2), mark_close


def _funding(premium: FloatArray, interval: int) -> tuple[IntArray, FloatArray]:
    """Return stamps and rates: F = P + clamp(interest - P, +-0.05 %), capped at +-0.75 %."""
    size = _FUNDING_EVERY // interval
    events = 1 + (premium.size - 1) // size
    means = premium[: (events - 1) * size].reshape(-1, size).mean(axis=1)
    average = np.concatenate([[0.0], means])
    rate = average + np.clip(_INTEREST - average, -_CLAMP, _CLAMP)
    stamps = START + _FUNDING_EVERY * np.arange(events, dtype=np.int64)
    return stamps, np.round(np.clip(rate, -_CAP, _CAP), 8)


def _volume(rng: np.random.Generator, path: _Path, days: float) -> FloatArray:
    move = np.abs(np.diff(path.log, prepend=0.0)) / (0.55 * math.sqrt(days / YEAR_DAYS))
    noise = np.exp(0.35 * rng.standard_normal(path.log.size))
    return np.round(250_000.0 * days * (0.35 + 0.65 * move) * noise, 3)


def _autoregression(noise: FloatArray, spread: float, half_life: float) -> FloatArray:
    """Return x_t = a x_{t-1} + e_t from x = 0, with stationary deviation ``spread``."""
    keep = 0.5 ** (1.0 / half_life)
    shocks = spread * math.sqrt(1.0 - keep**2) * noise
    return np.array([*accumulate(shocks.tolist(), lambda x, e: keep * x + e)])


def _ticks(log: FloatArray) -> FloatArray:
    return np.maximum(np.round(_FIRST_PRICE * np.exp(log) / _TICK), 1.0) / 10.0
