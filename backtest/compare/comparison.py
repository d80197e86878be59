"""Comparison: several accounts on one market, and the tests of their differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import pandas as pd

from backtest import base
from backtest.base.result_parts import NOTHING, Headline, Part, Shown, ShownChart, ShownTable
from backtest.measures import Sampled, compare_pairs, holm, is_lost, pair_differences
from backtest.measures.differences import STATISTICS
from backtest.measures.ranking import AFTER_RUIN, DOUBTS

if TYPE_CHECKING:
    from backtest.engine import Result


MEASURED = (
    "log_growth", "cagr", "volatility", "sharpe", "max_drawdown", "es_95", "mean_leverage",
    "liquidations", "fees_annual", "funding_annual",
)  # fmt: skip
TITLES = {
    "log_growth": "log growth per year",
    "sharpe": "Sharpe",
    "volatility": "volatility",
    "es_95": "ES 95 %",
}
COVERAGE = (
    "on simulated accounts of 500 and 2,000 days, 95 % intervals held the true difference of log "
    "growth and Sharpe ratio in 93 to 97 % of cases (docs/sweeps.md)"
)
LEAST_MEASURED = 500
"""Periods of a comparison under which nobody measured the coverage."""


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(base.SavedResult):
    """Several policies on the same market and terms.

    Attributes
    ----------
    table : DataFrame
        One row per policy: ``log_growth`` per year (-inf after ruin), all measures of a run, and
        ``liquidation_loss_annual``; at equal risk also ``scale`` and ``unscaled_volatility``.
    differences : DataFrame
        One row per measure and policy beside the baseline: ``policy``, ``against``, ``measure``
        (log_growth, sharpe, volatility, es_95), ``difference`` from the baseline, ``low`` and
        ``high`` of its interval, ``p_value``, ``p_holm`` (corrected over the rows of the measure),
        ``distinguishable``, and its ``basis``: ``test``; ``alike`` (almost equal returns);
        ``ruin`` (decided without a test); ``no test`` (volatility, es_95); ``too few returns``;
        ``undefined``.
    returns : DataFrame
        Simple returns per sampling period, one column per policy.
    risk_free : Series
        The risk-free return of the same periods.
    manifest : mapping
        Data, venue, account, policies, settings and versions.
    results : mapping of str to Result, or None
        The results, scaled at equal risk; None in a loaded comparison.
    """

    table: pd.DataFrame
    differences: pd.DataFrame
    returns: pd.DataFrame
    risk_free: pd.Series[float]
    manifest: Mapping[str, Any]
    results: Mapping[str, Result] | None = None

    kind = "comparison"
    call = "bt.compare"
    table_names = ("table", "differences", "returns")

    @property
    def names(self) -> tuple[str, ...]:
        """The results, in the order given."""
        return tuple(map(str, self.table.index))

    @property
    def baseline(self) -> str:
        """The result that the others are compared with."""
        return str(self.manifest["baseline"])

    @property
    def confidence(self) -> float:
        """The confidence of intervals and decisions."""
        return float(self.manifest["confidence"])

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings of the comparison, one sentence each."""
        return tuple(self.manifest["warnings"])

    @property
    def ruined(self) -> tuple[str, ...]:
        """The policies whose account was ruined, latest ruin first."""
        fallen = self.table[self.table["ruined"] != 0.0]
        rows = fallen.sort_values("ruin_time", ascending=False, kind="stable")
        return tuple(map(str, rows.index))

    @property
    def lost(self) -> tuple[str, ...]:
        """The policies whose account was lost: ruined, or 99 % of its unit value is gone."""
        rows = self.table[["ruined", "total_return"]].to_dict("index")
        return tuple(str(name) for name, row in rows.items() if is_lost(row))

    @property
    def order(self) -> tuple[str, ...]:
        """The policies by log growth, highest first; ruined ones last, latest ruin first."""
        growth = self.table["log_growth"].sort_values(ascending=False, kind="stable")
        return (*(str(name) for name in growth.index if name not in self.ruined), *self.ruined)

    def _tabulate_gaps(self) -> ShownTable:
        cells: dict[str, dict[str, str]] = {}
        for row in self.differences.to_dict("records"):
            cells.setdefault(str(row["policy"]), {})[TITLES[row["measure"]]] = write_gap(row)
        others = [name for name in self.order if name != self.baseline]
        table = pd.DataFrame.from_dict(cells, orient="index").loc[others]
        heads = {title: base.Head(title, "", "decimals") for title in TITLES.values()}
        note = f"Intervals of {100.0 * self.confidence:.6g} %; * is more than noise."
        caption = f"Difference from {self.baseline}"
        return ShownTable(table, caption, note, base.Head("policy"), heads)

    def _describe_intervals(self) -> str:
        blocks = ", ".join(f"{n} for {TITLES[name]}" for name, n in self.manifest["blocks"].items())
        few = f"; here are {len(self.returns):,} periods, fewer than were measured"
        return (
            f"intervals by the stationary bootstrap: {self.manifest['draws']:,} histories, seed "
            f"{self.manifest['seed']}, of all accounts together, in blocks of a mean length of "
            f"{blocks or 'no'} periods; decisions allow for the number of comparisons of a measure "
            f"(Holm). {base.capitalize(COVERAGE)}{few * (len(self.returns) < LEAST_MEASURED)}"
        )

    @property
    def verdict(self) -> str:
        """Which differences from the baseline are more than noise, in a sentence or two."""
        clear = self.differences[self.differences["distinguishable"]]
        parts = []
        for measure, words in TITLES.items():
            rows = clear[clear["measure"] == measure].to_dict("records")
            sides = [f"{row['policy']} ({'higher' if row['difference'] > 0.0 else 'lower'})"
                     for row in rows]  # fmt: skip
            parts += [f"{words}: {', '.join(sides)}"] if sides else []
        start = f"Against {self.baseline}, with {self.confidence:.0%} confidence,"
        if not parts:
            return f"{start} nothing differs by more than noise."
        return f"{start} these differ by more than noise. {base.capitalize('; '.join(parts))}."

    @property
    def notices(self) -> tuple[str, ...]:
        """Ruin, what is not compared, and how the accounts differ."""
        days = self.table["ruin_time"]
        found = [
            f"{name} was RUINED after {float(days[name]):,.1f} days: no trade since; {AFTER_RUIN}."
            for name in self.ruined
        ]
        for name in self.lost:
            if name not in self.ruined:
                left = 1.0 + float(self.table["total_return"][name])
                found.append(
                    f"{name} was LOST: {base.format_percent(left, 4)} of its money is left."
                )
        if len(self.lost) > 1:
            found.append(f"Nothing is compared between lost accounts: {', '.join(self.lost)}.")
        if self.manifest["equal_risk"]:
            found.append(
                "At equal risk: positions were scaled by factors known only afterwards, to compare "
                "and not to trade."
            )
        for measure, doubt in DOUBTS.items():
            counts = self.table[measure][self.table[measure] > 0.0]
            if len(counts):
                each = ", ".join(f"{name} {count:,.0f}" for name, count in counts.items())
                found.append(f"Bars in which {doubt}: {each}.")
        return (*found, *self.warnings)

    def __repr__(self) -> str:
        risk = " at equal risk" if self.manifest["equal_risk"] else ""
        return f"<Comparison of {', '.join(self.names)}{risk} on {self.manifest['data']['source']}>"

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as data for JSON."""
        data: dict[str, Any] = base.to_plain(
            {
                "comparison": self.manifest,
                "table": self.table.reset_index().to_dict("records"),
                "differences": self.differences.to_dict("records"),
                "order": list(self.order),
            }
        )
        return data

    # ---------------------------------------------------------------------------------- the page

    @property
    def folder_title(self) -> str:
        """What the name of the folder begins with."""
        return "compare"

    @property
    def policy_name(self) -> str:
        """All policies."""
        return ", ".join(self.names)

    @property
    def title(self) -> str:
        """The baseline, and what is compared with it."""
        others = ", ".join(name for name in self.names if name != self.baseline)
        return f"{self.baseline} against {others}"

    @property
    def note(self) -> str:
        """The number of policies."""
        return f"{len(self.names)} policies"

    @property
    def heading(self) -> str:
        """The title of the page."""
        return base.clip(self.title, 200)

    def list_numbers(self) -> list[Headline]:
        """Return the CAGR and the Sharpe ratio of each account, the highest growth first."""
        rows = self.table[["cagr", "sharpe"]].to_dict("index")
        return [
            Headline(f"cagr {name}", base.clip(name, 60), rows[name]["cagr"], "percent",
                     f"per year; Sharpe {base.format_number(rows[name]['sharpe'])}", "more")
            for name in self.order[:8]
        ]  # fmt: skip

    def list_parts(self) -> list[Part]:
        """Return the accounts, and their differences from the baseline."""
        others = [name for name in self.names if name != self.baseline]
        units = (1.0 + self.returns[[self.baseline, *others]]).cumprod()
        ordered, label = self.table.loc[list(self.order)], base.Head("policy")
        names = tuple(name for name in MEASURED[1:] if name in self.table)
        accounts: list[Shown] = [
            show_accounts(units),
            ShownTable(ordered, "Measures", columns=names, labels=label,
                       note="The highest log growth first, ruined accounts last."),
        ]  # fmt: skip
        gaps: list[Shown] = []
        for measure, title in TITLES.items():
            rows = self.differences[self.differences["measure"] == measure].set_index("policy")
            gaps.append(show_gap(f"difference-{measure}", f"Difference of {title}", rows))
        gaps.append(self._tabulate_gaps())
        lead = f"Each account less {self.baseline}; intervals hold {self.confidence:.0%}."
        return [
            Part("accounts", "The accounts", "One unit of money in each, over the same time.",
                 tuple(accounts), "both"),
            Part("differences", "What differs by more than noise", lead, tuple(gaps), "both"),
        ]  # fmt: skip

    def list_assumptions(self) -> tuple[str, ...]:
        """Return how the intervals were computed."""
        return (f"{base.capitalize(self._describe_intervals())}.",)

    def list_measures(self) -> Mapping[str, float]:
        """Return the measures of the policy with the highest log growth."""
        best: Any = self.table.loc[self.order[0]]
        return dict(best)

    def list_policies(self) -> Iterable[type]:
        """Return the classes of the policies; none of loaded results."""
        for result in (self.results or {}).values():
            yield from (type(each) for each in result.policies.values())

    def _lay_out(self) -> dict[str, pd.DataFrame | None]:
        returns = self.returns.set_axis(range(len(self.names)), axis=1)
        numbered = {str(name): returns[name] for name in returns}
        columns = {"time": returns.index, "risk_free": self.risk_free, **numbered}
        return {
            "table": self.table.reset_index(),
            "differences": self.differences,
            "returns": pd.DataFrame(columns),
        }

    @classmethod
    def _read_back(
        cls,
        manifest: dict[str, Any],
        tables: Mapping[str, pd.DataFrame],
        folder: Path,  # noqa: ARG003
    ) -> Self:
        table, returns = tables["table"].set_index("policy"), tables["returns"].set_index("time")
        free = returns.pop("risk_free")
        named = returns.set_axis(table.index.rename(None), axis=1)
        return cls(table, tables["differences"], named, free, manifest)


def write_gap(row: Mapping[Any, Any]) -> str:
    """Return a difference with the half width of its interval, or why it has none."""
    mark = " *" if row["distinguishable"] else ""
    gap, half, basis = row["difference"], row["high"] - row["difference"], row["basis"]
    if basis in (SAME, LOST):
        return str(basis)
    if basis not in (TEST, FEW, UNTESTED):
        word = "below" if gap < 0.0 else "above"
        return f"{word if math.isinf(gap) else 'n/a'}{mark}"
    unit = 1.0 if row["measure"] == "sharpe" else 100.0
    around = "" if basis != TEST else f" ± {unit * half:.2f}" if math.isfinite(half) else " ± ?"
    return f"{unit * gap:.2f}{around}{'' if unit == 1.0 else ' %'}{mark}"


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
    ruined: base.BoolArray,
    lost: base.BoolArray,
    rules: BootstrapRules,
    progress: Callable[[int, int], None] | None,
) -> tuple[pd.DataFrame, dict[str, int]]:
    origin = names.index(baseline)
    pairs = np.array([(k, origin) for k in range(len(names)) if k != origin], dtype=np.int64)
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


def find_basis(returns: base.FloatArray, pair: base.IntArray, ruined: base.BoolArray) -> str:
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
    pairs: base.IntArray,
    bases: Any,
    measure: str,
    rules: BootstrapRules,
    on_draw: Callable[[int], None] | None,
) -> tuple[dict[str, base.FloatArray], int]:
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


def set_ruined_growth(
    found: dict[str, base.FloatArray], ruined: base.BoolArray, pairs: base.IntArray
) -> None:
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
