"""compare(): test the differences between results that were made under the same terms."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import base
from backtest.base.units import DAY
from backtest.compare.comparison import (
    LEAST_SAMPLES,
    BootstrapRules,
    Comparison,
    tabulate_differences,
)
from backtest.engine import Progress, Result, as_of, earn_cash, finish, run_account
from backtest.engine.checks import OF_EACH_RUN
from backtest.measures import Sampled, find_cost_rates, is_lost
from backtest.measures.performance import LEAST_DEVIATION

MOST_DRAWS = 1_000_000
SHARED = ("venue", "account", "signal", "sampling", "calendar")
LISTED = 8
"""Differing terms that an error lists."""
MOST_RUNS = 6
"""The most runs of one account in the search for its scale."""
EXACT = 1e-6
"""The relative distance from the target volatility at which the search ends."""
NEAR = 0.01
"""The relative distance above which a comparison warns that risk is not equal."""
ELASTICITY = (0.25, 4.0)
"""Bounds on the elasticity of volatility to scale, for the next step of the search."""


@base.record_making
@base.checked_only("progress")
def compare(
    results: Mapping[str, Result],
    *,
    baseline: str | None = None,
    equal_risk: bool = False,
    confidence: float = 0.95,
    draws: int = 1_999,
    seed: int = 0,
    progress: Progress | None = None,
) -> Comparison:
    """Test which differences between results are more than noise.

    Parameters
    ----------
    results : mapping of str to Result
        At least two, made on the same market with the same signal, overlay, venue and account.
    baseline : str, optional
        The result that the others are compared with; the first by default.
    equal_risk : bool
        Whether to scale positions down, and run all again, until all have the volatility of the
        calmest one. Needs results of this process, not loaded ones.
    confidence : float
        The confidence of intervals and decisions, from 0.5 to below 1.
    draws, seed : int
        The number of resampled histories, at least 99, and their seed.
    progress : callable, optional
        Called with accounts scaled and accounts in total, then with histories drawn and in total.

    Returns
    -------
    Comparison

    Raises
    ------
    ParameterError
        If an argument is not allowed, or results were made under different terms, naming them.

    Notes
    -----
    Differences of log growth, Sharpe ratio, volatility and expected shortfall of sampled returns
    are tested by the stationary bootstrap: see
    :func:`backtest.measures.differences.compare_pairs`. A ruined account has a log growth of
    -inf and ranks below all that were not ruined, without a test: returns after the ruin carry no
    information, and resampling one history cannot estimate how likely ruin was.
    """
    check_results(results)
    against = check_baseline(baseline, results)
    rules = check_rules(confidence, draws, seed)
    check_alike(results)
    scaled = equalize_risk(results, progress) if equal_risk else None
    if scaled is not None:
        results = {name: each.result for name, each in scaled.items()}
    sampled = sample_returns(results)
    rows = {name: measure_account(result) for name, result in results.items()}
    for name, each in (scaled or {}).items():
        rows[name] |= {"scale": each.scale, "unscaled_volatility": each.volatility}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("policy")
    ruined = table["ruined"].to_numpy() != 0.0
    lost = np.array([is_lost(result.metrics) for result in results.values()])
    rest = [1.0 if scaled is None else scaled[name].rest for name in results]
    tested = sampled._replace(returns=sampled.returns * np.array(rest)[:, None])
    differences, blocks = tabulate_differences(
        tested, tuple(results), against, ruined, lost, rules, progress
    )
    cautions = list(list_cautions(len(sampled.free), scaled))
    facts = {
        "baseline": against,
        "equal_risk": equal_risk,
        **rules._asdict(),
        "blocks": blocks,
        "warnings": cautions,
    }
    manifest = build_manifest(results, scaled, sampled, facts)
    index = next(iter(results.values())).returns.index
    returns = pd.DataFrame(dict(zip(results, sampled.returns, strict=True)), index=index)
    free = pd.Series(sampled.free, index=index, name="risk_free")
    for caution in cautions:
        base.warn_caller(caution)
    return Comparison(table, differences, returns, free, manifest, results)


def build_manifest(
    results: Mapping[str, Result],
    scaled: Mapping[str, ScaledAccount] | None,
    sampled: Sampled,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    first = next(iter(results.values())).manifest
    overlay = find_overlay(first)
    manifest: dict[str, Any] = base.to_plain(
        {
            "kind": "comparison",
            "data": first["data"],
            "policies": {
                name: {
                    "text": result.manifest["policy"]["text"],
                    "source_hash": result.manifest["policy"]["source_hash"],
                    "result": result.manifest["id"],
                    "scale": 1.0 if scaled is None else scaled[name].scale,
                    "rest": 1.0 if scaled is None else scaled[name].rest,
                }
                for name, result in results.items()
            },
            **{name: first[name] for name in SHARED},
            **({"overlay": overlay} if overlay else {}),
            "samples": {
                "n": sampled.returns.shape[1],
                "per_year": sampled.per_year,
                "periods": sampled.periods,
            },
            **facts,
            "versions": {**base.find_versions(), "arch": base.find_version("arch")},
        }
    )
    return {"id": base.compute_id(manifest), **manifest}


# ------------------------------------------------------------------------------------- arguments


def check_results(results: Mapping[str, Result]) -> None:
    for name, result in results.items() if isinstance(results, Mapping) else ():
        if not isinstance(result, Result):
            raise base.ParameterError(
                f"results[{name!r}] must be a result, got {base.repr_plain(result)}; run its "
                "policy: bt.run(market, policy, ...)"
            )
    if not isinstance(results, Mapping) or len(results) < 2:
        raise base.ParameterError(
            "results must be two or more, each with a name of its own, {'calm': bt.run(...), "
            f"'bold': bt.run(...)}} for example, got {len(results)}"
        )


def check_baseline(baseline: str | None, names: Mapping[str, Any]) -> str:
    if baseline is None:
        return next(iter(names))
    if baseline not in names:
        raise base.ParameterError(
            f"baseline must be one of {', '.join(names)}, got {baseline!r}"
            f"{base.did_you_mean(baseline, [*names])}"
        )
    return baseline


def check_rules(confidence: float, draws: int, seed: int) -> BootstrapRules:
    level = base.check_range("confidence", confidence, low=0.5, high=1.0, open_high=True)
    n = int(base.Range(99, MOST_DRAWS).check("draws", draws, whole=True))
    if (n + 1) * (1.0 - level) < 1.0 - 1e-9:
        raise base.ParameterError(
            f"draws must be {1.0 / (1.0 - level) - 1.0:,.0f} or more for a confidence of {level:g},"
            f" got {n}"
        )
    start = base.Range(0, 2**63 - 1).check("seed", seed, whole=True)
    return BootstrapRules(level, n, int(start))


def check_alike(results: Mapping[str, Result]) -> None:
    name, first = next(iter(results.items()))
    terms = base.to_plain(describe_terms(first))
    for other, result in results.items():
        found = list_differences(terms, base.to_plain(describe_terms(result)))
        if result.manifest["resumed_from"] is not None:
            what = "begins in the middle: it was resumed from another run"
        elif found:
            more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
            what = f"differs from {name} in {', '.join(found[:LISTED])}{more}"
        else:
            continue
        raise base.ParameterError(
            "results must share market data, time, signal, venue and account to be compared, "
            f"{other!r} {what}"
        )


def describe_terms(result: Result) -> dict[str, Any]:
    manifest = result.manifest
    data = manifest["data"]
    span = {"market data": data["content_hash"], "start": data["start"], "end": data["end"]}
    return {**span, **{name: manifest[name] for name in SHARED}, "overlay": find_overlay(manifest)}


def find_overlay(manifest: Mapping[str, Any]) -> str:
    return str((manifest.get("overlay") or {}).get("text", ""))


def list_differences(
    mine: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = ""
) -> list[str]:
    found = []
    for name in {**mine, **theirs}:
        one, other = mine.get(name), theirs.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += list_differences(one, other, f"{prefix}{name}.")
        elif one != other:
            found.append(f"{prefix}{name}")
    return found


def list_cautions(n: int, scaled: Mapping[str, ScaledAccount] | None) -> Iterator[str]:
    if n < LEAST_SAMPLES:
        yield (
            f"{n} returns are too few for intervals, which need {LEAST_SAMPLES}: give a longer "
            "market, or a shorter sampling"
        )
    for name, each in (scaled or {}).items():
        if not each.distance <= NEAR:
            got = float(each.result.metrics["volatility"])
            how = (
                f"was scaled to a volatility of {got:.4g}, not"
                if got
                else "held nothing, and cannot be scaled"
            )
            yield f"{name} {how} to {each.target:.4g}: its risk is not equal"


# --------------------------------------------------------------------------------- the accounts


def measure_account(result: Result) -> dict[str, float]:
    """Return log growth, all measures of a run, and its costs per year over mean equity."""
    rates = find_cost_rates(result.tally, result.span)
    return {
        "log_growth": find_growth(result),
        **result.metrics,
        **{f"{name}_annual": rate for name, rate in rates.items()},
    }


def find_growth(result: Result) -> float:
    """Return the log growth of the unit value per year; -inf after ruin."""
    if result.metrics["ruined"]:
        return -math.inf
    return float(np.sum(np.log1p(result.returns.to_numpy()))) / result.span.years


def sample_returns(results: Mapping[str, Result]) -> Sampled:
    """Return the sampled returns of all accounts, of shape (k, n)."""
    first = next(iter(results.values()))
    rows = np.array([result.returns.to_numpy() for result in results.values()])
    per_year = rows.shape[1] / first.span.years
    return Sampled(rows, sample_free(first), per_year, first.span.periods)


def sample_free(result: Result) -> base.FloatArray:
    """Return the simple risk-free return of each sampling period, of shape (n,)."""
    venue, time = result.venues[result.names[0]], result.time
    years = np.diff(time, prepend=time[:1]) / (venue.day_count * DAY)
    free = earn_cash(as_of(venue.cash_rate, time, "Venue.cash_rate"), years, len(time))
    ends = np.flatnonzero(result.ends_sample)
    starts = np.concatenate(([0], ends[:-1] + 1))
    return np.asarray(np.expm1(np.add.reduceat(np.log1p(free), starts)))


# ---------------------------------------------------------------------------------- equal risk


class ScaledAccount(NamedTuple):
    result: Result
    scale: float
    volatility: float
    target: float

    @property
    def distance(self) -> float:
        return abs(self.result.metrics["volatility"] / self.target - 1.0)

    @property
    def rest(self) -> float:
        rest = self.target / self.result.metrics["volatility"] if self.distance <= NEAR else 1.0
        return rest if rest * float(self.result.returns.min()) > -1.0 else 1.0


def equalize_risk(
    results: Mapping[str, Result], progress: Callable[[int, int], None] | None
) -> dict[str, ScaledAccount]:
    for name, result in results.items():
        is_retuned = "switches" in result.manifest["policy"]
        if is_retuned or not result.policies:
            what = "changed its parameters on the way" if is_retuned else "was loaded"
            raise base.ParameterError(f"equal_risk runs every policy again, {name!r} {what}")
    known = {name: result.metrics["volatility"] for name, result in results.items()}
    moving = [each for each in known.values() if each > LEAST_DEVIATION]
    if not moving:
        raise base.ParameterError(
            "equal_risk needs an account that moves, all have a volatility of 0"
        )
    found = {}
    for done, (name, result) in enumerate(results.items()):
        rerun = functools.partial(run_scaled, result)
        found[name] = search_scale(result, rerun, min(moving))
        if progress is not None:
            progress(done + 1, len(results))
    return found


def search_scale(
    result: Result, rerun: Callable[[float], Result], target: float, most: float = 1.0
) -> ScaledAccount:
    """Search for the scale that brings the volatility of an account nearest to a target.

    Secant steps in logarithms: ln c <- ln c + ln(target / sigma) / e, with the elasticity e = 1 at
    first, and then d ln sigma / d ln c of the last two runs. ``result`` is the run at scale 1.
    """
    volatility = result.metrics["volatility"]
    best = ScaledAccount(result, 1.0, volatility, target)
    scale, elasticity = 1.0, 1.0
    for _ in range(MOST_RUNS):
        if best.distance <= EXACT or not volatility > LEAST_DEVIATION:
            break
        step = math.exp(math.log(target / volatility) / elasticity)
        last, scale = scale, min(most, scale * step)
        again = best._replace(result=rerun(scale), scale=scale)
        if again.distance < best.distance:
            best = again
        after = again.result.metrics["volatility"]
        if not after > LEAST_DEVIATION or scale == last:
            break
        answer = math.log(after / volatility) / math.log(scale / last)
        elasticity = float(np.clip(answer, *ELASTICITY))
        volatility = after
    return best


def run_scaled(result: Any, scale: float) -> Result:
    scaled = result.setup.scale(scale)
    with warnings.catch_warnings():
        for category in OF_EACH_RUN:
            warnings.simplefilter("ignore", category)
        is_compiled = result.manifest["compiled"] == "yes"
        outcome = run_account(scaled, is_compiled=is_compiled, progress=None)
        return finish(scaled, outcome, calendar=result.manifest["calendar"])
