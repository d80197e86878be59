"""Scores of dated forecasts: what was told, what came, and what the record says of the next one.

A *record* has the forecasts of one event at past dates whose horizons do not overlap, and a
*correction* is what logistic regression makes of it. A *ratio* is what came over the end of an
interval that was told, a value at risk or a band; *factors* widen or narrow an interval so that it
holds as often as was promised.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import core
from backtest.core.number_text import Head
from backtest.core.result_parts import Part, Shown, ShownTable

MOST_DATES = 60
"""Past dates of one forecast, at most."""
SCORED_PATHS = 2_000
"""Paths that are simulated at each date."""
LEAST_DATES = 10
"""Dates under which it is too early to score a forecast."""
LEAST_EVENTS = 10
"""Events, and non-events, from which on a record corrects a forecast."""
FEW_EVENTS = 30
"""Events under which the intercept alone is fitted: a slope from 20 events is mostly noise."""
PRIOR = 0.5
"""Standard deviation of the intercept and of the slope less 1 before any record. Plain regression
on 60 dates makes a right forecast worse by .014 to .023 of Brier score."""
LEAST_TOLD = 0.5 / SCORED_PATHS
"""Probabilities from there to one less it have finite log odds: half a path."""
GAMMA = 0.1
"""Step of the adaptive level, as Gibbs and Candès have it."""
BURN_IN = 20
"""Dates from which on a bound is adapted."""
ALL = "all"
CALM_DAYS = "calm"
OTHER_DAYS = "other"
TOO_EARLY = "too early"
AS_TOLD = "as forecast"
TOO_HIGH = "forecast too high"
TOO_LOW = "forecast too low"
NONE_CAME = "none came"
"""Not "as forecast": of how rare an event is, dates without one say only that it is not common."""
SCORES = (
    "forecast", "days", "n", "told", "came", "low", "high", "slope", "brier", "today",
    "recalibrated", "recalibrated_brier", "verdict",
)  # fmt: skip
INTERVALS = (
    "forecast", "n", "promised", "held", "low", "high", "adapted_n", "told_held", "adapted_held",
    "today_low", "today_high", "adapted_low", "adapted_high", "beyond", "beyond_n", "verdict",
)  # fmt: skip


def estimate(
    hits: float,
    n: int,
    confidence: float,
) -> tuple[float, float, float]:
    """Return the share of n that were hit, and its interval by Clopper and Pearson.

    Source: Clopper and Pearson (1934), Biometrika 26(4).
    """
    side = 0.5 * (1.0 - confidence)
    low = 0.0
    if hits:
        of_low = core.sp.special.betaincinv(hits, n - hits + 1, side)
        low = float(of_low)

    high = 1.0
    if hits < n:
        of_high = core.sp.special.betaincinv(hits + 1, n - hits, 1.0 - side)
        high = float(of_high)

    return hits / n, low, high


class Record(NamedTuple):
    """Forecasts of one event at past dates, in order of time, and what came; all (n,).

    ``time`` are the closes at which they were made, ns; ``told`` are probabilities. A date
    ``is_calm`` by the same rule as that of today.
    """

    time: core.IntArray
    told: core.FloatArray
    came: core.BoolArray
    is_calm: core.BoolArray

    def select(self, chosen: core.BoolArray) -> Record:
        """Return the forecasts of some dates."""
        return Record(
            self.time[chosen],
            self.told[chosen],
            self.came[chosen],
            self.is_calm[chosen],
        )


def leave_untold(time: core.IntArray) -> Record:
    """Return the record of dates that are too few: nothing was told, or came."""
    n = len(time)
    return Record(
        time,
        told=np.full(n, np.nan),
        came=np.zeros(n, np.bool_),
        is_calm=np.zeros(n, np.bool_),
    )


def choose_dates(
    first: int,
    last: int,
    bars: int,
    longer: int = 0,
) -> core.IntArray:
    """Return the bars at whose closes the next ``bars`` bars are forecast, increasing.

    They lie as far apart as those bars or farther, so that no bar is forecast at two dates. None
    lies before ``first``, and no forecast goes beyond the bar ``last``. Of more than 60 that there
    are room for, 60 are taken, evenly apart.

    A longer horizon may have dates of its own, ``longer`` bars apart (0: none). Then the distance
    is a whole share of that if one fits, so that both have dates in common, whose paths serve both.
    """
    span = max(last - first, 0)
    count = span // bars
    step = bars
    if count > MOST_DATES:
        step = span // MOST_DATES
    step = find_common_step(step, bars, longer)
    steps_before = np.arange(min(count, MOST_DATES), 0, -1)
    return last - step * steps_before


def find_common_step(
    step: int,
    bars: int,
    longer: int,
) -> int:
    """Return the largest whole share of a longer step that is ``bars`` to ``step``, or the step."""
    fewest = -(-longer // step)  # rounded up
    most = longer // bars
    for share in range(fewest, most + 1):
        if share and longer % share == 0:
            return longer // share
    return step


class Correction(NamedTuple):
    """Log odds that a record says instead of those that were told: ``intercept + slope x``.

    ``covariance`` (2, 2) is that of the two by the record and the prior; zero where a slope was
    not fitted.
    """

    intercept: float
    slope: float
    covariance: core.FloatArray

    def apply(self, told: Any) -> core.FloatArray:
        """Return the recalibrated probabilities of some that were told."""
        odds = self.intercept + self.slope * find_log_odds(told)
        return np.asarray(core.sp.special.expit(odds))

    def find_error(self, told: Any) -> core.FloatArray:
        """Return the standard error of the recalibrated log odds of some that were told."""
        odds = find_log_odds(told)
        rows = np.stack([np.ones_like(odds), odds])
        variance = np.einsum("i...,ij,j...->...", rows, self.covariance, rows)
        return np.asarray(np.sqrt(variance))


def find_log_odds(told: Any) -> core.FloatArray:
    """Return the log odds of probabilities, which are finite."""
    chances = np.asarray(told, np.float64)
    clipped = np.clip(chances, LEAST_TOLD, 1.0 - LEAST_TOLD)
    return np.asarray(core.sp.special.logit(clipped))


def fit_correction(
    told: core.FloatArray,
    came: core.BoolArray,
) -> Correction | None:
    """Return the correction of a record; None under 10 events or 10 non-events.

    The mode of the logistic likelihood of ``came`` (n,) times normal priors of the intercept and of
    the slope less 1, with a deviation of .5 each. Under 30 events the slope stays 1.
    """
    events = int(np.count_nonzero(came))
    non_events = len(came) - events
    if min(events, non_events) < LEAST_EVENTS:
        return None

    # By Newton's method: the penalized likelihood has one mode, and no step is longer than 1.
    odds = find_log_odds(told)
    table = np.column_stack([np.ones(len(odds)), odds])
    expected = np.array([0.0, 1.0])  # of the intercept and the slope, before any record
    weights = expected.copy()

    # Of the two weights, the intercept is fitted, and from 30 events on the slope.
    fitted = 1 if events < FEW_EVENTS else 2
    x = table[:, :fitted]
    inverse = np.zeros((fitted, fitted))

    for _ in range(100):
        chance = core.sp.special.expit(table @ weights)
        pull = (weights - expected)[:fitted] / PRIOR**2
        gradient = x.T @ (chance - came) + pull
        variance = chance * (1.0 - chance)
        curvature = (x.T * variance) @ x + np.eye(fitted) / PRIOR**2
        inverse = np.linalg.inv(curvature)

        step = inverse @ gradient
        length = float(np.max(np.abs(step)))
        weights[:fitted] -= step / max(length, 1.0)
        if length < 1e-12:
            break

    covariance = np.zeros((2, 2))
    covariance[:fitted, :fitted] = inverse
    intercept, slope = weights.tolist()
    return Correction(intercept, slope, covariance)


def correct_dates(record: Record) -> core.FloatArray:
    """Return each forecast as the record before it corrects it, (n,); as told until it does."""
    corrected = record.told.copy()
    for k in range(len(corrected)):
        told_before = record.told[:k]
        correction = fit_correction(told_before, record.came[:k])
        if correction is not None:
            corrected[k] = correction.apply(record.told[k])
    return corrected


def measure_slope(record: Record) -> float:
    """Return the slope of what came on what was told; NaN if either is the same at all dates.

    1 where a forecast of twice as much comes twice as often.
    """
    centered = record.told - np.mean(record.told)
    spread = float(centered @ centered)
    told_same = spread <= 1e-18 * len(centered)  # to rounding
    came_same = record.came.all() or not record.came.any()
    if told_same or came_same:
        return math.nan
    return float(centered @ record.came) / spread


def measure_record(record: Record) -> dict[str, Any]:
    """Return n, told, came with its 95 % interval, slope, Brier score and verdict of a record."""
    n = len(record.told)
    row: dict[str, Any] = dict.fromkeys(SCORES[3:9], math.nan)
    row |= {"n": n, "verdict": f"{TOO_EARLY}: {core.count_nouns(n, 'date')}"}
    if n == 0 or np.isnan(record.told).any():
        return row

    came, low, high = estimate(int(np.count_nonzero(record.came)), n, 0.95)
    told = float(np.mean(record.told))
    row |= {
        "told": told,
        "came": came,
        "low": low,
        "high": high,
        "slope": measure_slope(record),
        "brier": float(np.mean((record.told - record.came) ** 2)),
    }

    if n < LEAST_DATES:
        return row
    if told > high:
        row["verdict"] = TOO_HIGH
    elif told < low:
        row["verdict"] = TOO_LOW
    elif came == 0.0:
        row["verdict"] = NONE_CAME
    else:
        row["verdict"] = AS_TOLD
    return row


def list_scores(
    name: str,
    record: Record,
    today: float,
) -> Iterator[dict[str, Any]]:
    """Yield the scores of a forecast: of all dates, of calm ones, and of the others.

    ``today`` is the probability that is told now. The row also has what the record makes of it.
    """
    recalibrated = math.nan
    correction = fit_correction(record.told, record.came)
    if correction is not None and not math.isnan(today):
        recalibrated = float(correction.apply(today))

    # The Brier score of the corrections, if the record made any.
    brier = math.nan
    is_untold = bool(np.isnan(record.told).any())
    corrected = correct_dates(record)
    if not is_untold and np.any(corrected != record.told):
        errors = corrected - record.came
        brier = float(np.mean(errors**2))

    yield {
        "forecast": name,
        "days": ALL,
        **measure_record(record),
        "today": today,
        "recalibrated": recalibrated,
        "recalibrated_brier": brier,
    }
    if is_untold:
        return

    of_today = ("today", "recalibrated", "recalibrated_brier")
    absent = dict.fromkeys(of_today, math.nan)
    parts = ((CALM_DAYS, record.is_calm), (OTHER_DAYS, ~record.is_calm))
    for days, chosen in parts:
        row = measure_record(record.select(chosen))
        yield {
            "forecast": name,
            "days": days,
            **row,
            **absent,
        }


class IntervalRecord(NamedTuple):
    """Ends of an interval of a quantity that were told at past dates, and what came.

    ``ratios`` (n,) are what came over the bound: over 1 the bound did not hold, which it promises
    for a share ``promised``. ``today`` are the intervals told now, without a bound minus infinity,
    around the ``center``. An expected shortfall ``is_mean``, of the losses beyond a value at risk:
    its ratios and share are those of that value, and ``beyond`` is the mean loss beyond it in
    ``beyond_n`` dates, over what was told.
    """

    time: core.IntArray
    ratios: core.FloatArray
    promised: float
    today: tuple[float, float]
    center: float = 0.0
    is_mean: bool = False
    beyond: float = math.nan
    beyond_n: int = 0


def adapt_factors(ratios: core.FloatArray, promised: float) -> core.FloatArray:
    """Return by what each bound is multiplied, and the next one, (n + 1,); NaN for the first 20.

    Notes
    -----
    ``factor_t`` is the quantile of the ratios before t at the level ``1 - a_t``, and ``a_{t+1} =
    a_t + gamma (a - e_t)``: a is the promised share of failures, and e_t whether the factor failed.
    A level beyond what so few ratios can show is their largest. Source: Gibbs and Candès (2021),
    Adaptive Conformal Inference Under Distribution Shift, NeurIPS 34.
    """
    n = len(ratios)
    factors = np.full(n + 1, np.nan)
    failing = 1.0 - promised
    level = failing

    for k in range(BURN_IN, n + 1):
        before = ratios[:k]
        asked = min(max(1.0 - level, 0.0), 1.0)
        factors[k] = np.quantile(before, asked, method="weibull")

        # The level falls after a failure, and rises after a bound that held.
        if k < n:
            failed = float(ratios[k] > factors[k])
            level += GAMMA * (failing - failed)

    return factors


def measure_interval(name: str, record: IntervalRecord) -> dict[str, Any]:
    """Return the row of a forecast interval: how often it held, and what it is today.

    Both are of the interval as it was told, and as it would have been adapted to its own record:
    wider after dates on which it did not hold, narrower after others (:func:`adapt_factors`). The
    first BURN_IN dates only set the width, and are not counted. Names are those of INTERVALS; what
    is not known is NaN. Of an expected shortfall no share is promised, and none is given.
    """
    n = len(record.ratios)
    row: dict[str, Any] = dict.fromkeys(INTERVALS, math.nan)
    row |= {
        "forecast": name,
        "n": n,
        "adapted_n": max(n - BURN_IN, 0),
        "today_low": record.today[0],
        "today_high": record.today[1],
        "beyond": record.beyond,
        "beyond_n": record.beyond_n,
        "verdict": judge_interval(record),
    }
    is_held = record.ratios <= 1.0
    if n and not record.is_mean:
        n_held = int(np.count_nonzero(is_held))
        share, low, high = estimate(n_held, n, 0.95)
        row |= {
            "promised": record.promised,
            "held": share,
            "low": low,
            "high": high,
        }
    if n <= BURN_IN:
        return row

    factors = adapt_factors(record.ratios, record.promised)
    after = slice(BURN_IN, n)
    if not record.is_mean:
        row["told_held"] = float(np.mean(is_held[after]))
        is_held_adapted = record.ratios[after] <= factors[after]
        row["adapted_held"] = float(np.mean(is_held_adapted))

    factor = float(factors[n])
    for end, told in zip(("low", "high"), record.today, strict=True):
        distance = told - record.center
        row[f"adapted_{end}"] = record.center + factor * distance
    return row


def judge_interval(record: IntervalRecord) -> str:
    """Return whether a bound held as often as promised, or that it is too early to say."""
    n = len(record.ratios)
    if record.is_mean and record.beyond_n >= LEAST_EVENTS:
        return ""
    if record.is_mean:
        return f"{TOO_EARLY}: {core.count_nouns(record.beyond_n, 'loss')} beyond"
    if n < LEAST_DATES:
        return f"{TOO_EARLY}: {core.count_nouns(n, 'date')}"

    n_held = int(np.count_nonzero(record.ratios <= 1.0))
    _, low, high = estimate(n_held, n, 0.95)
    if low > record.promised:
        return "held too often"
    if high < record.promised:
        return "held too seldom"
    return AS_TOLD


class Scored(NamedTuple):
    """Tables of scores: of probabilities, of intervals, and each dated forecast."""

    scores: pd.DataFrame
    intervals: pd.DataFrame
    forecasts: pd.DataFrame


def tabulate_scores(
    records: Mapping[str, tuple[Record, float]],
    intervals: Mapping[str, IntervalRecord] | None = None,
) -> Scored:
    """Return the tables of some records of forecasts, each with the probability of today.

    In a row of ``forecasts``, ``told`` is the probability that was stated, ``corrected`` the same
    by the past of the record, and ``came`` whether the event came.
    """
    scores: list[dict[str, Any]] = []
    forecasts: list[dict[str, Any]] = []
    for name, (record, today) in records.items():
        scores += list_scores(name, record, today)
        forecasts += list_forecasts(name, record)

    held = []
    for name, bound in (intervals or {}).items():
        held.append(measure_interval(name, bound))

    columns = ["forecast", "time", "told", "corrected", "came", "is_calm"]
    score_table = pd.DataFrame(scores, columns=list(SCORES))
    interval_table = pd.DataFrame(held, columns=list(INTERVALS))
    forecast_table = pd.DataFrame(forecasts, columns=columns)
    return Scored(
        scores=score_table.set_index("forecast"),
        intervals=interval_table.set_index("forecast"),
        forecasts=forecast_table.set_index("forecast"),
    )


def list_forecasts(name: str, record: Record) -> Iterator[dict[str, Any]]:
    """Yield each dated forecast of a record, and what came."""
    corrected = correct_dates(record)
    for k, told in enumerate(record.told):
        if not math.isnan(told):
            yield {
                "forecast": name,
                "time": core.format_time(int(record.time[k])),
                "told": told,
                "corrected": corrected[k],
                "came": float(record.came[k]),
                "is_calm": bool(record.is_calm[k]),
            }


SCORE_HEADS = {
    "days": Head("days"),
    "n": Head("n", "dates", "count"),
    "told": Head("probability", "mean", "chance"),
    "came": Head("outcome", "share", "chance"),
    "low": Head("95 % interval", "of the outcome", "chance", "high"),
    "slope": Head("slope", "1 is right", "decimals"),
    "brier": Head("Brier score", "", "score"),
    "verdict": Head("verdict"),
}
TODAY_HEADS = {
    "today": Head("today", "as forecast", "chance"),
    "recalibrated": Head("recalibrated", "by the record", "chance"),
    "brier": Head("Brier score", "as forecast", "score"),
    "recalibrated_brier": Head("Brier score", "recalibrated", "score"),
}
INTERVAL_HEADS = {
    "n": Head("n", "dates", "count"),
    "promised": Head("promised", "share held", "percent"),
    "held": Head("held", "", "percent"),
    "low": Head("95 % interval", "of what held", "percent", "high"),
    "adapted_n": Head("n", "after 20", "count"),
    "told_held": Head("held", "after 20, as forecast", "percent"),
    "adapted_held": Head("held", "after 20, adapted", "percent"),
    "beyond": Head("loss beyond it", "over the forecast", "decimals"),
    "beyond_n": Head("n", "beyond it", "count"),
    "verdict": Head("verdict"),
}
INTERVAL_TODAY_HEADS = {
    "today_low": Head("today, from", "as forecast", "percent"),
    "today_high": Head("to", "as forecast", "percent"),
    "adapted_low": Head("today, from", "adapted", "percent"),
    "adapted_high": Head("to", "adapted", "percent"),
}


def show_scores(scores: pd.DataFrame, intervals: pd.DataFrame | None = None) -> Part:
    """Return the section of a page on scores, by forecast or by market and forecast."""
    front = {"forecast": Head("forecast")}
    blocks: list[Shown] = [show_table(scores, front | SCORE_HEADS, "Forecasts and outcomes")]

    known = scores[scores["recalibrated"].notna()]
    if len(known):
        blocks.append(show_table(known, front | TODAY_HEADS, "Today, recalibrated"))
    else:
        blocks.append("No record has 10 events and 10 non-events, from which on it is corrected.")

    if intervals is not None and len(intervals):
        blocks.append(show_table(intervals, front | INTERVAL_HEADS, "Intervals"))
        blocks.append(show_table(intervals, front | INTERVAL_TODAY_HEADS, "Intervals today"))

    return Part(
        key="scores",
        title="How good were such forecasts?",
        lead="The same forecast at past dates whose horizons do not overlap, made from the bars "
        "before each.",
        blocks=tuple(blocks),
        shows="both",
    )


def show_table(
    table: pd.DataFrame,
    heads: Mapping[str, Head],
    caption: str,
) -> ShownTable:
    """Return a table of those columns that it has and that have a head."""
    shown = {name: head for name, head in heads.items() if name in table}
    label = Head(str(table.index.name))
    return ShownTable(table, caption, labels=label, heads=shown, columns=tuple(shown))


def write_score(name: str, row: Any) -> str:
    """Return the score of a forecast as a clause: its mean, outcome, n, slope and interval."""
    if row["n"] < LEAST_DATES:
        return f"{name}: {row['verdict']}"

    told = core.format_chance(row["told"])
    came = core.format_chance(row["came"])
    low = core.format_chance(row["low"])
    high = core.format_chance(row["high"])
    text = f"{name}: forecast {told}, outcome {came} (95 %: {low} to {high}, n {row['n']:,})"
    if not math.isnan(row["slope"]):
        text = f"{text}, slope {row['slope']:z.2f}"
    if not math.isnan(row["recalibrated"]):
        today = core.format_chance(row["today"])
        recalibrated = core.format_chance(row["recalibrated"])
        text = f"{text}; today {today}, recalibrated {recalibrated}"
    return text


def write_interval(name: str, row: Any) -> str:
    """Return how often a bound held as a clause."""
    if row["n"] < LEAST_DATES:
        return f"{name}: {row['verdict']}"
    promised = core.format_percent(row["promised"])
    held = core.format_percent(row["held"])
    low = core.format_percent(row["low"])
    high = core.format_percent(row["high"])
    return f"{name}: promised {promised}, held {held} (95 %: {low} to {high}, n {row['n']:,})"
