"""The differences between accounts: a row per measure and pair, with its test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import BoolArray, FloatArray, IntArray, ShownChart
from backtest.base.result_parts import NOTHING
from backtest.measures import Sampled, compare_pairs, holm, pair_differences
from backtest.measures.differences import STATISTICS

LEAST_SAMPLES = 30
"""The least number of returns for an interval."""
ALIKE = 1e-4
"""Two accounts are alike if the root mean square of the difference of their returns is at most this
share of that of the returns."""

TEST, SAME, RUIN, FEW, NONE = "test", "alike", "ruin", "too few returns", "undefined"
UNTESTED = "no test"
LOST = "both lost"

COLUMNS = (
    "policy",
    "against",
    "measure",
    "difference",
    "low",
    "high",
    "p_value",
    "p_holm",
    "distinguishable",
    "basis",
)


ACCOUNTS = "The unit value of each account, free of deposits, and its fall from its own peak."


class BootstrapRules(NamedTuple):
    confidence: float
    draws: int
    seed: int


def tabulate_differences(
    sampled: Sampled,
    names: Sequence[str],
    baseline: str,
    ruined: BoolArray,
    lost: BoolArray,
    rules: BootstrapRules,
    progress: Callable[[int, int], None] | None,
) -> tuple[pd.DataFrame, dict[str, int]]:
    base = names.index(baseline)
    pairs = np.array([(k, base) for k in range(len(names)) if k != base], dtype=np.int64)
    bases = np.array([find_basis(sampled.returns, pair, ruined) for pair in pairs], dtype=object)
    bases[lost[pairs].all(axis=1)] = LOST
    living = sampled._replace(returns=np.where(ruined[:, None], 0.0, sampled.returns))
    whole = rules.draws * sum(each.is_tested for each in STATISTICS.values())
    tables, blocks = [], {}
    for place, measure in enumerate(STATISTICS):
        on_draw = (
            None if progress is None else partial(_report, progress, place * rules.draws, whole)
        )
        found, block = estimate_pairs(living, pairs, bases, measure, rules, on_draw)
        if block:
            blocks[measure] = block
        if measure == "log_growth":
            set_ruined_growth(found, ruined, pairs)
        for name in ("difference", "low", "high"):
            found[name][bases == LOST] = np.nan
        own = bases if STATISTICS[measure].is_tested else np.where(bases == TEST, UNTESTED, bases)
        unknown = np.isnan(found["difference"]) & ~np.isin(bases, (RUIN, LOST))
        rows: dict[str, Any] = {
            "policy": [names[one] for one, _ in pairs],
            "against": baseline,
            "measure": measure,
            **found,
            "basis": np.where(unknown, NONE, own),
        }
        tables.append(pd.DataFrame(rows))
    return correct_p_values(pd.concat(tables, ignore_index=True), rules.confidence), blocks


def _report(progress: Callable[[int, int], None], done: int, total: int, more: int) -> None:
    progress(done + more, total)


def find_basis(returns: FloatArray, pair: IntArray, ruined: BoolArray) -> str:
    if ruined[pair].any():
        return RUIN
    one, other = returns[pair]
    if len(one) < LEAST_SAMPLES:
        return FEW
    apart = np.sqrt(np.mean((one - other) ** 2))
    size = np.sqrt(max(np.mean(one**2), np.mean(other**2)))
    return SAME if apart <= ALIKE * size else TEST


def estimate_pairs(
    sampled: Sampled,
    pairs: IntArray,
    bases: Any,
    measure: str,
    rules: BootstrapRules,
    on_draw: Callable[[int], None] | None,
) -> tuple[dict[str, FloatArray], int]:
    statistic = STATISTICS[measure]
    value = statistic.scale(sampled) * statistic.estimate(statistic.read(sampled)).value
    gap = pair_differences(value, pairs)
    found = {name: np.full(len(pairs), np.nan) for name in ("low", "high", "p_value")}
    found = {"difference": np.where(bases == RUIN, np.nan, gap), **found}
    tested = np.isin(bases, (TEST, SAME)) & statistic.is_tested
    if not tested.any():
        return found, 0
    drawn = compare_pairs(
        sampled,
        pairs[tested],
        measure,
        confidence=rules.confidence,
        draws=rules.draws,
        rng=np.random.default_rng(rules.seed),
        progress=on_draw,
    )
    for name, column in found.items():
        column[tested] = getattr(drawn, name)
    return found, drawn.block


def set_ruined_growth(found: dict[str, FloatArray], ruined: BoolArray, pairs: IntArray) -> None:
    growth = np.where(ruined, -np.inf, 0.0)
    with np.errstate(invalid="ignore"):
        gap = pair_differences(growth, pairs)
    rows = ruined[pairs].any(axis=1)
    for name in ("difference", "low", "high"):
        found[name][rows] = gap[rows]


def correct_p_values(rows: pd.DataFrame, confidence: float) -> pd.DataFrame:
    corrected = np.full(len(rows), np.nan)
    for measure in STATISTICS:
        family = ((rows["measure"] == measure) & (rows["basis"] == TEST)).to_numpy()
        corrected[family] = holm(rows["p_value"].to_numpy()[family])
    is_fall = np.isinf(rows["difference"].to_numpy())
    decided = is_fall | (np.nan_to_num(corrected, nan=1.0) <= 1.0 - confidence + 1e-12)
    table = rows.assign(p_holm=corrected, distinguishable=decided)
    return table[list(COLUMNS)]


def show_gap(key: str, title: str, rows: pd.DataFrame) -> ShownChart:
    known = rows[np.isfinite(rows["difference"])]
    return ShownChart(
        key, title, "Blue where it is more than noise, gray where it is not.",
        known[["difference", "low", "high", "distinguishable"]] if len(known) else None,
        "intervals", x="difference", percent="" if key.endswith("sharpe") else "x", size="narrow",
    )  # fmt: skip


def show_accounts(
    units: pd.DataFrame,
    colors: Mapping[str, str] = NOTHING,
    marks: tuple[float, ...] = (),
    more: str = "",
) -> ShownChart:
    return ShownChart(
        "accounts", "The accounts over time", f"{ACCOUNTS} {more}".rstrip(), units, "accounts",
        colors, marks=marks, has_legend=True, height=560,
    )  # fmt: skip
