"""The trace of a run, how two traces differ, and what of that is noise or tolerated."""

from __future__ import annotations

import fnmatch
import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from backtest.account.records import SIGNS
from backtest.base import BoolArray, FloatArray, IntArray, ParameterError, did_you_mean, format_time
from backtest.base.units import DAY, TOLERANCE, YEAR_DAYS
from backtest.compare.comparison import LEAST_SAMPLES
from backtest.engine import AccountFields, PositionFields
from backtest.measures import Sampled, compare_pairs, sampled_returns
from backtest.measures.measure_table import ABOUT

if TYPE_CHECKING:
    from backtest.engine import Result
    from backtest.market import Market, Markets


STEPS = {
    "close": "last price of the data",
    "mark": "mark price of the data",
    "multiplier": "margin multiplier of the venue",
    "top_up": "top-up from the reserve",
    "flows": "deposits and withdrawals",
    "funding": "funding",
    "interest": "interest",
    "position": "position (fills, stops, liquidations)",
    "fees": "fees",
    "slippage": "slippage",
    "impact": "market impact",
    "liquidation_loss": "liquidation",
    "bad_debt": "bad debt",
    "price_pnl": "profit of price moves",
    "collateral_pnl": "profit of collateral",
    "conversion": "cost of selling collateral",
    "entry": "average entry",
    "margin": "isolated margin",
    "reserve": "reserve",
    "cash": "cash",
    "equity": "equity",
    "unit": "unit value",
    "ends_sample": "sampling of returns",
    "signal": "signal decided at the close",
    "target": "target leverage of the policy",
    "overlay": "leverage of the overlay",
}
OF_SEVERAL = frozenset({"collateral_pnl", "conversion", "overlay"})
OF_QUOTES = ("close", "mark", "signal", "multiplier")
OF_POSITIONS = {
    "quantity": "position", **{name: name for name in PositionFields._fields if name in STEPS},
}  # fmt: skip

BASIC = ("equity", "cash", "unit", "ends_sample")
DATA = frozenset({"close", "mark"})
MONEY = frozenset({*SIGNS, "top_up", "cash", "margin", "reserve"})
INPUTS = "inputs"
_U64 = npt.NDArray[np.uint64]
Read: TypeAlias = tuple[dict[str, FloatArray], npt.NDArray[np.uint32] | None]


@dataclass(frozen=True)
class Trace:
    """The account and its costs at each bar.

    Attributes
    ----------
    time : IntArray of shape (n_bars,)
        Open times, ns.
    columns : mapping of str to FloatArray of shape (n_bars,)
        The columns of :data:`STEPS`, normalized so that equal values have equal bytes; of several
        positions also those of each instrument, ``"BTCUSDT position"``.
    inputs : array of uint32 of shape (n_bars,), or None
        A fingerprint of the market data of each bar; None if they are not known.
    first_unit : float
        Unit value before the first bar.
    interval : int
        Length of a bar, ns.
    """

    time: IntArray
    columns: Mapping[str, FloatArray]
    inputs: npt.NDArray[np.uint32] | None
    first_unit: float
    interval: int

    @property
    def returns(self) -> FloatArray:
        """Sampled simple returns of shape (n_samples,)."""
        return sampled_returns(self.columns["unit"], self.columns["ends_sample"], self.first_unit)


def name_field(column: str) -> str:
    return column.rpartition(" ")[2]


def describe_column(column: str) -> str:
    instrument, _, field = column.rpartition(" ")
    if field == INPUTS:
        return "data of the bar"
    return f"{STEPS[field]} of {instrument}" if instrument else STEPS[field]


def take_trace(result: Result) -> Trace:
    n = len(result.time)
    read = read_position if result.has_one_position else read_positions
    columns, prints = read(result)
    inputs = None if prints is None else prints[-n:]
    arrays = {name: normalize_values(np.broadcast_to(x, (n,))) for name, x in columns.items()}
    return Trace(np.asarray(result.time), arrays, inputs, result.tally.first_unit, result.interval)


def read_position(result: Result) -> Read:
    quotes = {name: getattr(result, name) for name in OF_QUOTES}
    fields = result.record.of_one()
    known = {
        **fields,
        "position": fields["quantity"],
        **quotes,
        "ends_sample": result.ends_sample,
    }
    prints = None if result.market is None else fingerprint_bars(result.market)
    return {name: known[name] for name in STEPS if name not in OF_SEVERAL}, prints


def read_positions(result: Result) -> Read:
    kept = [name for name in STEPS if name in AccountFields._fields]
    columns = {name: result.of_account(name) for name in kept}
    columns["ends_sample"] = result.ends_sample
    for i, name in enumerate(result.names):
        columns[f"{name} mark"] = result.marks[:, i]
        columns |= {
            f"{name} {called}": result.of_positions(field)[:, i]
            for field, called in OF_POSITIONS.items()
        }
    prints = None if result.markets is None else fingerprint_panel(result.markets)
    return columns, prints


def normalize_values(values: FloatArray) -> FloatArray:
    return np.ascontiguousarray(np.where(np.isnan(values), np.nan, values + 0.0), dtype="<f8")


def hash_array(values: npt.NDArray[np.generic]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


# ------------------------------------------------------------------------------- data, bar by bar


def fingerprint_bars(market: Market) -> npt.NDArray[np.uint32]:
    names = ("open", "high", "low", "close", "volume")
    arrays = [getattr(market, name) for name in names]
    arrays += [getattr(market, f"mark_{name}") for name in names[:4]]
    arrays += [market.columns[name] for name in sorted(market.columns)]
    mixed = scramble_bits(np.asarray(market.time, dtype=np.int64).view(np.uint64))
    for values in arrays:
        mixed = scramble_bits(
            mixed ^ normalize_values(np.asarray(values, dtype=np.float64)).view(np.uint64)
        )
    settled = scramble_bits(np.asarray(market.funding_time, dtype=np.int64).view(np.uint64))
    rows = [market.funding_rate, market.funding_mark]
    if not np.isnan(market.funding_predicted).all():
        rows.append(market.funding_predicted)
    for values in rows:
        settled = scramble_bits(settled ^ normalize_values(np.asarray(values)).view(np.uint64))
    bars = np.searchsorted(market.time, market.funding_time, side="right") - 1
    np.bitwise_xor.at(mixed, np.clip(bars, 0, market.n_bars - 1), settled)
    return (mixed >> np.uint64(32)).astype(np.uint32)


def fingerprint_panel(markets: Markets) -> npt.NDArray[np.uint32]:
    mixed = np.zeros(markets.n_bars, dtype=np.uint64)
    for market, (first, stop) in zip(markets.values(), markets.spans, strict=True):
        own = fingerprint_bars(market).astype(np.uint64)
        mixed[first:stop] = scramble_bits(mixed[first:stop] ^ own)
    return (mixed >> np.uint64(32)).astype(np.uint32)


def scramble_bits(values: _U64) -> _U64:
    """Return numbers scattered over all 64 bits by a bijection.

    Source: Steele, Lea and Flood (2014), Fast Splittable Pseudorandom Number Generators, OOPSLA.
    """
    x = values + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


# -------------------------------------------------------------------------------- differing bars

NEAR = 1e-9
"""The relative tolerance for bars of different platforms; see :func:`find_differing`."""


@dataclass(frozen=True)
class ColumnMove:
    column: str
    bar: int
    was: float
    now: float
    count: int
    largest: float

    @property
    def step(self) -> str:
        return describe_column(self.column)


@dataclass(frozen=True)
class BarMoves:
    is_exact: bool
    n_bars: int
    moves: tuple[ColumnMove, ...]
    first_time: str
    data: ColumnMove | None
    data_time: str
    terms: dict[str, float]

    @property
    def is_same(self) -> bool:
        return self.first < 0

    @property
    def first(self) -> int:
        return find_first(self.moves)

    @property
    def at_first(self) -> tuple[ColumnMove, ...]:
        return tuple(move for move in self.moves if move.bar == self.first)


def compare_traces(was: Trace, now: Trace, *, is_exact: bool) -> BarMoves:
    order = {name: place for place, name in enumerate(STEPS)}
    found = []
    shared = {name: values for name, values in was.columns.items() if name in now.columns}
    for name, values in shared.items():
        differs = find_differing(name, was, now, is_exact=is_exact)
        if differs.any():
            found.append(measure_move(name, values, now.columns[name], differs))
    found.sort(key=lambda move: (move.bar, order[name_field(move.column)]))
    data, first = compare_data(was, now), find_first(found)
    return BarMoves(
        is_exact=is_exact,
        n_bars=len(was.time),
        moves=tuple(found),
        first_time=format_time(int(was.time[first])) if first >= 0 else "",
        data=data,
        data_time=format_time(int(was.time[data.bar])) if data is not None else "",
        terms=explain_equity(was, now),
    )


def find_first(moves: Sequence[ColumnMove]) -> int:
    return min((move.bar for move in moves if name_field(move.column) not in DATA), default=-1)


def find_differing(name: str, was: Trace, now: Trace, *, is_exact: bool) -> BoolArray:
    one, other = was.columns[name], now.columns[name]
    differs: BoolArray = one.view(np.uint64) != other.view(np.uint64)
    if is_exact or not differs.any():
        return differs
    size = np.maximum(np.abs(one), np.abs(other))
    if name_field(name) in MONEY:
        size = np.maximum(size, find_money_scale(was))
    with np.errstate(invalid="ignore"):
        is_near = np.abs(one - other) <= NEAR * size
    is_near &= np.isfinite(one) & np.isfinite(other)
    return np.asarray(differs & ~is_near)


def find_money_scale(trace: Trace) -> FloatArray:
    columns = trace.columns
    return np.maximum(np.abs(columns["equity"]), np.abs(columns["cash"]))


def measure_move(name: str, one: FloatArray, other: FloatArray, differs: BoolArray) -> ColumnMove:
    bar = int(differs.argmax())
    with np.errstate(invalid="ignore"):
        gaps = np.abs(other - one)[differs]
    largest = float(np.max(np.where(np.isnan(gaps), np.inf, gaps)))
    return ColumnMove(name, bar, float(one[bar]), float(other[bar]), int(differs.sum()), largest)


def compare_data(was: Trace, now: Trace) -> ColumnMove | None:
    if was.inputs is None or now.inputs is None:
        return None
    differs = was.inputs != now.inputs
    if not differs.any():
        return None
    bar = int(differs.argmax())
    closes = [trace.columns.get("close") for trace in (was, now)]
    one, other = (math.nan if close is None else float(close[bar]) for close in closes)
    return ColumnMove(INPUTS, bar, one, other, int(differs.sum()), math.nan)


def explain_equity(was: Trace, now: Trace) -> dict[str, float]:
    moved = {
        name: sign * float(np.sum(now.columns[name]) - np.sum(was.columns[name]))
        for name, sign in SIGNS.items()
        if name in was.columns and name in now.columns
    }
    return {name: value for name, value in moved.items() if value != 0.0}


FIGURES = {
    "walk_growth": ("growth_out_of_sample", 1),
    "walk_growth_in_sample": ("growth_in_sample", 0),
    "walk_growth_fixed": ("growth_fixed", 0),
    "walk_efficiency": ("efficiency", 1),
    "walk_efficiency_difference": ("efficiency_difference", 1),
    "walk_mean_rank": ("mean_rank", 1),
    "walk_deflated_sharpe": ("deflated_sharpe", 1),
}
OVERFIT = "walk_pbo"
BETTER_IF = {**{name: sign for name, (_, sign) in FIGURES.items()}, OVERFIT: -1}
FLOOR = 1e-12
"""Differences up to this count as rounding: a relative band of a measure of 0 has no width."""
BETTER, WORSE, NEITHER = "better", "worse", "neither better nor worse"
NEVER_IS_BEST = ("ruin_time", "time_to_first_liquidation")

_PERCENT = re.compile(r"(.+?)\s*%")


class Band(NamedTuple):
    relative: float | None = None
    absolute: float | None = None

    @property
    def is_open(self) -> bool:
        return self.relative is None and self.absolute is None

    def holds(self, was: float, now: float) -> bool:
        if self.is_open or was == now or (math.isnan(was) and math.isnan(now)):
            return True
        if not (math.isfinite(was) and math.isfinite(now)):
            return False
        width = self.absolute if self.relative is None else self.relative * abs(was)
        ends = TOLERANCE * max(abs(was), abs(now))
        return abs(now - was) <= max(width or 0.0, FLOOR) + ends

    def __str__(self) -> str:
        if self.is_open:
            return "any"
        if self.relative is None:
            return f"{self.absolute:g}"
        return (
            f"{self.relative * 100.0:g} %" if self.relative >= 1e-4 else f"{self.relative:g} rel."
        )

    def to_data(self) -> Any:
        if self.is_open:
            return "any"
        return {name: value for name, value in self._asdict().items() if value is not None}


TIGHT = Band(relative=1e-9)


def read_band(given: object, name: str) -> Band:
    if isinstance(given, Band):
        return given
    if isinstance(given, Mapping) and len(given) == 1 and {*given} <= {*Band._fields}:
        ((kind, value),) = given.items()
        return Band(**{kind: _read_width(value, given, name)})
    if isinstance(given, str) and given.strip() == "any":
        return Band()
    if isinstance(given, str) and (match := _PERCENT.fullmatch(given.strip())):
        return Band(relative=_read_width(match[1], given, name) / 100.0)
    return Band(absolute=_read_width(given, given, name))


def _read_width(value: object, given: object, name: str) -> float:
    is_text = isinstance(value, str)
    try:
        width = float(value) if is_text or type(value) in (int, float) else math.nan  # type: ignore[arg-type] # one of these
    except ValueError:
        width = math.nan
    if not 0.0 <= width < math.inf:
        raise ParameterError(
            f"{name} must be a number from 0, a percentage (5%) or 'any', which is reported and "
            f"never fails, got {given!r:.60}"
        )
    return width


def choose_bands(
    metrics: Iterable[str], wanted: Mapping[str, object], under: Mapping[str, Band]
) -> dict[str, Band]:
    names = list(metrics)
    bands = {name: under.get(name, TIGHT) for name in names}
    for pattern, given in wanted.items():
        band = read_band(given, f"tolerance.{pattern}")
        for name in match_names(pattern, names, "tolerance"):
            bands[name] = band
    return bands


def match_names(pattern: str, names: Iterable[str], argument: str) -> list[str]:
    known = list(names)
    found = fnmatch.filter(known, pattern)
    if not found:
        raise ParameterError(
            f"{argument} must name measures (docs/metrics.md) or a pattern such as es_*, got "
            f"{pattern!r}{did_you_mean(pattern, known)}"
        )
    return found


def find_direction(name: str, was: float, now: float) -> str:
    better = BETTER_IF.get(name, 0) if name not in ABOUT else ABOUT[name].better
    if name in NEVER_IS_BEST:
        was, now = (math.inf if math.isnan(value) else value for value in (was, now))
    if better == 0 or was == now or math.isnan(was) or math.isnan(now):
        return NEITHER
    return BETTER if (now > was) == (better > 0) else WORSE


# ------------------------------------------------------------------------------------- noise

CONFIDENCE = 0.95
DRAWS = 1_999
SEED = 0
ROUNDING = 1e-9
"""Returns are the same if their differences are this small relative to them (root mean square)."""

MEASURE = "log_growth"
NOISY = {
    MEASURE: ("total_return", "cagr", "final_equity"),
    "sharpe": ("sharpe",),
}
"""Statistics of the returns whose differences have a test, and the measures that follow them."""
INDISTINGUISHABLE = "indistinguishable"
UNKNOWN = "unknown"
POWER = 0.8
"""The probability of finding a difference that is called detectable."""


class Noise(NamedTuple):
    """The difference in log growth per year, now less baseline, and its test.

    ``verdict`` is worse, better or indistinguishable, or unknown if nothing can be measured;
    ``reason`` explains a verdict without a test. ``low`` and ``high`` bound ``difference`` at
    ``confidence``; ``block`` is the mean block length in samples. ``detectable`` is the least
    difference per year that the test finds in about four of five cases; infinite if there is none.
    ``within`` are the measures of the returns whose intervals contain no difference.
    """

    verdict: str
    reason: str
    samples: int
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p_value: float = math.nan
    confidence: float = CONFIDENCE
    block: int = 0
    detectable: float = math.nan
    within: tuple[str, ...] = ()

    @property
    def is_same(self) -> bool:
        return self.verdict == INDISTINGUISHABLE and bool(self.reason)


def compare_returns(
    was: Trace,
    now: Trace,
    confidence: float = CONFIDENCE,
    *,
    was_ruined: bool = False,
    is_ruined: bool = False,
) -> Noise:
    rows = np.array([now.returns, was.returns])
    n = rows.shape[1]
    if np.array_equal(rows[0], rows[1]):
        return report_identical("every return is the same", n, confidence)
    decided = compare_ruin(rows, was_ruined=was_ruined, is_ruined=is_ruined)
    if decided:
        return Noise(decided, "one of the two accounts is ruined", n, confidence=confidence)
    if (rows <= -1.0).any():
        return Noise(UNKNOWN, "both accounts are ruined", n, confidence=confidence)
    if is_rounding(rows):
        return report_identical("returns differ by rounding alone", n, confidence)
    if n < LEAST_SAMPLES:
        reason = f"{n} returns are too few, {LEAST_SAMPLES} are needed"
        return Noise(UNKNOWN, reason, n, confidence=confidence)
    return bootstrap_growth(rows, n / count_years(was), confidence)


def report_identical(reason: str, n: int, confidence: float) -> Noise:
    within = tuple(each for names in NOISY.values() for each in names)
    return Noise(INDISTINGUISHABLE, reason, n, 0.0, 0.0, 0.0, 1.0, confidence, 0, 0.0, within)


def compare_ruin(rows: FloatArray, *, was_ruined: bool, is_ruined: bool) -> str:
    is_now, was = (
        is_known or bool((row <= -1.0).any())
        for is_known, row in zip((is_ruined, was_ruined), rows, strict=True)
    )
    if is_now == was:
        return ""
    return WORSE if is_now else BETTER


def is_rounding(rows: FloatArray) -> bool:
    size = math.sqrt(float(np.max(np.mean(rows**2, axis=1))))
    return math.sqrt(float(np.mean((rows[0] - rows[1]) ** 2))) <= ROUNDING * size


def count_years(trace: Trace) -> float:
    return (int(trace.time[-1]) + trace.interval - int(trace.time[0])) / (YEAR_DAYS * DAY)


def bootstrap_growth(rows: FloatArray, per_year: float, confidence: float) -> Noise:
    n = rows.shape[1]
    sampled = Sampled(rows, np.zeros(n), per_year, per_year)
    drawn = {name: draw_difference(sampled, name, confidence) for name in NOISY}
    found = drawn[MEASURE]
    difference, low, high = (float(x[0]) for x in (found.difference, found.low, found.high))
    p_value = float(found.p_value[0])
    if math.isnan(p_value):
        return Noise(UNKNOWN, "log growth does not exist", n, confidence=confidence)
    is_noise = {name: each.p_value[0] > 1.0 - confidence + 1e-12 for name, each in drawn.items()}
    verdict = INDISTINGUISHABLE
    if not is_noise[MEASURE]:
        verdict = BETTER if difference > 0.0 else WORSE
    return Noise(
        verdict=verdict,
        reason="",
        samples=n,
        difference=difference,
        low=low,
        high=high,
        p_value=p_value,
        confidence=confidence,
        block=found.block,
        detectable=find_detectable((high - low) / 2.0, confidence),
        within=tuple(each for name, names in NOISY.items() if is_noise[name] for each in names),
    )


def draw_difference(sampled: Sampled, measure: str, confidence: float) -> Any:
    rng = np.random.default_rng(SEED)
    pair = np.array([[0, 1]])
    return compare_pairs(sampled, pair, measure, confidence=confidence, draws=DRAWS, rng=rng)


def find_detectable(half: float, confidence: float) -> float:
    normal = NormalDist()
    return half * (1.0 + normal.inv_cdf(POWER) / normal.inv_cdf((1.0 + confidence) / 2.0))
