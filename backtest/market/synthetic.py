"""A synthetic perpetual future: regimes, jumps, crashes, a mark price and funding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from backtest.core import FloatArray, ParameterError, format_duration
from backtest.core.units import DAY, HOUR, YEAR_DAYS

INSTRUMENT = "SYNTHETIC-PERP"
START = 19_358 * DAY  # 2023-01-01

# Prices, in the quote currency.
_FIRST_PRICE = 30_000.0
_TICK = 0.1
_DRIFT = 0.6  # of the log price, a year: what crashes take away, and a little more
_REVERSION_HALF_LIFE = 730.0  # days: decades of bars neither vanish nor explode

# Volatility: regimes, calm, usual and wild, and what it varies by inside of one.
_REGIMES = ((0.36, 24.0), (0.58, 14.0), (1.0, 4.0))  # annual volatility, mean days
_REGIME_ODDS = np.array([[0.0, 0.85, 0.15], [0.7, 0.0, 0.3], [0.35, 0.65, 0.0]])
_FIRST_REGIME = 1  # the usual one
_VOLATILITY_SPREAD = 0.30  # standard deviation of log volatility within a regime
_VOLATILITY_HALF_LIFE = 1.0  # days

# Jumps, and crashes, which are larger and recover a part of their fall.
_JUMPS_A_YEAR = 60.0
_JUMP_SIZE = 0.011  # scale of Rayleigh's distribution of log moves
_CRASHES_A_YEAR = 6.0
_LEAST_CRASH, _LARGEST_CRASH = 0.07, 0.25  # log moves
_CRASH_EXCESS = 0.045  # mean of the part over the least
_RECOVERY_DAYS = 2.0
_LARGEST_RECOVERY = 0.6  # share of the fall
_OVERSHOOT_FROM = -0.03  # log move from which on a crash overshoots

# Volume, in contracts.
_VOLUME_A_DAY = 250_000.0
_VOLUME_SPREAD = 0.35  # standard deviation of log volume
_USUAL_VOLATILITY = 0.55  # a year, by which moves are called large

# The premium of the last price over the index, marks, and the funding rate that follows from it.
_PREMIUM_SPREAD = 4e-4  # standard deviation
_PREMIUM_HALF_LIFE = 0.4  # days
_PREMIUM_OF_MOVES = 0.008  # share of a move that becomes premium
_LARGEST_PREMIUM = 0.02
_FUNDING_EVERY = 8 * HOUR
_INTEREST = 1e-4  # per settlement
_CLAMP = 5e-4  # how far from the premium a rate moves towards the interest
_CAP = 7.5e-3  # the largest rate


def generate_sample(*, bars: int, seed: int, length: int) -> dict[str, Any]:
    """Return the fields of a synthetic market: ``bars`` bars of ``length`` ns, by name.

    Of a length that does not divide the 8 hours between settlements, such as a day, the fields are
    those of the hours that make the bars. ``seed`` fixes all random numbers. Raises ParameterError
    for a length that fits neither.
    """
    # Bars between which funding is settled are generated; others, such as days, are put together
    # from hours by the caller.
    has_settlements_between = _FUNDING_EVERY % length == 0
    if not has_settlements_between:
        if DAY % length or length % HOUR:
            raise ParameterError(
                "interval must be a whole part of 8 hours or of a day in hours ('5m', '4h', '1d'), "
                f"got {format_duration(length)!r}"
            )
        return generate_sample(bars=bars * (length // HOUR), seed=seed, length=HOUR)

    streams = _spawn_streams(seed)
    days = length / DAY
    path = _generate_path(streams, bars, days)
    prices = _generate_prices(streams["range"], path)
    premium = _generate_premium(streams["premium"], path.move, days)
    marks = _generate_marks(streams["mark"], prices, premium)

    volume = _generate_volume(streams["volume"], path.move, days)

    # Settlements begin with the first bar.
    bars_between = _FUNDING_EVERY // length
    n_settlements = 1 + (bars - 1) // bars_between
    return {
        "instrument": INSTRUMENT,
        "interval": length,
        "time": START + length * np.arange(bars, dtype=np.int64),
        "open": prices.open,
        "high": prices.high,
        "low": prices.low,
        "close": prices.close,
        "volume": np.round(volume, 3),
        "mark_open": marks.open,
        "mark_high": marks.high,
        "mark_low": marks.low,
        "mark_close": marks.close,
        "has_mark": True,
        "funding_time": START + _FUNDING_EVERY * np.arange(n_settlements, dtype=np.int64),
        "funding_rate": _find_funding(premium, n_settlements, bars_between),
        "funding_mark": np.full(n_settlements, np.nan),
        "columns": {},
        "synthetic": True,
        "sessions": False,
        "filled": {},
    }


_STREAMS = (
    "path",
    "regime",
    "volatility",
    "jump",
    "crash",
    "range",
    "mark",
    "premium",
    "volume",
)
"""What has random numbers of its own, in the order in which their seeds are made."""


def _spawn_streams(seed: int) -> dict[str, np.random.Generator]:
    """Return generators by the names of _STREAMS, independent of each other."""
    seeds = np.random.SeedSequence(seed).spawn(len(_STREAMS))
    streams = {}
    for name, seed_of_stream in zip(_STREAMS, seeds, strict=True):
        streams[name] = np.random.Generator(np.random.PCG64(seed_of_stream))
    return streams


class _Path(NamedTuple):
    """Log price over the first one, at each open and close; its move, volatility and crashes."""

    before: FloatArray
    after: FloatArray
    move: FloatArray
    sigma: FloatArray
    crash: FloatArray


def _generate_path(streams: Mapping[str, np.random.Generator], bars: int, days: float) -> _Path:
    """Return the path of the log price over some bars, each of some days.

    Each cause of moves draws from a stream of its own: so one that is changed leaves the others.
    """
    years = days / YEAR_DAYS

    # Volatility: that of the regime, times a mean-reverting factor with mean 1.
    noise = streams["volatility"].standard_normal(bars)
    swing = _autoregression(noise, _VOLATILITY_SPREAD, _VOLATILITY_HALF_LIFE / days)
    factor = np.exp(swing - _VOLATILITY_SPREAD**2 / 2)
    regime = _regimes(streams["regime"], bars, days)
    sigma = regime * factor * math.sqrt(years)

    diffusion = sigma * streams["path"].standard_normal(bars)
    jumps = _generate_jumps(streams["jump"], bars, days)
    crash = _crashes(streams["crash"], bars, days)
    step = diffusion - sigma**2 / 2 + jumps + crash

    drift = _DRIFT * days / YEAR_DAYS

    # The log price returns to its start by half in so many days.
    persistence = 0.5 ** (days / _REVERSION_HALF_LIFE)
    after = _accumulate(step + drift, persistence)
    before = np.concatenate([[0.0], after[:-1]])
    return _Path(before, after, move=after - before, sigma=sigma, crash=crash)


def _generate_jumps(rng: np.random.Generator, bars: int, days: float) -> FloatArray:
    """Return the log moves of jumps of either side, 0 in most bars.

    Their sizes are of Rayleigh's distribution, drawn as _JUMP_SIZE sqrt(-2 log(1 - u)).
    """
    chance_draw, size_draw, side_draw = rng.random((bars, 3)).T
    side = np.where(side_draw < 0.5, -1.0, 1.0)
    jumps = _JUMP_SIZE * np.sqrt(-2.0 * np.log1p(-size_draw)) * side

    chance = _JUMPS_A_YEAR * days / YEAR_DAYS
    return np.where(chance_draw < chance, jumps, 0.0)


class _Prices(NamedTuple):
    """Prices of bars, or their marks."""

    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray


def _generate_prices(rng: np.random.Generator, path: _Path) -> _Prices:
    """Return prices whose extremes are those of a Brownian bridge from open to close.

    The maximum of a bridge over a move m with deviation s is (m + sqrt(m^2 - 2 s^2 log u)) / 2 of a
    uniform u, and the minimum likewise.
    """
    move = path.move
    variance = path.sigma**2
    up_draw, down_draw, overshoot_draw = rng.random((len(move), 3)).T
    up_root = np.sqrt(move**2 - 2.0 * variance * np.log1p(-up_draw))
    down_root = np.sqrt(move**2 - 2.0 * variance * np.log1p(-down_draw))
    up = (move + up_root) / 2
    down = (move - down_root) / 2

    # The low of a crash overshoots its close, by up to two thirds of its fall.
    fall = np.minimum(path.crash, 0.0)
    overshoot = np.where(path.crash < _OVERSHOOT_FROM, overshoot_draw, 0.0)
    down += fall * overshoot * 2 / 3

    opens = _ticks(path.before)
    closes = _ticks(path.after)
    top = np.maximum(opens, closes)
    bottom = np.minimum(opens, closes)
    highest = _ticks(path.before + up)
    lowest = _ticks(path.before + down)
    return _Prices(
        open=opens,
        high=np.maximum(highest, top),
        low=np.minimum(lowest, bottom),
        close=closes,
    )


def _generate_volume(rng: np.random.Generator, move: FloatArray, days: float) -> FloatArray:
    """Return volumes, which rise with the size of the move.

    That is compared with the deviation of a bar at the usual volatility: a move of that size has
    the usual volume, no move 35 % of it.
    """
    relative_move = np.abs(move) / (_USUAL_VOLATILITY * math.sqrt(days / YEAR_DAYS))
    noise = np.exp(_VOLUME_SPREAD * rng.standard_normal(len(move)))
    volume: FloatArray = _VOLUME_A_DAY * days * (0.35 + 0.65 * relative_move) * noise
    return volume


def _generate_premium(rng: np.random.Generator, move: FloatArray, days: float) -> FloatArray:
    """Return the premium of the last price over the index: noise, and what moves leave.

    Of a move it takes .8 %, half of which is gone three days later. At most 2 % either way.
    """
    noise = rng.standard_normal(len(move))
    calm = _autoregression(noise, _PREMIUM_SPREAD, _PREMIUM_HALF_LIFE / days)

    keep = 0.5 ** (days / 3.0)
    after_moves = _PREMIUM_OF_MOVES * _accumulate(move, keep)
    return np.clip(calm + after_moves, -_LARGEST_PREMIUM, _LARGEST_PREMIUM)


def _generate_marks(rng: np.random.Generator, prices: _Prices, premium: FloatArray) -> _Prices:
    """Return marks, with half of the premium and a part of the wicks of last prices.

    That part is drawn for each wick: 35 to 85 %. A wick is what a high or low lies beyond open and
    close. Each mark opens at the mark close before it, and is rounded to cents.
    """
    part_up, part_down = (rng.random((len(premium), 2)) * 0.5 + 0.35).T
    mark_close = np.round(prices.close * (1.0 - premium / 2), 2)
    mark_open = np.concatenate([prices.open[:1], mark_close[:-1]])

    top = np.maximum(prices.open, prices.close)
    bottom = np.minimum(prices.open, prices.close)
    wick_up = prices.high - top
    wick_down = bottom - prices.low

    mark_top = np.maximum(mark_open, mark_close)
    mark_bottom = np.minimum(mark_open, mark_close)
    mark_high = mark_top + part_up * wick_up
    mark_low = mark_bottom - part_down * wick_down
    return _Prices(
        open=mark_open,
        high=np.round(mark_high, 2),
        low=np.round(mark_low, 2),
        close=mark_close,
    )


def _find_funding(premium: FloatArray, n_settlements: int, every: int) -> FloatArray:
    """Return the funding rate at each settlement, by the mean premium P of the bars before it.

    ``every`` is the number of bars between two settlements. As venues compute it, the rate is
    P + clamp(interest - P, +-0.05 %), capped at +-0.75 %.
    """
    # The first settlement has no bars before it, so its mean stays 0.
    n_bars = (n_settlements - 1) * every
    by_settlement = premium[:n_bars].reshape(-1, every)
    average = np.zeros(n_settlements)
    average[1:] = by_settlement.mean(axis=1)

    clamped = np.clip(_INTEREST - average, -_CLAMP, _CLAMP)
    capped = np.clip(average + clamped, -_CAP, _CAP)
    funding: FloatArray = np.round(capped, 8)
    return funding


def _regimes(rng: np.random.Generator, bars: int, days: float) -> FloatArray:
    """Return the annual volatility of the regime of each bar, of some days.

    Regimes are a Markov chain: each lasts for a random time, and odds of its own say which one
    follows.
    """
    volatilities = np.empty(bars)
    begin = 0
    regime = _FIRST_REGIME
    while begin < bars:
        # A regime lasts an exponential time, of its mean: -mean log(1 - u) of a uniform u.
        volatility, mean_days = _REGIMES[regime]
        stay_draw, move_draw = rng.random(2)
        stay_days = -mean_days * math.log1p(-stay_draw)
        end = begin + 1 + int(stay_days / days)
        volatilities[begin:end] = volatility
        begin = end

        # The next one, by the odds of this one.
        odds = np.cumsum(_REGIME_ODDS[regime])
        regime = int(np.searchsorted(odds, move_draw, side="right"))
    return volatilities


def _crashes(rng: np.random.Generator, bars: int, days: float) -> FloatArray:
    """Return the log move of each bar that is due to crashes, 0 in most.

    A crash falls in one bar. The bars of two days after it recover a random part of the fall, the
    same in each.
    """
    moves = np.zeros(bars)
    bars_back = max(1, round(_RECOVERY_DAYS / days))
    row = 0
    while True:
        # The time to the next crash is exponential, as is its size over the least one:
        # -mean log(1 - u) of a uniform u.
        wait_draw, size_draw, part_draw = rng.random(3)
        wait_days = -YEAR_DAYS / _CRASHES_A_YEAR * math.log1p(-wait_draw)
        row += 1 + int(wait_days / days)
        if row >= bars:
            return moves

        fall = min(_LEAST_CRASH - _CRASH_EXCESS * math.log1p(-size_draw), _LARGEST_CRASH)
        moves[row] -= fall
        after = row + 1
        moves[after : after + bars_back] += _LARGEST_RECOVERY * part_draw * fall / bars_back


def _accumulate(shocks: FloatArray, keep: float) -> FloatArray:
    """Return x_t = keep x_{t-1} + e_t, from its first shock."""
    values = accumulate(shocks.tolist(), lambda x, e: keep * x + e)
    return np.array([*values])


def _autoregression(noise: FloatArray, spread: float, half_life: float) -> FloatArray:
    """Return x_t = a x_{t-1} + e_t from x = 0, with stationary deviation ``spread``."""
    keep = 0.5 ** (1.0 / half_life)
    shocks = spread * math.sqrt(1.0 - keep**2) * noise
    return _accumulate(shocks, keep)


def _ticks(log: FloatArray) -> FloatArray:
    """Return prices in whole ticks of their logs over the first price, at least one tick."""
    n_ticks = np.round(_FIRST_PRICE * np.exp(log) / _TICK)
    return np.maximum(n_ticks, 1.0) / 10.0  # times _TICK, but exact in decimals
