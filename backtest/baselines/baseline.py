"""A baseline: the recorded facts, measures and bars of a run, to compare later runs with.

It is a JSON file for review, with a Parquet file of the bars beside it. What differs between two
is here too, and what of that is noise or tolerated.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import hashlib
import json
import math
import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from backtest import _compile, core
from backtest.account.money import GROWTH_TERMS, MONEY_TERMS, SIGNS
from backtest.core import BoolArray, FloatArray, IntArray, units
from backtest.judgement.judgement import Judgement
from backtest.results import AccountFields, PositionFields, Result, Sampled, compare_pairs
from backtest.results.measure_table import ABOUT
from backtest.results.measure_table import MONEY as MONEY_UNIT
from backtest.results.performance import sampled_returns
from backtest.search import LEAST_SAMPLES, WalkForward, walk_differences

WORDS = {term.name: term.words for term in MONEY_TERMS}
BEFORE_FILLS = ("flows", "funding", "interest", "expense")
STEPS = {
    "close": "last price of the data",
    "mark": "mark price of the data",
    "multiplier": "margin multiplier",
    "top_up": "top-up from the reserve",
    **{name: WORDS[name] for name in BEFORE_FILLS},
    "position": "position",
    **{name: WORDS[name] for name in GROWTH_TERMS if name not in BEFORE_FILLS},
    **{name: WORDS[name] for name in ("bad_debt", "price_pnl", "collateral_pnl", "conversion")},
    "entry": "average entry",
    "margin": "isolated margin",
    "reserve": "reserve",
    "cash": "cash",
    "equity": "equity",
    "unit": "equity without deposits",
    "ends_sample": "sampling of returns",
    "signal": "signal at the close",
    "target": "target leverage",
    "overlay": "leverage of the overlay",
}
"""The columns of a trace, in the order in which a bar computes them."""
OF_POSITIONS = {
    "quantity": "position", **{name: name for name in PositionFields._fields if name in STEPS},
}  # fmt: skip
MONEY = frozenset({*SIGNS, "top_up", "cash", "margin", "reserve"})


@dataclass(frozen=True)
class Trace:
    """The account and its costs at each bar, arrays of shape (n_bars,).

    ``time`` are opens, ``interval`` the length of a bar, in ns. ``columns`` are those of
    :data:`STEPS`, of several positions also of each, ``"BTCUSDT position"``; equal values have
    equal bytes. ``inputs`` is a hash of the market data of each bar, None if they are not known.
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

    def is_same(self, other: Trace) -> bool:
        one, two = ({"": each.time, **each.columns} for each in (self, other))
        return one.keys() == two.keys() and all(one[x].tobytes() == two[x].tobytes() for x in one)


def name_field(column: str) -> str:
    return column.rpartition(" ")[2]


def take_trace(result: Result) -> Trace:
    n = len(result.time)
    columns = {name: result.of_account(name) for name in STEPS if name in AccountFields._fields}
    columns["ends_sample"] = result.ends_sample
    for i, instrument in enumerate(result.names):
        own = {
            name: getattr(result.quotes, name)[:, i]
            for name in ("close", "mark", "signal", "multiplier")
        }
        own |= {called: result.of_positions(name)[:, i] for name, called in OF_POSITIONS.items()}
        lead = "" if result.has_one_position else f"{instrument} "
        for name, values in own.items():
            columns.setdefault(f"{lead}{name}", values)
    prints: npt.NDArray[np.uint32] | None = None
    arrays: dict[str, FloatArray] = {}
    if result.markets is not None:
        mixed, markets = np.zeros(result.markets.n_bars, dtype=np.uint64), result.markets
        for market, (first, stop) in zip(markets.values(), markets.spans, strict=True):
            bars, mark, funding = market.bars(), market.mark(), market.funding()
            found = hash_rows(bars[sorted(map(str, bars))])
            if mark is not None:
                found ^= hash_rows(mark) * np.uint64(31)
            if funding is not None:
                rows = np.searchsorted(market.time, market.funding_time, side="right") - 1
                np.bitwise_xor.at(found, np.maximum(rows, 0), hash_rows(funding))
            mixed[first:stop] = mixed[first:stop] * np.uint64(31) + found
        prints = (mixed >> np.uint64(32)).astype(np.uint32)[-n:]
    for name, column in columns.items():  # equal values have equal bytes
        values = np.broadcast_to(column, (n,))
        values = np.where(np.isnan(values), np.nan, values + 0.0)
        arrays[name] = np.ascontiguousarray(values, dtype="<f8")
    return Trace(np.asarray(result.time), arrays, prints, result.tally.first_unit, result.interval)


def hash_rows(frame: pd.DataFrame) -> npt.NDArray[np.uint64]:
    return np.array(pd.util.hash_pandas_object(frame), dtype=np.uint64)


NEAR = 1e-9
"""The relative tolerance for bars of different platforms."""


@dataclass(frozen=True)
class ColumnMove:
    column: str
    bar: int
    was: float
    now: float
    count: int

    @property
    def step(self) -> str:
        instrument, _, field = self.column.rpartition(" ")
        return f"{STEPS[field]} of {instrument}" if instrument else STEPS[field]


@dataclass(frozen=True)
class BarMoves:
    is_exact: bool
    n_bars: int
    moves: tuple[ColumnMove, ...]
    first: int
    first_time: str
    data: ColumnMove | None
    data_time: str
    terms: dict[str, float]

    @property
    def is_same(self) -> bool:
        return self.first < 0

    @property
    def at_first(self) -> tuple[ColumnMove, ...]:
        return tuple(move for move in self.moves if move.bar == self.first)


def compare_traces(was: Trace, now: Trace, *, is_exact: bool) -> BarMoves:
    order = {name: place for place, name in enumerate(STEPS)}
    found = []
    for name, values in was.columns.items():
        other = now.columns[name]
        differs: BoolArray = values.view(np.uint64) != other.view(np.uint64)
        if not is_exact:
            size = np.maximum(np.abs(values), np.abs(other))
            if name_field(name) in MONEY:
                for scale in ("equity", "cash"):
                    size = np.maximum(size, np.abs(was.columns[scale]))
            with np.errstate(invalid="ignore"):
                is_near = np.abs(values - other) <= NEAR * size
            differs &= ~(is_near & np.isfinite(values) & np.isfinite(other))
        if differs.any():
            found.append(measure_move(name, values, other, differs))
    found.sort(key=lambda move: (move.bar, order[name_field(move.column)]))
    first = min((x.bar for x in found if name_field(x.column) not in ("close", "mark")), default=-1)
    data: ColumnMove | None = None
    if was.inputs is not None and now.inputs is not None and (was.inputs != now.inputs).any():
        none = np.full(len(was.time), np.nan)
        one, other = (each.columns.get("close", none) for each in (was, now))
        data = measure_move("inputs", one, other, was.inputs != now.inputs)
    terms = {
        name: sign * float(np.sum(now.columns[name]) - np.sum(was.columns[name]))
        for name, sign in SIGNS.items()
        if name in was.columns and name in now.columns
    }
    return BarMoves(
        is_exact=is_exact,
        n_bars=len(was.time),
        moves=tuple(found),
        first=first,
        first_time=core.format_time(int(was.time[first])) if first >= 0 else "",
        data=data,
        data_time=core.format_time(int(was.time[data.bar])) if data is not None else "",
        terms={name: value for name, value in terms.items() if value != 0.0},
    )


def measure_move(name: str, one: FloatArray, other: FloatArray, differs: BoolArray) -> ColumnMove:
    bar = int(differs.argmax())
    return ColumnMove(name, bar, float(one[bar]), float(other[bar]), int(differs.sum()))


FIGURES = {
    "walk_growth": ("growth_out_of_sample", 1),
    "walk_growth_in_sample": ("growth_in_sample", 0),
    "walk_growth_fixed": ("growth_fixed", 0),
    "walk_efficiency": ("efficiency", 1),
    "walk_efficiency_difference": ("efficiency_difference", 1),
    "walk_mean_rank": ("mean_rank", 1),
    "walk_probabilistic_sharpe": ("probabilistic_sharpe", 1),
}
OVERFIT = "walk_pbo"
BETTER_IF = {**{name: sign for name, (_, sign) in FIGURES.items()}, OVERFIT: -1}
FLOOR = 1e-12
"""Differences up to this count as rounding: a relative band of a measure of 0 has no width."""
WIDEST = 1e3
"""The widest relative tolerance; a wider one does not fail whatever the run does."""
BETTER, WORSE, NEITHER = "better", "worse", "neither better nor worse"


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
        ends = units.TOLERANCE * max(abs(was), abs(now))
        return abs(now - was) <= max(width or 0.0, FLOOR) + ends

    def __str__(self) -> str:
        if self.is_open:
            return "any"
        if self.relative is None:
            return f"{self.absolute:g}"
        is_small = self.relative < 1e-4
        return f"{self.relative:g} rel." if is_small else f"{self.relative * 100.0:g} %"

    def to_data(self) -> Any:
        if self.is_open:
            return "any"
        return {name: value for name, value in self._asdict().items() if value is not None}


def read_band(given: object, name: str) -> Band:
    """Read a tolerance: ``0.05``, ``"5%"``, ``"any"``, or what :meth:`Band.to_data` returns.

    Raises ParameterError for anything else, and for a relative one over :data:`WIDEST`.
    """
    kind, value = "absolute", given
    if isinstance(given, Mapping) and len(given) == 1:
        ((kind, value),) = given.items()
    elif isinstance(given, str) and given.strip() == "any":
        return Band()
    scale, width = 1.0, math.nan
    if isinstance(value, str) and value.rstrip().endswith("%"):
        kind, value, scale = "relative", value.rstrip()[:-1], 100.0
    if isinstance(value, str | float | int) and not isinstance(value, bool):
        with contextlib.suppress(ValueError):
            width = float(value) / scale
    if kind not in Band._fields or not 0.0 <= width < math.inf:
        raise core.ParameterError(
            f"{name} must be a number from 0, a percentage (5%) or 'any', which is reported and "
            f"never fails, got {given!r:.60}"
        )
    if kind == "relative" and width > WIDEST:
        raise core.ParameterError(f"{name} must be at most {WIDEST:g} relative, got {given!r:.60}")
    return Band(**{kind: width})


def check_bands(metrics: Mapping[str, float], bands: Mapping[str, Band]) -> None:
    """Raise ParameterError for a baseline that cannot fail.

    It has no measures, or none with a tolerance, or an absolute tolerance over :data:`WIDEST`
    times the size of its measure.
    """
    if not metrics:
        raise core.ParameterError("a baseline must have measures, got none")
    if all(bands[name].is_open for name in metrics):
        raise core.ParameterError(
            "a baseline must have a tolerance of at least one measure, got 'any' for all"
        )
    for name, value in metrics.items():
        width = bands[name].absolute
        most = WIDEST * find_scale(name, value, metrics)
        if width is not None and width > most:
            raise core.ParameterError(
                f"tolerance of {name} must be at most {most:g}, {WIDEST:g} times its size, got "
                f"{width:g}"
            )


def find_scale(name: str, value: float, metrics: Mapping[str, float]) -> float:
    """Return what an absolute tolerance is judged by: 1, the value, of money also all others."""
    sizes = [value]
    if name in ABOUT and ABOUT[name].unit == MONEY_UNIT:
        sizes += [metrics.get(other, 0.0) for other, about in ABOUT.items()
                  if about.unit == MONEY_UNIT]  # fmt: skip
    return max([1.0, *(abs(size) for size in sizes if math.isfinite(size))])


def choose_bands(
    metrics: Iterable[str], wanted: Mapping[str, object], under: Mapping[str, Band]
) -> dict[str, Band]:
    names = list(metrics)
    bands = {name: under.get(name, Band(relative=1e-9)) for name in names}
    for pattern, given in wanted.items():
        band = read_band(given, f"tolerance.{pattern}")
        bands |= dict.fromkeys(match_names(pattern, names, "tolerance"), band)
    return bands


def match_names(pattern: str, known: Sequence[str], argument: str) -> list[str]:
    found = fnmatch.filter(known, pattern)
    if not found:
        raise core.ParameterError(
            f"{argument} must name measures (docs/metrics.md) or a pattern such as es_*, got "
            f"{pattern!r}{core.did_you_mean(pattern, known)}"
        )
    return found


def find_direction(name: str, was: float, now: float) -> str:
    better = BETTER_IF.get(name, 0) if name not in ABOUT else ABOUT[name].better
    if name in ("ruin_time", "time_to_first_liquidation"):  # never is best
        was, now = (math.inf if math.isnan(value) else value for value in (was, now))
    if better == 0 or was == now or math.isnan(was) or math.isnan(now):
        return NEITHER
    return BETTER if (now > was) == (better > 0) else WORSE


CONFIDENCE, DRAWS, SEED = 0.95, 1_999, 0
ROUNDING = 1e-9
"""Returns are the same if their differences are this small relative to them (root mean square)."""

NOISY = {"log_growth": ("total_return", "cagr", "final_equity"), "sharpe": ("sharpe",)}
"""Statistics of the returns whose differences have a test, and the measures that follow them."""
INDISTINGUISHABLE, UNKNOWN = "indistinguishable", "unknown"


class Noise(NamedTuple):
    """The difference in log growth per year, now less baseline, and its test.

    ``verdict`` is worse, better or indistinguishable, or unknown if nothing can be measured;
    ``reason`` explains a verdict without a test. ``low`` and ``high`` bound ``difference``.
    ``within`` are the measures of the returns whose intervals contain no difference.
    """

    verdict: str
    reason: str
    samples: int
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p_value: float = math.nan
    within: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.reason:
            return f"{self.verdict}: {self.reason}"
        return (
            f"{self.verdict}: log growth {self.difference:+.3g} per year, {CONFIDENCE:.0%} "
            f"interval {self.low:+.3g} to {self.high:+.3g}, p = {self.p_value:.3g}, "
            f"{self.samples} returns"
        )


def compare_returns(
    was: Trace, now: Trace, *, was_ruined: bool = False, is_ruined: bool = False
) -> Noise:
    rows = np.array([now.returns, was.returns])
    n = rows.shape[1]
    size = math.sqrt(float(np.max(np.mean(rows**2, axis=1))))
    if math.sqrt(float(np.mean((rows[0] - rows[1]) ** 2))) <= ROUNDING * size:
        return Noise(INDISTINGUISHABLE, "every return is the same", n, 0.0, 0.0, 0.0, 1.0)
    ends = [flag or bool((row <= -1.0).any()) for flag, row in zip((is_ruined, was_ruined), rows)]  # noqa: B905
    if ends[0] != ends[1]:
        return Noise(WORSE if ends[0] else BETTER, "one of the two accounts is ruined", n)
    if (rows <= -1.0).any():
        return Noise(UNKNOWN, "both accounts are ruined", n)
    if n < LEAST_SAMPLES:
        return Noise(UNKNOWN, f"{n} returns are too few, {LEAST_SAMPLES} are needed", n)
    years = (int(was.time[-1]) + was.interval - int(was.time[0])) / (units.YEAR_DAYS * units.DAY)
    sampled = Sampled(rows, np.zeros(n), n / years, n / years)
    how: Any = {"confidence": CONFIDENCE, "draws": DRAWS}
    drawn = {
        name: compare_pairs(
            sampled, np.array([[0, 1]]), name, **how, rng=np.random.default_rng(SEED)
        )
        for name in NOISY
    }
    found = drawn["log_growth"]
    difference, low, high, p_value = (
        float(x[0]) for x in (found.difference, found.low, found.high, found.p_value)
    )
    if math.isnan(p_value):
        return Noise(UNKNOWN, "log growth does not exist", n)
    is_noise = {name: each.p_value[0] > 1.0 - CONFIDENCE + 1e-12 for name, each in drawn.items()}
    moved = BETTER if difference > 0.0 else WORSE
    verdict = INDISTINGUISHABLE if is_noise["log_growth"] else moved
    within = tuple(each for name, names in NOISY.items() if is_noise[name] for each in names)
    return Noise(verdict, "", n, difference, low, high, p_value, within)


ROOMS = (
    *("_compile", "account", "core", "engine", "indicators", "margin", "market", "policies"),
    *("results", "signals", "venue"),
)
"""The folders whose code computes a run."""
POLICY = ("text", "name", "settings", "source_hash", "by_instrument", "switches")
RUN = ("signal", "sampling", "calendar", "resumed_from")
LONGEST = 64
"""The length up to which lists are kept; longer ones are replaced by a hash."""
REPEATED = frozenset({"policy.text", "data.flows_after_the_end"})


class FactChange(NamedTuple):
    kind: str
    name: str
    was: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.name}: {shorten_value(self.was)} -> {shorten_value(self.now)}"


@functools.cache
def hash_rooms(rooms: tuple[str, ...]) -> str:
    root = Path(__file__).parents[1]
    files = sorted(path for room in rooms for path in (root / room).rglob("*.py"))
    texts = (file.read_bytes().replace(b"\r\n", b"\n") for file in files)
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


def drop_sources(data: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in data.items() if name != "source"}
    if "instruments" in kept:
        kept["instruments"] = {
            name: drop_sources(each) for name, each in data["instruments"].items()
        }
    return kept


def hash_data(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def shorten_lists(value: Any) -> Any:
    if not isinstance(value, (Mapping, list, tuple)):
        return value
    if len(value) > LONGEST:
        return f"{len(value)} entries, sha256:{hash_data(core.to_plain(value))}"
    if isinstance(value, Mapping):
        return {str(key): shorten_lists(item) for key, item in value.items()}
    return [shorten_lists(item) for item in value]


def list_changes(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[FactChange]:
    return [
        FactChange(re.split(r"[.\[]", name, maxsplit=1)[0], name, one, other)
        for name, one, other in walk_differences(was, now)
        if name not in REPEATED
    ]


def shorten_value(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text[:8] if re.fullmatch("[0-9a-f]{64}", text) else core.clip(text, 60)


WALK, JUDGED = "walk", "judged"
WINNERS = "winners"
SEARCH = ("space", "objective", "constraints", "trials", "seed", "sampler", "robust",
          "patience")  # fmt: skip


FORMAT = 2
EXACT, TOLERANCE = "exact", "tolerance"
MODES = (EXACT, TOLERANCE)


@dataclass(frozen=True)
class Baseline:
    """The record of a run, or of the account of a walk forward.

    ``experiment`` is the path of its file, relative to the baseline's folder, None for a test's
    result; ``facts`` are the inputs, ``host`` the platform, ``metrics`` and ``bands`` all measures
    and their tolerances, ``trace`` the account at each bar, ``history`` each rewrite with its
    reason and the old values.
    """

    name: str
    experiment: str | None
    mode: str
    facts: Mapping[str, Any]
    host: Mapping[str, str]
    metrics: Mapping[str, float]
    bands: Mapping[str, Band]
    trace: Trace
    history: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self) -> None:
        check_bands(self.metrics, self.bands)

    def is_other_than(self, other: Baseline) -> bool:
        return (
            bool(list_changes(self.facts, other.facts))
            or self.host != other.host
            or self.metrics.keys() != other.metrics.keys()
            or bool(list_moved(self, other))
            or not self.trace.is_same(other.trace)
        )


def take_baseline(
    result: Result | WalkForward | Judgement,
    name: str,
    *,
    experiment: str | None = None,
    mode: str = EXACT,
    tolerance: Mapping[str, object] | None = None,
) -> Baseline:
    """Return the baseline of a result; of a walk, the baseline of its re-optimized account.

    Of a judgement it is that of its account on the first market, with the figures of all.

    ``tolerance`` names measures or patterns, ``{"*": "5%", "sharpe": 0.05}``; the last match
    applies. Other measures have a relative tolerance of 1e-9.
    """
    account = choose_account(result)
    own, policy = account.manifest, account.manifest["policy"]
    given: dict[str, Any] = {
        "data": drop_sources(own["data"]),
        "policy": {name: policy[name] for name in POLICY if name in policy},
        **({"overlay": own["overlay"]} if own.get("overlay") else {}),
        "venue": own["venue"],
        "account": own["account"],
        "run": {name: own[name] for name in RUN},
        "engine": {
            "version": own["versions"]["leverage-backtest"],
            "source_hash": hash_rooms(ROOMS),
        },
    }
    facts: dict[str, Any] = core.to_plain(shorten_lists(given))
    metrics = {name: float(value) for name, value in account.metrics.items()}
    if isinstance(result, WalkForward):
        manifest = result.manifest
        spans = [name for name in manifest["spans"]["columns"] if name in result.folds]
        winners = result.folds.drop(columns=spans).loc[:, :"in_sample"].drop(columns="in_sample")
        search = {
            **{name: manifest[name] for name in SEARCH if name in manifest},
            "folds": len(result.folds),
            "spans": hash_data(manifest["spans"]),
            "source_hash": hash_rooms(("search", "sweep")),
        }
        facts["policy"] = {name: facts["policy"][name] for name in ("name", "source_hash")}
        facts[WALK] = shorten_lists(search)
        facts[WINNERS] = shorten_lists(winners.to_dict("records"))
        metrics |= {x: float(result.figures[key]) for x, (key, _) in FIGURES.items()}
        metrics[OVERFIT] = float(result.pbo)
    if isinstance(result, Judgement):
        names = ("markets", "tune", "n_paths", "draws", "seed")
        facts[JUDGED] = {each: result.settings[each] for each in names}
        facts[JUDGED] |= {
            "outcome": result.outcome,
            "data": result.manifest["data"]["content_hash"],
            "source_hash": hash_rooms(("judgement", "risk", "search", "sweep")),
        }
        metrics |= result.measures
    name_of_processor, features = _compile.describe_processor()
    return Baseline(
        name=name,
        experiment=experiment,
        mode=check_mode(mode),
        facts=facts,
        host={
            "system": platform.system(),
            "machine": platform.machine(),
            "cpu": name_of_processor,
            "cpu_features": " ".join(features),
            "libm": " ".join(platform.libc_ver()).strip() or platform.release(),
            "python": platform.python_version(),
            **{each: core.find_version(each) for each in LIBRARIES},
            **{each.lower(): os.environ[each] for each in OVERRIDES if os.environ.get(each)},
        },
        metrics=metrics,
        bands=choose_bands(metrics, tolerance or {}, {}),
        trace=take_trace(account),
    )


def choose_account(result: Result | WalkForward | Judgement) -> Result:
    """Return the account whose bars a baseline keeps."""
    if isinstance(result, WalkForward):
        return result.result
    if not isinstance(result, Judgement):
        return result
    if not result.accounts or result.faults:
        why = "; ".join(f"{name} failed: {why}" for name, why in result.faults.items())
        raise core.DataError(
            "the baseline of a judgement needs its accounts on all markets, "
            f"got {why or 'a loaded one: judge again'}"
        )
    return next(iter(result.accounts.values()))


def check_mode(mode: str) -> str:
    return str(core.Choice(*MODES).check("mode", mode))


def rewrite_baseline(old: Baseline, new: Baseline, reason: str) -> Baseline:
    """Return a baseline that replaces an old one, with the reason and old values in its history.

    Name, experiment, mode and tolerances are those of the old one.
    """
    given = reason.strip()
    if not given:
        raise core.ParameterError("rewriting a baseline needs a reason, got none")
    entry = {
        "reason": given,
        "changed": [str(each) for each in list_changes(old.facts, new.facts)],
        "platform": list_host_changes(old.host, new.host),
        "metrics": list_moved(old, new),
    }
    return replace(
        new,
        name=old.name,
        experiment=old.experiment,
        mode=old.mode,
        bands={name: old.bands.get(name, band) for name, band in new.bands.items()},
        history=(*old.history, core.to_plain(entry)),
    )


def list_moved(old: Baseline, new: Baseline) -> dict[str, float]:
    return {
        name: value
        for name, value in old.metrics.items()
        if name not in new.metrics
        or not (value == new.metrics[name] or (math.isnan(value) and math.isnan(new.metrics[name])))
    }


LIBRARIES = ("numpy", "numba", "llvmlite", "scipy", "pandas", "arch")
OVERRIDES = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NPY_DISABLE_CPU_FEATURES")


def list_host_changes(was: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    found = []
    for name in {**was, **now}:
        one, other = was.get(name, "none"), now.get(name, "none")
        if one != other:
            is_short = max(len(one), len(other)) <= 24
            found.append(f"{name} {one} -> {other}" if is_short else name)
    return found


def name_baseline(text: str) -> str:
    return re.sub(r"[^\w.]+", "-", text).strip("-.")[:100] or "baseline"


def find_baselines(places: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for place in places:
        if not place.exists():
            raise core.DataError(
                f"there is no baseline at {place}; record one: backtest regress record EXPERIMENT "
                "--out FOLDER"
            )
        found += sorted(place.glob("*.json")) if place.is_dir() else [place]
    if not found:
        raise core.DataError(f"there is no baseline to check in {', '.join(map(str, places))}")
    return list(dict.fromkeys(found))


def check_unique_names(paths: Sequence[Path], names: Sequence[str]) -> None:
    seen: dict[str, Path] = {}
    for path, name in zip(paths, names, strict=True):
        other = seen.setdefault(name.casefold(), path)
        if other != path:
            raise core.DataError(
                f"each experiment has one baseline, {name!r} has two, {other} and {path}"
            )


def save_baseline(baseline: Baseline, folder: Path) -> Path:
    trace, buffer = baseline.trace, pa.BufferOutputStream()
    inputs = {} if trace.inputs is None else {"inputs": trace.inputs}
    pq.write_table(
        pa.table({"time": trace.time, **trace.columns, **inputs}),
        buffer,
        compression="zstd",
        compression_level=9,
        use_dictionary=False,
        use_byte_stream_split=list(trace.columns),
        write_statistics=False,
        store_schema=False,
    )
    target, content = folder / f"{baseline.name}.json", buffer.getvalue().to_pybytes()
    digest = hashlib.sha256(content).hexdigest()
    bars = f"{baseline.name}.{digest[:16]}.parquet"
    document = {
        "format": FORMAT,
        "name": baseline.name,
        "experiment": baseline.experiment,
        "mode": baseline.mode,
        "facts": baseline.facts,
        "platform": baseline.host,
        "metrics": {
            name: {"value": value, "tolerance": baseline.bands[name].to_data()}
            for name, value in baseline.metrics.items()
        },
        "bars": {
            "file": bars,
            "sha256": digest,
            "interval": baseline.trace.interval,
            "first_unit": baseline.trace.first_unit,
        },
        "history": list(baseline.history),
    }
    text = json.dumps(core.to_plain(document), indent=1, sort_keys=True, ensure_ascii=False)
    with core.writing(target, "baseline"):
        folder.mkdir(parents=True, exist_ok=True)
        core.write_file(folder / bars, content)
        core.write_file(target, (text + "\n").encode())
        is_of_it = re.compile(rf"{re.escape(baseline.name)}\.[0-9a-f]{{16}}\.parquet")
        for older in folder.iterdir():
            if is_of_it.fullmatch(older.name) and older.name != bars:
                older.unlink(missing_ok=True)
    return target


def load_baseline(path: Path) -> Baseline:
    """Load a baseline; raise DataError if a file is missing, damaged or changed."""
    try:
        return _read_baseline(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError,
            core.ParameterError, pa.ArrowException) as error:  # fmt: skip
        reason = repr(error) if isinstance(error, KeyError) else core.describe_fault(error)
        raise core.DataError(
            f"{path}: a baseline must be whole: {reason}; restore it from version control, or "
            "record it again"
        ) from error


def _read_baseline(path: Path) -> Baseline:
    document = core.parse_json(core.read_small(path), path)
    about, metrics = document["bars"], document["metrics"]
    content = (path.parent / Path(about["file"]).name).read_bytes()
    for name, found, wanted in (
        ("format", document["format"], FORMAT),
        ("name", document["name"], path.stem),
        ("hash of its bars", hashlib.sha256(content).hexdigest(), about["sha256"]),
    ):
        if found != wanted:
            raise ValueError(f"its {name} must be {wanted}, got {found}")
    experiment = document["experiment"]
    if experiment is not None:
        experiment = check_kind("experiment", experiment, str)
    return Baseline(
        name=document["name"],
        experiment=experiment,
        mode=check_mode(document["mode"]),
        facts=check_kind("facts", document["facts"], dict),
        host={
            x: str(each) for x, each in check_kind("platform", document["platform"], dict).items()
        },
        metrics={name: read_measure(name, each["value"]) for name, each in metrics.items()},
        bands={x: read_band(each["tolerance"], f"metrics.{x}") for x, each in metrics.items()},
        trace=read_trace(content, about),
        history=tuple(check_kind("history", document["history"], list)),
    )


Kind = TypeVar("Kind", str, dict, list)  # type: ignore[type-arg]


def check_kind(name: str, value: object, kind: type[Kind]) -> Kind:
    if not isinstance(value, kind):
        raise TypeError(f"its {name} must be a {kind.__name__}, got {value!r:.60}")
    return value


def read_measure(name: str, given: object) -> float:
    value = core.from_plain(given)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"metrics.{name}.value must be a number, got {given!r:.60}")
    return float(value)


def read_trace(content: bytes, about: Mapping[str, Any]) -> Trace:
    """Read the bars of a baseline, and check that they have the types that are compared."""
    table = pq.read_table(pa.BufferReader(content))
    arrays = {name: np.ascontiguousarray(table[name].to_numpy()) for name in table.column_names}
    time = arrays.pop("time")
    inputs = arrays.pop("inputs", None)
    for name, column, kind in (
        ("time", time, np.int64),
        ("inputs", inputs, np.uint32),
        *((name, column, np.float64) for name, column in arrays.items()),
    ):
        if column is not None and column.dtype != kind:
            raise TypeError(f"its column {name} must be {kind.__name__}, got {column.dtype}")
    interval = int(about["interval"])
    if interval <= 0 or not len(time):
        raise ValueError("its bars must be at least one, with an interval over 0")
    return Trace(
        time=time,
        inputs=inputs,
        columns=arrays,
        first_unit=float(about["first_unit"]),
        interval=interval,
    )
