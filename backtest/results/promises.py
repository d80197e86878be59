"""Whether a run kept what its policy promises: volatility, losses, margin and liquidations.

A ``run`` is a :class:`backtest.results.run_record.RunRecord`, which imports this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from backtest import core
from backtest.account.events import Event
from backtest.core.code_names import pd
from backtest.market import count_bars_per_year
from backtest.policies import Policy, Promise
from backtest.results import tables
from backtest.results.measure_table import ABOUT, LOSSES, METRICS, SHARE, SIZE
from backtest.results.performance import divide, expected_shortfall, value_at_risk

KEPT = "kept"
BROKEN = "not kept"
TOO_EARLY = "too early"
LEAST_HORIZONS = 10
"""Horizons with a forecast below which nothing is judged."""
LEAST_EXPECTED = 3.0
"""Expected liquidations below which nothing is judged: none would come in one account of 20."""
LEAST_RETURNS = 30
"""Sampled returns below which their kurtosis, and so the error of a volatility, is not known."""
LEAST_TAIL = 5.0
"""Returns expected in a tail below which it is not judged."""
WIDTH = 1.96
"""Half of a 95 % interval, in standard errors."""
OWN = ("lowest_unit", "margin_ratio_twice")
"""Measures that only promises have: the lowest unit value at a close, and the highest margin ratio
(of the equity) that two closes in a row reached."""
TAILS = {"var": value_at_risk, "es": expected_shortfall}


def list_promises(policies: Mapping[str, Policy], overlay: Policy | None) -> list[Promise]:
    """Return what is promised of the whole account: by its overlay, or else by its only policy."""
    if overlay is None and len(policies) > 1:
        return []

    policy = overlay or next(iter(policies.values()))
    promises = [Promise(*row) for row in policy.promises()]
    known = [*METRICS, *OWN]
    for promise in promises:
        measure = promise.measure
        if measure not in known and read_tail(measure) is None:
            raise core.PolicyError(
                f"a measure of {type(policy).__name__}.promises must be one of a run, {OWN[0]}, "
                f"{OWN[1]} or a tail as es_99, got {measure!r}"
                f"{core.did_you_mean(measure, known)}"
            )
        check_promised(type(policy).__name__, promise)
    return promises


def check_promised(policy: str, promise: Promise) -> None:
    """Raise PolicyError for a bound that no value of the measure has: 25 for a drawdown of 25 %."""
    domain = LOSSES
    if promise.measure in OWN:
        domain = SIZE
    elif promise.measure in ABOUT:
        domain = ABOUT[promise.measure].domain

    low, high = domain
    if promise.horizon and promise.measure == "liquidations":  # their probability
        low, high = SHARE
    if not low <= promise.bound <= high:
        raise core.PolicyError(
            f"a bound of {policy}.promises must be a value of its measure, {promise.measure} from "
            f"{low:g} to {high:g}, got {promise.bound:g}; fractions are not per cent"
        )


def read_tail(measure: str) -> tuple[Any, float] | None:
    """Return the function of a tail and its level, of a measure such as ``es_99.5``."""
    name, _, text = measure.partition("_")
    try:
        level = float(text) / 100.0
    except ValueError:
        return None
    if name not in TAILS or not 0.0 < level < 1.0:
        return None
    return TAILS[name], level


class Finding(NamedTuple):
    """What came of a promise, from ``n`` observations.

    ``low`` and ``high`` are the 95 % interval of the realized ``value``; of a count that is
    ``expected``, the counts that chance gives. At least ``n_least`` observations judge it.
    """

    value: float
    low: float
    high: float
    n: int
    n_least: float = 0.0
    expected: float = math.nan


class Judgement(NamedTuple):
    """A verdict, and how many observations would give one where it is too early."""

    verdict: str
    n_needed: float = math.nan


MOSTLY_WHOLE = 0.99
"""Share of bars with a signal of -1 or 1 above which promises are judged as they are said."""

JUDGED = ("value", "expected", "low", "high", "n", "n_needed", "verdict")
"""Columns of what came of a promise."""


def judge_promises(run: Any) -> list[dict[str, Any]]:
    """Return a row for each promise of a run: the promise, what came, and the verdict."""
    # A signal between -1 and 1 makes less of a position than the policy promises: what it said
    # of a size is then a bound.
    share_of_whole = float(np.mean(np.abs(run.quotes.signal) == 1.0))
    rows = []
    for fields in run.manifest.get("promises", ()):
        promise = Promise(*fields)
        if share_of_whole <= MOSTLY_WHOLE:
            promise = promise.limit()

        finding = measure_promise(run, promise)
        judgement = judge(promise, finding)
        rows.append(
            {
                **promise._asdict(),
                **finding._asdict(),
                **judgement._asdict(),
            }
        )
    return rows


def judge(promise: Promise, finding: Finding) -> Judgement:
    """Judge a promise by the 95 % interval of what came.

    Inside the tolerance it was kept, outside of it not; an interval over an edge decides nothing
    yet. The width of an interval falls with the root of the observations.
    """
    if math.isnan(finding.value):
        return Judgement(TOO_EARLY, finding.n_least or math.nan)
    if finding.n < finding.n_least:
        return Judgement(TOO_EARLY, finding.n_least)

    # Of a count chance is known exactly: it says at once.
    if not math.isnan(finding.expected):
        verdict = KEPT if finding.value <= finding.high else BROKEN
        return Judgement(verdict)

    # What the promise allows, with its tolerance.
    slack = promise.tolerance * promise.bound
    lowest = -math.inf
    highest = math.inf
    if promise.rule in ("at least", "about"):
        lowest = promise.bound - slack
    if promise.rule in ("at most", "about"):
        highest = promise.bound + slack
    if finding.low >= lowest and finding.high <= highest:
        return Judgement(KEPT)
    if finding.low > highest or finding.high < lowest:
        return Judgement(BROKEN)

    # The interval has to shrink until it is as far from both edges as the value is from one.
    distance = min(abs(finding.value - lowest), abs(finding.value - highest))
    half = 0.5 * (finding.high - finding.low)
    with np.errstate(divide="ignore"):
        needed = finding.n * float(np.divide(half, distance)) ** 2
    if not math.isfinite(needed):
        return Judgement(TOO_EARLY)
    return Judgement(TOO_EARLY, math.ceil(needed))


def count_bars(run: Any, horizon: float) -> int:
    """Return the bars of a run in a horizon, which is in bars of the decisions."""
    interval: int = run.interval
    decision_interval = run.manifest["data"].get("decision_interval")
    if decision_interval:
        interval = core.parse_duration(decision_interval, "decision_interval")
    n_bars = round(horizon * interval / float(run.interval))
    return max(n_bars, 1)


def measure_promise(run: Any, promise: Promise) -> Finding:
    """Return what came of a promise, by the way in which its measure is judged."""
    # The unit value at the start and at all closes, of 1 at the start.
    first_unit = run.tally.first_unit
    unit = np.append(first_unit, run.of_account("unit")) / first_unit
    step = count_bars(run, promise.horizon)

    if promise.measure == "lowest_unit":
        return state_exactly(float(unit.min()), n=len(unit))

    # The highest ratio that two closes in a row were at or over.
    if promise.measure == "margin_ratio_twice":
        ratio = divide(run.closes.requirement, run.of_account("equity"))
        lower_of_two = np.minimum(ratio[1:], ratio[:-1])
        highest = lower_of_two.max(initial=0.0)
        return state_exactly(float(highest), n=len(ratio), n_least=2)

    # Its bound is the probability over a horizon, of an account that holds something.
    if promise.measure == "liquidations" and promise.horizon:
        is_held = (run.notionals != 0.0).any(axis=1)
        forecasts = promise.bound * is_held[::step]
        return compare_liquidations(run, forecasts, step)

    if promise.horizon:
        tail, level = read_tail(promise.measure) or (value_at_risk, 0.99)
        ends = unit[::step]
        returns = divide(ends[1:], ends[:-1], empty=1.0) - 1.0
        return measure_tail(returns, level, tail)

    if promise.measure == "volatility":
        return measure_volatility(run._sampled, run.metrics["volatility"])
    n = int(np.count_nonzero(run.ends_sample))
    return state_exactly(float(run.metrics[promise.measure]), n=n)


def state_exactly(value: float, *, n: int, n_least: float = 0.0) -> Finding:
    """Return a finding without an error: what happened to this account is what was promised."""
    return Finding(value, low=value, high=value, n=n, n_least=n_least)


def measure_volatility(returns: core.FloatArray, volatility: float) -> Finding:
    """Return the realized annual volatility of sampled returns (n,), with its 95 % interval.

    The standard error is sigma sqrt((k - 1) / (4 n)), k the kurtosis of the returns: that of a
    standard deviation, by the delta method (Kendall and Stuart, The Advanced Theory of Statistics,
    vol. 1).
    """
    n = len(returns)
    away = returns - np.mean(returns)
    variance = float(np.mean(away**2))
    if n < 2 or not variance > 0.0:
        return state_exactly(volatility, n=n, n_least=LEAST_RETURNS)

    kurtosis = float(np.mean(away**4)) / variance**2
    relative_error = math.sqrt(max(kurtosis - 1.0, 0.0) / (4.0 * n))
    half = WIDTH * volatility * relative_error
    return Finding(
        volatility,
        low=volatility - half,
        high=volatility + half,
        n=n,
        n_least=LEAST_RETURNS,
    )


def measure_tail(
    returns: core.FloatArray,
    level: float,
    function: Any,
) -> Finding:
    """Return a value at risk or an expected shortfall of returns (n,), with its 95 % interval.

    That of a quantile by order statistics; that of the mean beyond it, e, by its standard error,
    sqrt((s^2 + level (e - q)^2) / (n (1 - level))), s the deviation of losses beyond the quantile
    q. Source: Manistre and Hancock (2005), Variance of the CTE Estimator, North American Actuarial
    J. 9(2).
    """
    n = len(returns)
    expected = n * (1.0 - level)
    n_least = LEAST_TAIL / (1.0 - level)
    value = float(function(returns, level)) if n else math.nan
    if expected < LEAST_TAIL or math.isnan(value):
        return state_exactly(value, n=n, n_least=n_least)

    # A quantile by order statistics: those as many places away as chance moves it.
    losses = np.sort(-returns)
    if function is value_at_risk:
        place = n * level
        reach = WIDTH * math.sqrt(place * (1.0 - level))
        first = max(math.floor(place - reach), 0)
        last = min(math.ceil(place + reach), n - 1)
        return Finding(
            value,
            low=float(losses[first]),
            high=float(losses[last]),
            n=n,
            n_least=n_least,
        )

    # The mean beyond it, by its standard error.
    quantile = value_at_risk(returns, level)
    beyond = losses[losses >= quantile]
    variance = float(np.var(beyond)) + level * (value - quantile) ** 2
    half = WIDTH * math.sqrt(variance / expected)
    return Finding(
        value,
        low=value - half,
        high=value + half,
        n=n,
        n_least=n_least,
    )


def compare_liquidations(
    run: Any,
    forecasts: core.FloatArray,
    step: int,
) -> Finding:
    """Compare forecasts over ``step`` bars, from every step-th close on, with what came.

    A horizon counts once, however often its account was liquidated; one without a forecast, or
    that the run does not cover, does not count.
    """
    # The horizon of a close begins with the bar after it; nothing comes after the last.
    liquidations = np.append(count_liquidations(run)[1:], np.zeros(1))
    n_horizons = (len(liquidations) - 1) // step
    by_horizon = liquidations[: n_horizons * step].reshape(n_horizons, step)
    came: Any = by_horizon.any(axis=1)

    # How many are to be expected, and the interval of their number, if the forecasts are right.
    is_known: Any = np.isfinite(forecasts[:n_horizons])
    chances = forecasts[:n_horizons][is_known]
    low, high = count_interval(chances)
    expected = float(chances.sum())

    # The rarer they are, the more horizons it takes to tell.
    n_least = float(LEAST_HORIZONS)
    if expected < LEAST_EXPECTED:
        n_least = max(n_least, count_horizons_needed(len(chances), expected))
    return Finding(
        float(came[is_known].sum()),
        low=low,
        high=high,
        n=len(chances),
        n_least=n_least,
        expected=expected,
    )


def count_horizons_needed(n: int, expected: float) -> float:
    """Return the horizons in which as many liquidations are expected as judge a forecast."""
    if expected <= 0.0:
        return math.inf
    needed = n * LEAST_EXPECTED / expected
    return math.ceil(needed) if math.isfinite(needed) else math.inf


def count_liquidations(run: Any) -> core.FloatArray:
    """Return how often a price triggered a liquidation in each bar, of shape (n_bars,).

    A failure of the cross pool closes several positions at once.
    """
    entries = run.entries
    owner = entries["owner"]

    # Each failure of a pool of several begins with its causes, in the order of their owners: the
    # first is that which no cause of a lower owner precedes.
    is_cause = entries["kind"] == Event.CAUSED
    is_owner_rising = np.diff(owner) > 0
    is_next_cause = np.append(False, is_cause[:-1] & is_owner_rising)
    is_pool_failure = is_cause & ~is_next_cause

    # What is no instrument is not isolated.
    others = np.zeros(max(owner, default=0) + 1, np.bool_)
    are_isolated = np.append(run.are_isolated, others)

    # A position that stands alone fails for itself.
    is_liquidated = entries["kind"] == Event.LIQUIDATED
    is_alone = run.has_one_position | are_isolated[owner]
    is_hit = is_pool_failure | (is_liquidated & is_alone)
    rows = entries["bar"][is_hit] - run.span.first
    return np.bincount(rows, minlength=len(run.time)).astype(np.float64)


def count_interval(chances: core.FloatArray, confidence: float = 0.95) -> tuple[float, float]:
    """Return the exact central interval of a count of independent events with these probabilities.

    Poisson-binomial: the distribution is convolved event by event; each tail beyond the interval
    has at most (1 - confidence) / 2.
    """
    density = np.ones(1)
    for chance in chances.tolist():
        density = np.convolve(density, (1.0 - chance, chance))

    tail = (1.0 - confidence) / 2.0 * (1.0 + 1e-12)
    low, high = np.searchsorted(np.cumsum(density), (tail, 1.0 - tail))
    return float(low), float(min(high, len(chances)))


def split_volatility(run: Any, target: float) -> pd.Series | None:
    """Split the squared ratio of realized volatility to its target; the product is the ratio.

    ``bias`` is mean(r^2) / mean(s^2), r the return of the mark over a bar and s its volatility as
    it was forecast at the close before: the target over the leverage that the policy asked for.
    ``dispersion`` is mean(r^2 / s^2) mean(s^2) / mean(r^2), which is above 1 where forecasts err on
    both sides, as E[1 / s^2] > 1 / E[s^2]. ``rest`` is what the band, caps, fills and the sampling
    period leave. None of several instruments, under an overlay, or without a forecast.
    """
    if not run.has_one_instrument or "overlay" in run.manifest:
        return None

    # The return of the mark over each bar, and its volatility as it was forecast before. A
    # target holds until the policy gives another.
    targets = run.of_positions("target")[:, 0]
    leverage = pd.Series(targets).ffill().to_numpy()
    value = tables.value_of(run.venue.contract, run.mark)
    moves = np.diff(value) / np.abs(value[:-1])
    bars_per_year = np.broadcast_to(
        count_bars_per_year(run.time, run.interval, run.is_session), len(moves) + 1
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        sigma = target * np.abs(run.signal) / np.abs(leverage) / np.sqrt(bars_per_year)

    # The volatility that was forecast at a close is that of the bar after it.
    sigma_before = sigma[:-1]
    is_forecast = np.isfinite(sigma_before) & (sigma_before > 0.0)
    is_known = is_forecast & np.isfinite(moves)
    squares = moves[is_known] ** 2
    forecasts = sigma_before[is_known] ** 2
    if len(squares) < LEAST_RETURNS or not squares.any():
        return None

    bias = float(squares.mean() / forecasts.mean())
    dispersion = float((squares / forecasts).mean()) / bias
    realized = (run.metrics["volatility"] / target) ** 2
    factors = {
        "bias": bias,
        "dispersion": dispersion,
        "rest": realized / (bias * dispersion),
        "realized": realized,
    }
    return pd.Series(factors, name="factor")
