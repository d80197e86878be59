"""Checks of a policy in runs: finite, repeatable, the same compiled, and blind to the future."""

from __future__ import annotations

import warnings

import numpy as np

from backtest.base.json_values import show
from backtest.base.units import FloatArray
from backtest.contract_trial import BrokenContractError, Situation, Trial
from backtest.engine.bar_loop import RECORDED
from backtest.engine.compile.first_answer import compiling_first
from backtest.engine.lookahead.alternative_futures import make_futures
from backtest.engine.lookahead.causality import check_causality, observe
from backtest.engine.lookahead.causality_checker import FULL
from backtest.engine.result import Result

TARGET = RECORDED.index("target")
STEADY = "use no random numbers, no clock, and no state but the memory"


# ------------------------------------------------------------------------------- as a forecaster


def check_columns(trial: Trial) -> str:
    """Require columns of one number per bar, the same twice, known before the market ends."""
    if not trial.columns:
        return "observes nothing"
    again = observe(trial.policy, trial.market)
    for name, column in trial.columns.items():
        bad = find_difference(column, again.get(name, np.empty(0)))
        if bad is not None:
            raise BrokenContractError(
                f"column {name!r} at {trial.place(bad)} differs from one call to the next: {STEADY}"
            )
    if not trial.is_warm.any():
        never = [name for name, column in trial.columns.items() if not np.isfinite(column).any()]
        raise BrokenContractError(
            f"{', '.join(never) or 'the columns together'} never known in "
            f"{trial.market.n_bars} bars: give a longer market, or shorter windows as defaults"
        )
    first = int(np.argmax(trial.is_warm))
    return f"observes {', '.join(trial.columns)}, known from bar {first} on"


def check_causal_columns(trial: Trial) -> str:
    """Require that columns up to bar t are the same whatever comes after it, or if nothing does."""
    causality = check_causality(trial.policy, trial.market, trial.columns, plan=FULL)
    rng = np.random.default_rng(0)
    for t in choose_cuts(trial):
        for what, market in make_futures(trial.market, t, rng):
            seen = observe(trial.policy, market)
            if seen.keys() != trial.columns.keys():
                raise BrokenContractError(
                    f"observes {', '.join(seen)} {what} {t}, {', '.join(trial.columns)} before"
                )
            for name, column in trial.columns.items():
                bad = find_difference(column[: t + 1], seen[name][: t + 1])
                if bad is not None:
                    raise BrokenContractError(
                        f"looks ahead: column {name!r} at {trial.place(bad)} is "
                        f"{show(column[bad])}, but {show(seen[name][bad])} {what} {t}. "
                        "Use only values up to each bar: "
                        "rolling and ewm, not mean() of all, not shift(-1), no centered windows"
                    )
    if not trial.columns:
        return "observes nothing"
    return f"the same columns, whatever comes after; {causality}"


def choose_cuts(trial: Trial) -> list[int]:
    """Return bars after which the future is changed: when just warm, and some later ones."""
    n = trial.market.n_bars
    warm = int(np.argmax(trial.is_warm))
    cuts = {warm + 1, *(warm + (n - warm) * k // 4 for k in (1, 2, 3)), n - 2}
    return sorted(t for t in cuts if 1 <= t <= n - 2)


# -------------------------------------------------------------------------- as a decision maker


def check_runs(trial: Trial) -> str:
    """Require that it lives through the market in every situation, in plain Python."""
    results = [trial.plain, *(trial.live(trial.market, each) for each in trial.situations[1:])]
    return ", ".join(
        f"{situation.name}: mean leverage {result.metrics['mean_leverage']:.3g}"
        for situation, result in zip(trial.situations, results, strict=True)
    )


def check_finite(trial: Trial) -> str:
    """Require finite decisions once its columns are known."""
    target, equity = trial.plain.record[TARGET], trial.plain.record[0]
    asked = trial.is_warm & (equity > 0.0)
    infinite = np.flatnonzero(asked & np.isinf(target))
    if len(infinite):
        raise BrokenContractError(
            f"infinite at {len(infinite)} of {asked.sum()} decisions, first at "
            f"{trial.place(int(infinite[0]))}: say how much is meant"
        )
    known = asked & np.isfinite(target)
    if not known.any():
        raise BrokenContractError(f"NaN at all {asked.sum()} decisions: it never trades")
    if known.sum() < asked.sum():
        return f"finite at {known.sum()} of {asked.sum()} decisions, NaN (no change) at the others"
    return f"finite at all {asked.sum()} decisions"


def check_repeatable(trial: Trial) -> str:
    """Require the same bits when it is run again."""
    again = Trial(trial.cls, trial.market, trial.accounts)
    bad = find_difference(again.plain.record[TARGET], trial.plain.record[TARGET])
    if bad is not None:
        raise BrokenContractError(
            f"the leverage at {trial.place(bad)} differs from one run to the next: {STEADY}"
        )
    return "the same bits twice"


def check_compiled(trial: Trial) -> str:
    """Require the same bits compiled and in plain Python, or one warning saying why not."""
    for situation in trial.situations:
        with warnings.catch_warnings(record=True) as caught, compiling_first():
            warnings.simplefilter("always")
            compiled = trial.live(trial.market, situation, is_compiled=True)
        reason = compiled.manifest["compiled"]
        if reason != "yes":
            if len(caught) != 1:
                raise BrokenContractError(f"{len(caught)} warnings where one says: {reason}")
            return f"runs in plain Python only: {reason}"
        is_done = situation is trial.situations[0]
        plain = trial.plain if is_done else trial.live(trial.market, situation)
        compare_runs(trial, situation, compiled, plain)
    names = ", ".join(situation.name for situation in trial.situations)
    return f"compiled; the same bits in: {names}"


def compare_runs(trial: Trial, situation: Situation, compiled: Result, plain: Result) -> None:
    """Refuse two runs that differ in any bit of their record, events or measures."""
    advice = (
        "in leverage use math.log, math.exp, math.sqrt and so on rather than numpy's functions or "
        "** 0.5, whose last bit may differ once compiled"
    )
    bad = find_difference(compiled.record[TARGET], plain.record[TARGET])
    if bad is not None:
        one, other = compiled.record[TARGET, bad], plain.record[TARGET, bad]
        raise BrokenContractError(
            f"{situation.name}: the leverage at {trial.place(bad)} is {show(one)} compiled, "
            f"{show(other)} in plain Python; {advice}"
        )
    pairs: dict[str, tuple[FloatArray, FloatArray]] = {
        "record": (compiled.record, plain.record),
        "events": (np.asarray(compiled.entries), np.asarray(plain.entries)),
        "measures": (np.array(compiled.tally, float), np.array(plain.tally, float)),
    }
    for name, (ours, theirs) in pairs.items():
        if find_difference(ours.ravel(), theirs.ravel()) is not None:
            raise BrokenContractError(
                f"{situation.name}: the {name} differ compiled and in plain Python, though the "
                "leverage does not: this is a defect of the engine, please report it"
            )


def check_causal_decisions(trial: Trial) -> str:
    """Require that decisions up to bar t are the same whatever comes after it."""
    rng = np.random.default_rng(1)
    situation = trial.situations[0]
    for t in choose_cuts(trial)[1::2]:
        for what, market in make_futures(trial.market, t, rng):
            result = trial.live(market, situation)
            bad = find_difference(
                trial.plain.record[TARGET, : t + 1], result.record[TARGET, : t + 1]
            )
            if bad is not None:
                raise BrokenContractError(
                    f"looks ahead: the leverage at {trial.place(bad)} differs {what} {t}"
                )
    return "the same decisions, whatever comes after"


def find_difference(one: FloatArray, other: FloatArray) -> int | None:
    """Return the first place where two arrays differ in a bit (NaN is NaN), or None."""
    n = min(len(one), len(other))
    bits = (one[:n].view(np.int64) == other[:n].view(np.int64)) | (
        np.isnan(one[:n]) & np.isnan(other[:n])
    )
    if not bits.all():
        return int(np.argmin(bits))
    return None if len(one) == len(other) else n
