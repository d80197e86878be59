"""compare(): test the differences between results that were made under the same terms.

The table of differences has a row for each measure and each policy beside the baseline. What
decides a row is its basis: a test, or why there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypedDict

import numpy as np
import pandas as pd

from backtest import core, engine
from backtest import results as measured
from backtest.core import as_of
from backtest.core.units import DAY
from backtest.results import Result, Sampled
from backtest.results.differences import STATISTICS
from backtest.results.performance import LEAST_DEVIATION
from backtest.search import equal_risk as e
from backtest.search.comparison import (
    FEW,
    LOST,
    NONE,
    RUIN,
    SAME,
    TEST,
    TITLES,
    UNTESTED,
    Comparison,
)

LEAST_SAMPLES = 30
"""The least number of returns for an interval."""
ALIKE = 1e-4
"""Two accounts are alike if the root mean square of the difference of their returns is at most this
share of that of the returns."""
MOST_DRAWS = 1_000_000
SHARED = ("venue", "account", "signal", "sampling", "calendar")
"""Entries of the manifest that results must have in common."""
LISTED = 8
"""Differing terms that an error lists."""


@core.record_making
@core.checked_only("results", "progress")
def compare(
    results: Mapping[str, Result],
    *,
    baseline: str | None = None,
    equal_risk: bool = True,
    confidence: float = 0.95,
    draws: int = 1_999,
    seed: int = 0,
    progress: core.Progress | None = None,
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
        calmest one. A result that cannot be run again stays as measured, with a warning: one that
        was loaded or ruined, or whose parameters changed on the way.
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
    :func:`backtest.results.differences.compare_pairs`. A ruined account has a log growth of
    -inf and ranks below all that were not ruined, without a test: returns after the ruin carry no
    information, and resampling one history cannot estimate how likely ruin was.
    """
    check_names(results, baseline)
    rules = read_rules(confidence, draws, seed)
    check_alike(results)
    baseline = next(iter(results)) if baseline is None else baseline
    accounts = equalize_risk(results, progress) if equal_risk else None
    if accounts is not None:
        results = {name: account.result for name, account in accounts.items()}

    # By how much each is still apart from the common volatility.
    sampled = sample_returns(results)
    table = tabulate_accounts(results, accounts)
    rest = np.ones(len(results))
    if accounts is not None:
        rest = np.array([account.rest for account in accounts.values()])
    differences, blocks = tabulate_differences(
        sampled,
        table,
        rest,
        baseline,
        rules,
        progress,
    )

    cautions = [*list_cautions(sampled, accounts or {})]
    for caution in cautions:
        core.warn_caller(caution)
    manifest = describe_comparison(
        results,
        accounts,
        sampled,
        baseline,
        rules,
    )
    manifest |= {"blocks": blocks, "warnings": cautions}
    manifest["versions"] = {**core.find_versions(), "arch": core.find_version("arch")}
    manifest = core.to_plain(manifest)

    index = next(iter(results.values())).returns.index
    return Comparison(
        table=table,
        differences=differences,
        returns=pd.DataFrame(sampled.returns.T, index=index, columns=[*results]),
        risk_free=pd.Series(sampled.free, index=index, name="risk_free"),
        manifest={"id": core.compute_id(manifest), **manifest},
        results=results,
    )


def check_names(results: Mapping[str, Result], baseline: str | None) -> None:
    """Raise ParameterError unless there are two results, and the baseline is one of them."""
    if len(results) < 2:
        raise core.ParameterError(
            "results must be two or more, each with a name of its own, {'calm': bt.run(...), "
            f"'bold': bt.run(...)}} for example, got {len(results)}"
        )
    if baseline is not None and baseline not in results:
        raise core.ParameterError(
            f"baseline must be one of {', '.join(results)}, got {baseline!r}"
            f"{core.did_you_mean(baseline, [*results])}"
        )


class Rules(TypedDict):
    """How differences are tested, as the manifest has it."""

    confidence: float
    draws: int
    seed: int


def read_rules(confidence: float, draws: int, seed: int) -> Rules:
    level = core.check_range(
        "confidence",
        confidence,
        low=0.5,
        high=1.0,
        open_high=True,
    )
    draws = core.Range(99, MOST_DRAWS).check("draws", draws, whole=True)
    if (draws + 1) * (1.0 - level) < 1.0 - 1e-9:
        raise core.ParameterError(
            f"draws must be {1.0 / (1.0 - level) - 1.0:,.0f} or more for a confidence of {level:g},"
            f" got {draws}"
        )
    seed = core.Range(0, 2**63 - 1).check("seed", seed, whole=True)
    return {"confidence": level, "draws": draws, "seed": seed}


def tabulate_accounts(
    results: Mapping[str, Result],
    accounts: Mapping[str, e.ScaledAccount] | None,
) -> pd.DataFrame:
    """Return a row of measures per policy, with its scale at equal risk."""
    rows = {}
    for name, result in results.items():
        row = {"log_growth": e.find_growth(result), **result.metrics}
        costs = measured.find_cost_rates(result.tally, result.span)  # over mean equity
        for cost, rate in costs.items():
            row[f"{cost}_annual"] = rate

        if accounts is not None:
            row["scale"] = accounts[name].scale
            row["unscaled_volatility"] = accounts[name].volatility
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("policy")


def list_cautions(sampled: Sampled, accounts: Mapping[str, e.ScaledAccount]) -> Iterator[str]:
    """Yield the warnings of a comparison: too few returns, and risks that are not equal."""
    n_returns = len(sampled.free)
    if n_returns < LEAST_SAMPLES:
        yield (
            f"{n_returns} returns are too few for intervals, which need {LEAST_SAMPLES}: "
            "give a longer market, or a shorter sampling"
        )
    for name, account in accounts.items():
        if not account.distance <= e.NEAR:
            yield describe_unequal(name, account)


def describe_comparison(
    results: Mapping[str, Result],
    accounts: Mapping[str, e.ScaledAccount] | None,
    sampled: Sampled,
    baseline: str,
    rules: Rules,
) -> dict[str, Any]:
    """Return what the manifest says of the results and of how they are compared."""
    policies = {}
    for name, result in results.items():
        policy = result.manifest["policy"]
        policies[name] = {
            "text": policy["text"],
            "source_hash": policy["source_hash"],
            "result": result.manifest["id"],
            "scale": 1.0 if accounts is None else accounts[name].scale,
            "rest": 1.0 if accounts is None else accounts[name].rest,
        }

    first = next(iter(results.values()))
    manifest: dict[str, Any] = {
        "kind": "comparison",
        "data": first.manifest["data"],
        "policies": policies,
    }
    for name in SHARED:
        manifest[name] = first.manifest[name]
    overlay = find_overlay(first.manifest)
    if overlay:
        manifest["overlay"] = overlay
    manifest |= {
        "samples": {
            "n": sampled.returns.shape[1],
            "per_year": sampled.per_year,
            "periods": sampled.periods,
        },
        "baseline": baseline,
        "market": e.measure_market(first),
        "equal_risk": accounts is not None,
        **rules,
    }
    return manifest


def check_alike(results: Mapping[str, Result]) -> None:
    """Raise ParameterError unless results were made on the same market under the same terms."""
    name, first = next(iter(results.items()))
    terms = describe_terms(first)
    for other, result in results.items():
        fault = describe_differences(name, terms, describe_terms(result))
        # The account of a resumed run is not new, whatever its terms are.
        if result.manifest["resumed_from"] is not None:
            fault = "begins in the middle: it was resumed from another run"

        if fault:
            raise core.ParameterError(
                "results must share market data, time, signal, venue and account to be compared, "
                f"{other!r} {fault}"
            )


def describe_differences(name: str, terms: Any, other_terms: Any) -> str:
    """Return in which terms a result differs from the one of this name; empty if in none."""
    differing = [term for term, _, _ in walk_differences(terms, other_terms)]
    if not differing:
        return ""
    text = f"differs from {name} in {', '.join(differing[:LISTED])}"
    if len(differing) > LISTED:
        text = f"{text} and {len(differing) - LISTED} more"
    return text


def describe_terms(result: Result) -> Any:
    """Return what results must have in common to be compared, as plain data."""
    manifest = result.manifest
    data = manifest["data"]
    terms = {
        "market data": data["content_hash"],
        "start": data["start"],
        "end": data["end"],
    }
    for name in SHARED:
        terms[name] = manifest[name]
    terms["overlay"] = find_overlay(manifest)
    return core.to_plain(terms)


def find_overlay(manifest: Mapping[str, Any]) -> str:
    return str((manifest.get("overlay") or {}).get("text", ""))


def walk_differences(
    mine: Any,
    theirs: Any,
    lead: str = "",
) -> Iterator[tuple[str, Any, Any]]:
    """Yield the dotted name and both values of each entry in which plain data differ."""
    if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
        for key in sorted({*mine, *theirs}):
            name = f"{lead}.{key}" if lead else key
            yield from walk_differences(mine.get(key), theirs.get(key), name)
        return

    # Lists of two lengths differ as a whole.
    if isinstance(mine, list) and isinstance(theirs, list) and len(mine) == len(theirs):
        for place, (one, other) in enumerate(zip(mine, theirs, strict=True)):
            yield from walk_differences(one, other, f"{lead}[{place}]")
        return

    if mine != theirs:
        yield lead, mine, theirs


def sample_returns(results: Mapping[str, Result]) -> Sampled:
    """Return the returns of results over the same sampling periods, and the risk-free ones."""
    rows = np.array([result.returns.to_numpy() for result in results.values()])

    # All have the same venue and time, and so the same risk-free rate.
    first = next(iter(results.values()))
    venue = first.venues[first.names[0]]
    time = first.time
    years = np.diff(time, prepend=time[:1]) / (venue.day_count * DAY)
    rate = as_of(venue.cash_rate, time, "Venue.cash_rate")
    free = engine.earn_cash(rate, years, len(time))
    return Sampled(
        returns=rows,
        free=compound_free(free, first.ends_sample),
        per_year=rows.shape[1] / first.span.years,
        periods=first.span.periods,
    )


def compound_free(free: core.FloatArray, ends_sample: np.ndarray) -> core.FloatArray:
    """Return the risk-free return of each sampling period, of those of its bars."""
    ends = np.flatnonzero(ends_sample)
    starts = np.concatenate(([0], ends[:-1] + 1))
    return np.asarray(np.expm1(np.add.reduceat(np.log1p(free), starts)))


def equalize_risk(
    results: Mapping[str, Result],
    progress: core.Progress | None,
) -> dict[str, e.ScaledAccount] | None:
    """Scale accounts to the lowest volatility of those that move; None if none does.

    An account that cannot be run again has a scale of 1.
    """
    volatilities = {name: float(result.metrics["volatility"]) for name, result in results.items()}
    moving = [volatility for volatility in volatilities.values() if volatility > LEAST_DEVIATION]
    if not moving:
        return None

    target = min(moving)
    accounts = {}
    for done, (name, result) in enumerate(results.items()):
        if explain_fixed(result):
            accounts[name] = e.ScaledAccount(
                result,
                1.0,
                volatilities[name],
                target=target,
            )
        else:
            accounts[name] = e.scale_to_volatility(result, target)
        core.report_progress(progress, done + 1, len(results))
    return accounts


def explain_fixed(result: Result) -> str:
    """Return why a result is not run again at another scale; empty if it is."""
    if "switches" in result.manifest["policy"]:
        return "changed its parameters on the way"
    if not result.policies:
        return "was loaded"
    return "was ruined" if result.metrics["ruined"] else ""


def describe_unequal(name: str, account: e.ScaledAccount) -> str:
    """Return why an account does not have the volatility of the others, as a sentence."""
    target = core.format_percent(account.target)
    volatility = float(account.result.metrics["volatility"])
    if volatility == 0.0:
        return f"{name} held nothing, and cannot be scaled to {target}: its risk is not equal"

    reached = core.format_percent(volatility)
    why = explain_fixed(account.result)
    if why:
        return (
            f"{name} {why}, and is compared as measured, at a volatility of {reached}, not of "
            f"{target}: its risk is not equal"
        )
    return f"{name} was scaled to a volatility of {reached}, not to {target}: its risk is not equal"


class Pairs(NamedTuple):
    """Each policy beside the baseline.

    ``names`` are those of the policies, ``places`` (p, 2) the rows of policy and baseline in the
    table, ``bases`` (p,) how their differences are decided.
    """

    names: list[str]
    places: core.IntArray
    bases: np.ndarray


def pair_policies(
    table: pd.DataFrame,
    baseline: str,
    returns: core.FloatArray,
    ruined: core.BoolArray,
) -> Pairs:
    """Return each policy beside the baseline, with what decides between the two."""
    names = [*table.index]
    others = [name for name in names if name != baseline]
    baseline_row = names.index(baseline)
    rows = [(names.index(name), baseline_row) for name in others]
    places = np.array(rows, dtype=np.int64)

    # Two that lost everything are not told apart by what they did before.
    bases = np.array([find_basis(returns, pair, ruined) for pair in places], dtype=object)
    is_lost = np.array([measured.is_lost(row) for row in table.to_dict("records")])
    are_both_lost = is_lost[places].all(axis=1)
    bases[are_both_lost] = LOST
    return Pairs(others, places, bases)


def tabulate_differences(
    sampled: Sampled,
    table: pd.DataFrame,
    rest: core.FloatArray,
    baseline: str,
    rules: Rules,
    progress: core.Progress | None,
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return a row per measure and policy, and the length of blocks by measure.

    ``rest`` of shape (k,) is by what returns are still to be multiplied for the risk to be equal.
    """
    ruined = table["ruined"].to_numpy() != 0.0
    living = np.where(ruined[:, None], 0.0, sampled.returns * rest[:, None])
    pairs = pair_policies(table, baseline, living, ruined)
    sampled = sampled._replace(returns=living)
    draws = rules["draws"]

    parts = []
    blocks = {}
    for place, measure in enumerate(TITLES):
        is_tested = measure in STATISTICS
        values = table[measure].to_numpy()
        if not is_tested:  # what is tested is made of the scaled returns
            with np.errstate(invalid="ignore"):
                values = values * rest
        part = lay_out_differences(measure, pairs, values, baseline)

        is_drawn = np.isin(pairs.bases, (TEST, SAME)) & is_tested
        if is_drawn.any():
            drawn = measured.compare_pairs(
                sampled,
                pairs.places[is_drawn],
                measure,
                confidence=rules["confidence"],
                draws=draws,
                rng=np.random.default_rng(rules["seed"]),
                progress=count_from(place * draws, len(STATISTICS) * draws, progress),
            )
            blocks[measure] = drawn.block
            for name in ("difference", "low", "high", "p_value"):
                part.loc[is_drawn, name] = getattr(drawn, name)
        parts.append(decide(part, pairs.bases, is_tested=is_tested, rules=rules))
    return pd.concat(parts, ignore_index=True), blocks


def count_from(
    before: int,
    total: int,
    progress: core.Progress | None,
) -> Callable[[int], None]:
    """Return a function that reports the histories of one measure as those of all."""

    def report(done: int) -> None:
        core.report_progress(progress, before + done, total)

    return report


def lay_out_differences(
    measure: str,
    pairs: Pairs,
    values: core.FloatArray,
    baseline: str,
) -> pd.DataFrame:
    """Return the rows of a measure, before any test; ``values`` (k,) are those of the policies.

    A ruined account has no measures but a log growth, which decides without a test.
    """
    with np.errstate(invalid="ignore"):
        gap = measured.pair_differences(values, pairs.places)
    is_ruin = pairs.bases == RUIN
    after_ruin = gap if measure == "log_growth" else np.nan
    edge = np.where(is_ruin, after_ruin, np.nan)
    return pd.DataFrame(
        {
            "policy": pairs.names,
            "against": baseline,
            "measure": measure,
            "difference": np.where(is_ruin, edge, gap),
            "low": edge,
            "high": edge,
            "p_value": np.nan,
            "p_holm": np.nan,
        }
    )


def decide(
    part: pd.DataFrame,
    bases: np.ndarray,
    *,
    is_tested: bool,
    rules: Rules,
) -> pd.DataFrame:
    """Return the rows of a measure with corrected p-values, and what is more than noise.

    ``bases`` say what decides each difference; it is no test where the measure is not tested, and
    nothing where the difference is not defined. An infinite difference, after a ruin, is clear.
    """
    part = part.copy()
    part.loc[bases == LOST, ["difference", "low", "high"]] = np.nan
    is_test = bases == TEST
    p_values = part["p_value"][is_test].to_numpy()
    part.loc[is_test, "p_holm"] = measured.holm(p_values)

    # A p-value that is the level to rounding decides.
    level = 1.0 - rules["confidence"]
    is_decided = part["p_holm"] <= level + 1e-12

    basis = bases.copy()
    if not is_tested:
        basis[is_test] = UNTESTED
    is_undefined = part["difference"].isna() & ~np.isin(bases, (RUIN, LOST))
    basis[is_undefined] = NONE
    is_clear = np.isinf(part["difference"]) | is_decided
    return part.assign(distinguishable=is_clear, basis=basis)


def find_basis(
    returns: core.FloatArray,
    pair: core.IntArray,
    ruined: core.BoolArray,
) -> str:
    """Return what decides between two accounts: a test, their likeness, ruin, or too few data.

    ``returns`` (n_accounts, n_periods) are of all accounts, and ``pair`` (2,) the rows of the two.
    """
    if ruined[pair].any():
        return RUIN
    one, other = returns[pair]
    if len(one) < LEAST_SAMPLES:
        return FEW

    # Alike to rounding: the root mean square of their difference, over the larger of their own.
    distance = np.sqrt(np.mean((one - other) ** 2))
    size = np.sqrt(max(np.mean(one**2), np.mean(other**2)))
    if distance <= ALIKE * size:
        return SAME
    return TEST
