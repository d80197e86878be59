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
from backtest.results.measure_table import METRICS
from backtest.results.performance import divide, expected_shortfall, value_at_risk

KEPT, BROKEN, TOO_FEW = "kept", "not kept", "too few to judge"
LEAST_HORIZONS, LEAST_RETURNS, LEAST_TAIL = 10, 30, 5.0
"""Horizons, sampled returns, and returns expected in a tail, below which nothing is judged."""
OWN = ("lowest_unit", "margin_ratio_twice")
"""Measures that only promises have: the lowest unit value at a close, and the highest margin ratio
(of the equity) that two closes in a row reached."""
TAILS = {"var": value_at_risk, "es": expected_shortfall}


def list_promises(policies: Mapping[str, Policy], overlay: Policy | None) -> list[Promise]:
    """Return what is promised of the whole account: by its overlay, or else by its only policy."""
    if overlay is None and len(policies) > 1:
        return []
    policy = overlay or next(iter(policies.values()))
    found = [Promise(*row) for row in policy.promises()]
    for each in found:
        known = [*METRICS, *OWN]
        if each.measure not in known and read_tail(each.measure) is None:
            raise core.PolicyError(
                f"a measure of {type(policy).__name__}.promises must be one of a run, {OWN[0]}, "
                f"{OWN[1]} or a tail as es_99, got {each.measure!r}"
                f"{core.did_you_mean(each.measure, known)}"
            )
    return found


def read_tail(measure: str) -> tuple[Any, float] | None:
    """Return the function of a tail and its level, of a measure such as ``es_99.5``."""
    name, _, text = measure.partition("_")
    try:
        level = float(text) / 100.0
    except ValueError:
        return None
    return (TAILS[name], level) if name in TAILS and 0.0 < level < 1.0 else None


class Finding(NamedTuple):
    """What came of a promise; ``low`` and ``high`` bound a count, ``expected`` is its mean."""

    value: float
    is_enough: bool
    expected: float = math.nan
    low: float = math.nan
    high: float = math.nan


JUDGED = ("value", "expected", "low", "high", "verdict")
"""Columns of what came of a promise."""


def judge_promises(run: Any) -> list[dict[str, Any]]:
    rows = []
    is_whole = float(np.mean(np.abs(run.quotes.signal) == 1.0)) > 0.99
    for given in run.manifest.get("promises", ()):
        each = Promise(*given) if is_whole else Promise(*given).limit()
        found = measure_promise(run, each)
        rows.append({**each._asdict(), **found._asdict(), "verdict": judge(each, found)})
    return rows


def judge(promise: Promise, found: Finding) -> str:
    if not found.is_enough or math.isnan(found.value):
        return TOO_FEW
    if not math.isnan(found.high):
        return KEPT if found.value <= found.high else BROKEN
    slack = promise.tolerance * promise.bound
    is_high, is_low = found.value > promise.bound + slack, found.value < promise.bound - slack
    fails = {"at most": is_high, "at least": is_low, "about": is_high or is_low}
    return BROKEN if fails[promise.rule] else KEPT


def measure_promise(run: Any, promise: Promise) -> Finding:
    unit = np.append(run.tally.first_unit, run.of_account("unit")) / run.tally.first_unit
    every = run.manifest["data"].get("decision_interval")  # horizons are in bars of the decisions
    length = core.parse_duration(every, "decision_interval") if every else run.interval
    step = max(round(promise.horizon * length / run.interval), 1)
    if promise.measure == "lowest_unit":
        return Finding(float(unit.min()), True)
    if promise.measure == "margin_ratio_twice":
        needed, equity = run.closes.requirement, run.of_account("equity")
        ratio = divide(needed, equity)
        return Finding(float(np.minimum(ratio[1:], ratio[:-1]).max(initial=0.0)), len(ratio) > 1)
    if promise.measure == "liquidations" and promise.horizon:
        held = (run.notionals != 0.0).any(axis=1)[::step]
        return compare_liquidations(run, promise.bound * held, step)
    if promise.horizon:
        function, level = read_tail(promise.measure) or (value_at_risk, 0.99)
        ends = unit[::step]
        returns = divide(ends[1:], ends[:-1], 1.0)
        value = function(returns - 1.0, level)
        return Finding(value, len(returns) * (1.0 - level) >= LEAST_TAIL)
    is_enough = (
        np.count_nonzero(run.ends_sample) >= LEAST_RETURNS or promise.measure != "volatility"
    )
    return Finding(run.metrics[promise.measure], bool(is_enough))


def compare_liquidations(run: Any, forecasts: core.FloatArray, step: int) -> Finding:
    """Compare forecasts over ``step`` bars, from every step-th close on, with what came.

    A horizon counts once, however often its account was liquidated; one without a forecast, or
    that the run does not cover, does not count.
    """
    hits = np.append(count_liquidations(run)[1:], np.zeros(1))
    n = (len(hits) - 1) // step
    came: Any = hits[: n * step].reshape(n, step).any(axis=1)
    is_known: Any = np.isfinite(forecasts[:n])
    chances = forecasts[:n][is_known]
    low, high = count_interval(chances)
    return Finding(
        value=float(came[is_known].sum()), is_enough=len(chances) >= LEAST_HORIZONS,
        expected=float(chances.sum()), low=low, high=high,
    )  # fmt: skip


def count_liquidations(run: Any) -> core.FloatArray:
    """Return how often a price triggered a liquidation in each bar, of shape (n_bars,).

    A failure of the cross pool closes several positions at once.
    """
    entries = run.entries
    owner, kind = entries["owner"], entries["kind"]
    is_caused = kind == Event.CAUSED  # each failure of a pool of several begins with its causes
    is_next = np.append(False, is_caused[:-1] & (np.diff(owner) > 0))
    are_isolated = np.append(run.are_isolated, np.zeros(max(owner, default=0) + 1, np.bool_))
    is_alone = run.has_one_position | are_isolated[owner]
    is_hit = (is_caused & ~is_next) | ((kind == Event.LIQUIDATED) & is_alone)
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
    below, rest = np.cumsum(density), (1.0 - confidence) / 2.0
    low, high = np.searchsorted(below, (rest * (1.0 + 1e-12), 1.0 - rest * (1.0 + 1e-12)))
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
    asked = pd.Series(run.of_positions("target")[:, 0]).ffill().to_numpy()
    value = tables.value_of(run.venue.contract, run.mark)
    moves = np.diff(value) / np.abs(value[:-1])
    a_year = np.broadcast_to(
        count_bars_per_year(run.time, run.interval, run.is_session), moves.shape[0] + 1
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        sigma = target * np.abs(run.signal) / np.abs(asked) / np.sqrt(a_year)
    is_known = (np.isfinite(sigma) & (sigma > 0.0))[:-1] & np.isfinite(moves)
    squares, forecasts = moves[is_known] ** 2, sigma[:-1][is_known] ** 2
    if len(squares) < LEAST_RETURNS or not squares.any():
        return None
    bias = float(squares.mean() / forecasts.mean())
    dispersion = float((squares / forecasts).mean()) / bias
    whole = (run.metrics["volatility"] / target) ** 2
    return pd.Series(
        {"bias": bias, "dispersion": dispersion, "rest": whole / (bias * dispersion),
         "realized": whole}, name="factor",
    )  # fmt: skip
