"""A synthetic perpetual future: regimes, jumps, crashes, a mark price and funding."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Any

import numpy as np

from backtest.core import FloatArray, ParameterError, format_duration
from backtest.core.units import DAY, HOUR, YEAR_DAYS

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


def generate_sample(*, bars: int, seed: int, length: int) -> dict[str, Any]:
    """Return the fields of bars of ``length`` ns, or of the hours that make them."""
    if _FUNDING_EVERY % length:
        if DAY % length or length % HOUR:
            raise ParameterError(
                "interval must be a whole part of 8 hours or of a day in hours ('5m', '4h', '1d'), "
                f"got {format_duration(length)!r}"
            )
        return generate_sample(bars=bars * (length // HOUR), seed=seed, length=HOUR)
    names = ("path", "regime", "volatility", "jump", "crash", "range", "mark", "premium", "volume")
    seeds = np.random.SeedSequence(seed).spawn(len(names))
    streams = {
        name: np.random.Generator(np.random.PCG64(s)) for name, s in zip(names, seeds, strict=True)
    }
    days = length / DAY
    noise = streams["volatility"].standard_normal(bars)
    swing = _autoregression(noise, _VOLATILITY_SPREAD, _VOLATILITY_HALF_LIFE / days)
    level = _regimes(streams["regime"], bars, days) * np.exp(swing - _VOLATILITY_SPREAD**2 / 2)
    sigma = level * math.sqrt(days / YEAR_DAYS)
    crash = _crashes(streams["crash"], bars, days)
    happens, size, side = streams["jump"].random((bars, 3)).T
    jumps = _JUMP_SIZE * np.sqrt(-2.0 * np.log1p(-size)) * np.where(side < 0.5, -1.0, 1.0)
    jumps = np.where(happens < _JUMPS_A_YEAR * days / YEAR_DAYS, jumps, 0.0)
    step = sigma * streams["path"].standard_normal(bars) - sigma**2 / 2 + jumps + crash
    drift = 0.6 * days / YEAR_DAYS  # what crashes take away, and a little more
    log = _accumulate(step + drift, 0.5 ** (days / _REVERSION_HALF_LIFE))

    before = np.concatenate([[0.0], log[:-1]])
    move, draws = log - before, streams["range"].random((bars, 3))
    up, down = (np.sqrt(move**2 - 2.0 * sigma**2 * np.log1p(-draws[:, k])) for k in (0, 1))
    up, down = (move + up) / 2, (move - down) / 2
    down += np.minimum(crash, 0.0) * np.where(crash < -0.03, draws[:, 2], 0.0) * 2 / 3
    opens, closes = _ticks(before), _ticks(log)
    highs = np.maximum(_ticks(before + up), np.maximum(opens, closes))
    lows = np.minimum(_ticks(before + down), np.minimum(opens, closes))

    noise = streams["premium"].standard_normal(bars)
    calm = _autoregression(noise, _PREMIUM_SPREAD, _PREMIUM_HALF_LIFE / days)
    premium = np.clip(calm + 0.008 * _accumulate(move, 0.5 ** (days / 3.0)), -0.02, 0.02)
    shares = streams["mark"].random((bars, 2)) * 0.5 + 0.35
    mark_close = np.round(closes * (1.0 - premium / 2), 2)
    mark_open = np.concatenate([opens[:1], mark_close[:-1]])
    top, bottom = np.maximum(mark_open, mark_close), np.minimum(mark_open, mark_close)
    mark_high = top + shares[:, 0] * (highs - np.maximum(opens, closes))
    mark_low = bottom - shares[:, 1] * (np.minimum(opens, closes) - lows)
    # F = P + clamp(interest - P, +-0.05 %), capped at +-0.75 %
    every = _FUNDING_EVERY // length
    events = 1 + (bars - 1) // every
    means = premium[: (events - 1) * every].reshape(-1, every).mean(axis=1)
    average = np.concatenate([[0.0], means])
    rate = average + np.clip(_INTEREST - average, -_CLAMP, _CLAMP)
    busy = np.abs(move) / (0.55 * math.sqrt(days / YEAR_DAYS))
    noise = np.exp(0.35 * streams["volume"].standard_normal(bars))
    return {
        "instrument": INSTRUMENT,
        "interval": length,
        "time": START + length * np.arange(bars, dtype=np.int64),
        "open": opens,
        "high": highs,
        "low": lows,
        "close": closes,
        "volume": np.round(250_000.0 * days * (0.35 + 0.65 * busy) * noise, 3),
        "mark_open": mark_open,
        "mark_high": np.round(mark_high, 2),
        "mark_low": np.round(mark_low, 2),
        "mark_close": mark_close,
        "has_mark": True,
        "funding_time": START + _FUNDING_EVERY * np.arange(events, dtype=np.int64),
        "funding_rate": np.round(np.clip(rate, -_CAP, _CAP), 8),
        "funding_mark": np.full(events, np.nan),
        "columns": {},
        "synthetic": True,
        "sessions": False,
        "filled": {},
    }


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


def _accumulate(shocks: FloatArray, keep: float) -> FloatArray:
    return np.array([*accumulate(shocks.tolist(), lambda x, e: keep * x + e)])


def _autoregression(noise: FloatArray, spread: float, half_life: float) -> FloatArray:
    """Return x_t = a x_{t-1} + e_t from x = 0, with stationary deviation ``spread``."""
    keep = 0.5 ** (1.0 / half_life)
    return _accumulate(spread * math.sqrt(1.0 - keep**2) * noise, keep)


def _ticks(log: FloatArray) -> FloatArray:
    return np.maximum(np.round(_FIRST_PRICE * np.exp(log) / _TICK), 1.0) / 10.0
