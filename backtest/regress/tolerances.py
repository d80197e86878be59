"""Tolerance bands of measures, and the facts of a walk besides its account."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from backtest.base import ParameterError, did_you_mean
from backtest.base.units import TOLERANCE
from backtest.engine import Result
from backtest.measures.measure_table import ABOUT
from backtest.regress.run_identity import gather_facts, hash_data, hash_wings, shorten_lists
from backtest.validation import read_figures

if TYPE_CHECKING:
    from backtest.validation import WalkForward


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


WALK = "walk"
WINNERS = "winners"
SEARCHED_BY = ("sweep", "tune", "validation")
SEARCH = ("space", "objective", "constraints", "trials", "seed", "sampler", "robust")
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


def require_account(walk: WalkForward) -> Result:
    if walk.result is None:
        raise ParameterError(
            "a baseline of a walk records one account, this walk opened a new one in every fold: "
            "carry=False"
        )
    if not isinstance(walk.result, Result):
        raise ParameterError(
            f"a baseline of a walk records one account, this walk has {len(walk.result.results)}; "
            "record each by itself: bt.record(walk.result.results['BTC'], ...)"
        )
    return walk.result


def measure_walk(walk: WalkForward) -> dict[str, float]:
    metrics = {name: float(value) for name, value in require_account(walk).metrics.items()}
    figures = {name: read_figures(walk.figures, key) for name, (key, _) in FIGURES.items()}
    return {**metrics, **figures, OVERFIT: float(walk.pbo)}


def gather_walk_facts(walk: WalkForward) -> dict[str, Any]:
    manifest, facts = walk.manifest, gather_facts(require_account(walk))
    names = [name for name in manifest["spans"]["columns"] if name in walk.folds]
    winners = walk.folds.drop(columns=names).loc[:, :"in_sample"].drop(columns="in_sample")
    kept = ("name", "source_hash", "file_hash")
    search = {
        **{name: manifest[name] for name in SEARCH},
        "folds": len(walk.folds),
        "spans": hash_data(manifest["spans"]),
        "source_hash": hash_wings(SEARCHED_BY),
    }
    return {
        **facts,
        "policy": {name: facts["policy"][name] for name in kept},
        WALK: shorten_lists(search),
        WINNERS: shorten_lists(winners.to_dict("records")),
    }
