"""Judgement: the result of :meth:`backtest.Backtest.judge`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from backtest import core
from backtest.core.number_text import Head
from backtest.core.result_parts import Headline, Part, Shown, ShownChart, ShownTable
from backtest.judgement import rule
from backtest.judgement.costs import DECAY, is_reversed
from backtest.judgement.evidence import OF_OPTIONS, write_counts
from backtest.judgement.growth import COLUMNS, POOLED
from backtest.judgement.next_step import write_next_step
from backtest.judgement.survival import (
    MODEL,
    MONTH,
    YEAR_SHARE,
    Danger,
    find_worst,
    name_disaster,
    name_scale,
    write_cap,
    write_history_at_scale,
)
from backtest.market import Market, Markets
from backtest.results import Result
from backtest.results.manifest import describe_history
from backtest.results.settings_result import SettingsResult
from backtest.risk.scores import INTERVALS, SCORES, show_scores
from backtest.search.comparison import COVERAGE
from backtest.search.shifts import FEW_FILLS

TABLES: dict[str, tuple[str, ...]] = {
    "growth": ("market", *COLUMNS),
    "timing": (
        "market",
        "fills",
        "mean_leverage",
        "is_one_value",
        "p_growth",
        "shifts",
        "leverage_timing",
        "timing_error",
        "why",
    ),
    "survival": (
        "market",
        "horizon",
        "probability",
        "paths",
        "low",
        "high",
        "n",
        "history",
        "history_high",
        "starts",
        "starts_apart",
        "why",
    ),
    "limits": (
        "market",
        "first_leverage",
        "leverage_today",
        "largest_scale",
        "growth_at_scale",
        "drawdown_at_scale",
        "is_limited",
        "cap",
        "cap_share",
        "cap_leverage",
        "cap_from",
        "evaluations",
        "survived",
        "survived_fall",
        "fatal",
        "fatal_fall",
        "n_crashes",
        "n_survived",
        "half_growth",
        "capacity",
        "why",
    ),
    "costs": ("market", "cost", "given_up", "growth", "step", "growth_at_step", "n", "why"),
    "promises": (
        "market",
        "promise",
        "rule",
        "bound",
        "value",
        "low",
        "high",
        "n",
        "n_needed",
        "verdict",
        "why",
    ),
    "search": (
        "market",
        "is_counted",
        "trials",
        "looks",
        "n",
        "p_adjusted",
        "deflated_sharpe",
    ),
    "scores": ("market", *SCORES),
    "intervals": ("market", *INTERVALS),
}
"""The columns of each table, the first its index."""


@dataclass(frozen=True, eq=False, repr=False)
class Judgement(SettingsResult):
    """One answer on a policy: better than constant leverage, timed, safe, and what it costs.

    Attributes
    ----------
    growth : DataFrame
        By market, and ``pooled``: ``difference`` of log growth a year from constant leverage at
        equal risk, its 95 % interval ``low`` to ``high``, ``p_value``, ``n`` sampling periods,
        their ``years``, the ``years_needed`` for an interval as noisy as this to leave 0 (NaN: over
        1,000); log ``growth`` a year of the policy, of constant leverage and of buy and hold, their
        worst drawdowns, the mean leverage of the constant, and ``why`` it was not tested.
    timing : DataFrame
        By market: ``fills``, ``mean_leverage``, whether it decided one value, and the shift test
        of growth: ``p_growth``, ``shifts``, or ``why`` not.
    survival : DataFrame
        By market and ``horizon``: ``probability`` of losing the account by any cause, as
        ``backtest risk`` prints it; its two sources, ``paths`` with an interval of the simulation
        (``n`` paths), and ``history`` with the largest probability that its ``starts_apart`` leave.
    limits : DataFrame
        By market: ``first_leverage``, which a new account decides at the last close (before limits
        of account and margin), and ``leverage_today`` of the account of the run, with which crashes
        begin; the ``largest_scale`` of the policy at 1 % in 30 days, its
        ``growth_at_scale`` (log growth a year on history, -inf of an account that is ruined),
        ``drawdown_at_scale`` (its worst drawdown there, a fraction),
        ``is_limited`` (whether no scale that was tried is lost more often: it is where the search
        ended), the ``cap`` of venue or account that cuts ``cap_share`` of the decisions there, to
        ``cap_leverage`` on average, which it does from a scale of about ``cap_from`` on, the
        worst crash ``survived`` and the first ``fatal`` one with the falls of the mark, and the
        capital at ``half_growth``.
    costs : DataFrame
        By market and ``cost``: log growth a year ``given_up``, compound ``growth`` as run and at
        ``step`` times the cost (of decay: times the volatility). Negative: what it added. Funding
        of markets with sessions is called ``dividends``.
    promises : DataFrame
        By market and ``promise``: what was promised, what came, and the verdict.
    search : DataFrame
        By market, and pooled: ``trials`` and ``looks`` at holdouts that the store has counted, the
        p-value of the difference for so many trials, and its deflated Sharpe ratio.
    scores, intervals : DataFrame
        With ``score``, by market and ``forecast``: what such forecasts told at past dates and what
        came, as in :class:`backtest.LiquidationRisk`.
    differences : DataFrame
        Daily difference of log growth from constant leverage, by market and pooled.
    """

    growth: pd.DataFrame
    timing: pd.DataFrame
    survival: pd.DataFrame
    limits: pd.DataFrame
    costs: pd.DataFrame
    promises: pd.DataFrame
    search: pd.DataFrame
    scores: pd.DataFrame
    intervals: pd.DataFrame
    differences: pd.DataFrame
    markets: Mapping[str, Market | Markets] | None = None
    accounts: Mapping[str, Result] | None = None

    kind = "judgement"
    call = "Backtest.judge"
    is_yearly = True
    long_tables = ("differences",)

    def describe_data(self) -> Mapping[str, Any]:
        """Return the data of all markets that were traded, which need not fit one account."""
        starts = self.settings.get("starts", {})
        histories = []
        for name, market in (self.markets or {}).items():
            histories.append(describe_history(market, starts.get(name)))
        if not histories:
            return describe_history(None)
        if len(histories) == 1:
            return histories[0]

        table = pd.DataFrame(histories)
        texts = table.astype(str)
        hashes = "".join(texts["content_hash"])
        return {
            "source": ", ".join(texts["source"]),
            "instrument": ", ".join(self.names),
            "content_hash": hashlib.sha256(hashes.encode()).hexdigest(),
            "start": texts["start"].min(),
            "end": texts["end"].max(),
            "bars": int(table["bars"].sum()),
            "interval": ", ".join(texts["interval"].unique()),
            "synthetic": bool(table["synthetic"].any()),
            "filled": {},
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The markets, those that failed among them."""
        return tuple(self.settings["markets"])

    @property
    def faults(self) -> Mapping[str, str]:
        """Why markets failed, by name."""
        return dict(self.settings["faults"])

    def with_faults(self, faults: Mapping[str, str]) -> Judgement:
        """Return the judgement with markets that failed before it, each a row with its cause."""
        tested = self.growth.index.drop(POOLED)
        rows = self.growth.reindex([*tested, *faults, POOLED])
        for name, why in faults.items():
            rows.loc[name, "why"] = f"failed: {why}"
        settings = {
            **self.settings,
            "markets": [*self.names, *faults],
            "faults": {**self.faults, **faults},
        }
        return replace(self, growth=rows, settings=settings)

    @property
    def findings(self) -> rule.Findings:
        """What the rule of the sentence reads."""
        # Growth: why there is no difference is the cause of the first market that has one.
        pooled: Any = self.growth.loc[POOLED]
        by_market = self.growth.drop(index=POOLED)
        is_tested = by_market["difference"].notna()
        is_ruined = by_market["growth"].astype(float) == -math.inf
        causes = [str(why) for why in by_market["why"][~is_tested] if why]
        n_days = 0
        if not math.isnan(pooled["n"]):
            n_days = int(pooled["n"])

        # Timing: few fills, one value throughout, and options time nothing that can be tested.
        timing = self.timing
        is_one_value = timing["is_one_value"].astype(bool)
        has_options = timing["why"] == OF_OPTIONS
        has_fills = timing["fills"] >= FEW_FILLS
        is_timed = has_fills & ~is_one_value & ~has_options

        danger = self.find_danger()
        return rule.Findings(
            markets=self.names,
            ruined=list_names(by_market, is_ruined),
            chance=danger.chance,
            chance_market=danger.market,
            chance_source=danger.source,
            timed=list_names(timing, is_timed),
            fills=int(timing["fills"].sum()),
            is_one_value=bool(is_one_value.all()),
            is_timing_tested=not has_options.all(),
            tested=list_names(by_market, is_tested),
            difference=float(pooled["difference"]),
            low=float(pooled["low"]),
            high=float(pooled["high"]),
            n=n_days,
            years_needed=float(pooled["years_needed"]),
            why=next(iter(causes), str(pooled["why"])),
        )

    def find_danger(self) -> Danger:
        """Return the market, the source and the highest probability of loss in 30 days."""
        rows: dict[tuple[str, str], Any] = {}
        for name, row in self.survival.iterrows():
            rows[str(name), str(row["horizon"])] = row
        return find_worst(rows)

    @property
    def outcome(self) -> str:
        """Unsafe, not timed, better, worse, not tested, or no evidence of a difference."""
        return rule.decide(self.findings)

    @property
    def met(self) -> tuple[str, ...]:
        """Which of ``better``, ``safe`` and ``timed`` hold."""
        return rule.list_met(self.findings)

    def list_unmet(self, required: Iterable[str]) -> list[str]:
        """Return which requirements do not hold, of ``better``, ``safe`` and ``timed``."""
        names = rule.check_requirements([*required])
        return [name for name in names if name not in self.met]

    @property
    def policy_name(self) -> str:
        return str(self.settings["name"])

    @property
    def title(self) -> str:
        return str(self.settings["policy"])

    @property
    def heading(self) -> str:
        subject = self.title
        if self.settings["tune"]:
            subject = f"{self.title}, re-optimized,"
        return core.clip(f"{subject} judged on {', '.join(self.names)}", 200)

    @property
    def note(self) -> str:
        return self.outcome

    @property
    def verdict(self) -> str:
        return rule.write_sentence(self.findings, self.policy_name)

    @property
    def details(self) -> str:
        texts = [*self.list_remarks()]
        if self.settings["tune"]:
            texts.append(
                f"Re-optimized with {self.settings['tune']:,} sets in each fold of a walk, and "
                "judged only out of sample."
            )
        texts.append(self.next_step)
        return " ".join(texts)

    def list_remarks(self) -> Iterator[str]:
        """Yield the lines under the sentence."""
        findings = self.findings
        if self.outcome == rule.NO_EVIDENCE:
            yield write_years_needed(findings)

        if findings.is_unsafe and not math.isnan(findings.difference):
            gap = core.format_percent(findings.difference, is_signed=True)
            yield f"Against constant leverage it made {gap} of log growth a year {findings.place}."
        if not findings.is_unsafe and not findings.is_known_safe:
            yield "Whether it survives could not be tested."

        if len(self.names) > 1:
            yield (
                f"This holds for these {len(self.names)} markets only, each in an account of its "
                "own."
            )

    @property
    def next_step(self) -> str:
        """What to do after this outcome, with a command where there is one."""
        by_market = self.growth.drop(index=POOLED)
        return write_next_step(self.outcome, by_market, self.limits)

    @property
    def notices(self) -> tuple[str, ...]:
        failed = [f"{name} failed: {why}" for name, why in self.faults.items()]
        cautions = [f"{core.capitalize(caution)}." for caution in self.settings["cautions"]]
        misfits = [f"{misfit}." for misfit in self.settings["misfits"]]
        separation = self.settings["separation"]
        of_book = [separation] if separation else []
        return (*failed, *of_book, *cautions, *misfits)

    @property
    def measures(self) -> dict[str, float]:
        """What a baseline records: the figures of the sentence, pooled and by market."""
        figures = {}
        for name, row in self.growth.iterrows():
            for column in ("difference", "low", "high"):
                figures[f"judged_{column} {name}"] = float(row[column])

        for name, row in self.survival.iterrows():
            for source in ("paths", "history"):
                figures[f"judged_loss_{row['horizon']}_{source} {name}"] = float(row[source])

        for name, p_growth in self.timing["p_growth"].items():
            figures[f"judged_p_growth {name}"] = float(p_growth)
        for name, scale in self.limits["largest_scale"].items():
            figures[f"judged_scale {name}"] = float(scale)
        return figures

    def to_dict(self) -> dict[str, Any]:
        return {
            "outcome": self.outcome,
            "met": list(self.met),
            "next": self.next_step,
            **super().to_dict(),
        }

    def list_numbers(self) -> list[Headline]:
        findings = self.findings
        low = core.format_percent(findings.low, is_signed=True)
        high = core.format_percent(findings.high, is_signed=True)
        p_growth = self.timing["p_growth"].astype(float)
        fall = self.growth["max_drawdown"].astype(float)

        compared = f"log growth a year; 95 %: {low} to {high}, n {findings.n:,}"
        if math.isnan(findings.difference):
            compared = f"not tested: {findings.why}"
        timed = "not tested"
        if p_growth.notna().any():
            timed = f"lowest of {core.count_nouns(int(p_growth.notna().sum()), 'market')}"

        return [
            Headline(
                "difference",
                "over constant leverage",
                findings.difference,
                "signed percent",
                compared,
            ),
            self.show_danger(),
            self.show_scale(),
            Headline("p_growth", "p-value of its timing", float(p_growth.min()), "decimals", timed),
            Headline("max_drawdown", "worst drawdown", float(fall.max()), "percent"),
        ]

    def show_scale(self) -> Headline:
        """Return the smallest largest scale; where no scale tried was over, what it is over.

        What can be survived need not be worth it: what history did at it stands beside it, and
        first where that is a disaster, or the number alone would read as advice.
        """
        scale = self.limits["largest_scale"].astype(float)
        smallest = float(scale.min())
        number = Headline("largest_scale", "largest scale", smallest)
        subject = "the last fold's set" if self.settings["tune"] else "the policy"
        bound = f"of {subject}, at 1 % in 30 days"
        if scale.isna().all():
            return number._replace(note=bound)

        is_limited = self.limits["is_limited"].astype(bool)
        if is_limited[scale == smallest].all():
            number = number._replace(text=name_scale(smallest, is_limited=True))
            bound = f"of {subject}: no scale that was tried is over 1 % in 30 days"

        limits: Any = self.limits.loc[str(scale.idxmin())]
        there = write_history_at_scale(limits, is_walk=bool(self.settings["tune"]))
        disaster = name_disaster(limits)
        if not disaster:
            return number._replace(note=f"{bound}; {there}")
        return number._replace(
            text=f"{number}: {disaster}",
            note=f"no size to trade: {there}; {bound}",
        )

    def show_danger(self) -> Headline:
        """Return the highest probability of loss in 30 days, or of how many paths none was lost."""
        findings = self.findings
        number = Headline(
            "chance",
            "lost within 30 days",
            findings.chance,
            style="chance",
            note="not tested",
        )
        if math.isnan(findings.chance):
            return number
        if findings.chance > 0.0:
            where = f"{findings.chance_market}, by {findings.chance_source}"
            return number._replace(note=f"highest: {where}")

        # A share of 0 is known as well as the paths are many, and no better.
        month = self.survival[self.survival["horizon"] == MONTH]
        most = core.format_chance(float(month["high"].max()))
        count = int(month["n"].min())
        return number._replace(
            text=f"0 of {count:,}",
            note=f"paths on each market, none in history: at most {most} by the model",
        )

    def list_parts(self) -> list[Part]:
        parts = [self.show_growth(), self.show_timing(), self.show_survival()]
        if len(self.scores):
            parts.append(show_scores(self.scores, self.intervals))
        return [*parts, self.show_costs(), self.show_promises(), self.show_search()]

    def show_growth(self) -> Part:
        """Return the section on growth over constant leverage."""
        tested = {
            "difference": Head("difference", "log growth a year", "signed percent"),
            "low": Head("95 % interval", "", "signed percent", "high"),
            "n": Head("n", "days", "count"),
        }
        beside = {
            "growth": Head("policy", "log growth a year", "growth"),
            "constant_growth": Head("constant", "log growth a year", "growth"),
            "held_growth": Head("buy and hold", "log growth a year", "growth"),
            "max_drawdown": Head("policy", "worst drawdown", "percent"),
            "constant_drawdown": Head("constant", "worst drawdown", "percent"),
            "held_drawdown": Head("buy and hold", "worst drawdown", "percent"),
            "constant_leverage": Head("constant", "mean leverage", "turns"),
        }

        by_market = self.growth.drop(index=POOLED)
        blocks: list[Shown] = [
            show_by_market(self.leave_pooled(self.growth), tested, "Growth over constant leverage"),
            show_by_market(by_market, beside, "Beside it"),
            "Buy and hold is of prices only: without costs, funding and dividends.",
            self.draw_differences(),
            *list_untested(self.growth),
        ]
        return Part(
            key="growth",
            title="Better than constant?",
            lead="Daily log growth less that of constant leverage at equal risk, whose excess "
            "returns are scaled to the same volatility.",
            blocks=tuple(blocks),
            shows="both",
        )

    def leave_pooled(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return a table without its pooled row where that is of one market, and says it again."""
        if len(self.names) > 1:
            return table
        return table.drop(index=POOLED)

    def draw_differences(self) -> ShownChart:
        """Return the chart of the differences, added up over time; each market has its color."""
        names = [str(name) for name in self.differences if name != POOLED]
        if len(names) > 1:
            # The first line has the color of what is meant.
            names = [POOLED, *names]

        summed = None
        if names:
            summed = self.differences[names].cumsum()
        return ShownChart(
            key="differences",
            title="Log growth over constant leverage, added up",
            caption="Flat: no difference. What is earned in a few days is no record.",
            table=summed,
            y="log growth",
            has_legend=True,
        )

    def show_timing(self) -> Part:
        """Return the section on the timing."""
        heads = {
            "fills": Head("fills", "", "count"),
            "mean_leverage": Head("mean leverage", "", "turns"),
            "p_growth": Head("p of growth", "by shifts in time", "p-value"),
            "shifts": Head("n", "shifts", "count"),
        }
        table = show_by_market(self.timing, heads)
        return Part(
            key="timing",
            title="Was anything timed?",
            lead="p: the share of shifts of the same leverage in time that grow as much.",
            blocks=(table, *list_untested(self.timing)),
            shows="both",
        )

    def show_survival(self) -> Part:
        """Return the section on survival, scale and crashes."""
        heads = {
            "horizon": Head("within"),
            "probability": Head("lost", "any cause", "chance"),
            "paths": Head("paths", "", "chance"),
            "low": Head("95 % interval", "of paths", "chance", "high"),
            "n": Head("n", "paths", "count"),
            "history": Head("history", "share of starts", "chance"),
            "history_high": Head("at most", "by starts apart, 95 %", "chance"),
            "starts_apart": Head("n apart", "starts", "count"),
        }
        limits = {
            "first_leverage": Head("a new account", "decides today", "turns"),
            "largest_scale": Head("largest scale", "at 1 % in 30 days"),
            "growth_at_scale": Head("growth there", "log, a year", "growth"),
            "drawdown_at_scale": Head("worst drawdown", "there, on history", "percent"),
            "leverage_today": Head("the run", "leverage today", "turns"),
            "survived": Head("worst crash survived"),
            "survived_fall": Head("its fall", "of the mark", "percent"),
            "fatal": Head("first not survived"),
            "fatal_fall": Head("its fall", "of the mark", "percent"),
        }

        causes = [*list_untested(self.survival), *list_untested(self.limits)]
        return Part(
            key="survival",
            title="Will it survive?",
            lead="A new account of the policy from the last close on: its first decision is "
            "today's. Only crashes are replayed on the account of the run, with the leverage that "
            "it has today. The largest scale is where accounts are lost, not the size that earns "
            "most.",
            blocks=(
                show_by_market(self.survival, heads, "Probability of losing the account"),
                show_by_market(name_limits(self.limits), limits, "Scale and crashes"),
                *list_scale_notes(self.limits),
                *dict.fromkeys(causes),
            ),
            shows="both",
        )

    def show_costs(self) -> Part:
        """Return the section on costs, decay and capital."""
        heads = {
            "cost": Head("cost"),
            "given_up": Head("given up", "log growth a year", "percent"),
            "growth": Head("growth as run", "compound, per year", "percent"),
            "step": Head("at", "times", "number"),
            "growth_at_step": Head("growth then", "compound, per year", "percent"),
            "n": Head("n", "days", "count"),
        }
        capital = {"half_growth": Head("growth halves at", "capital", "round money")}

        notes = list_notes(self.limits["capacity"])
        halves = self.limits[["half_growth"]].dropna()
        return Part(
            key="costs",
            title="What eats it?",
            lead="Decay is the variance drag beyond that at leverage 1; its step is of the "
            "volatility. What is negative was added to growth.",
            blocks=(
                show_by_market(self.costs, heads),
                *list_reversed(self.costs),
                show_by_market(halves, capital, "Capital", empty=""),
                *notes,
            ),
            shows="both",
        )

    def show_promises(self) -> Part:
        """Return the section on the promises of the policy."""
        heads = {
            "promise": Head("promise"),
            "rule": Head("rule"),
            "bound": Head("bound"),
            "value": Head("came"),
            "low": Head("95 % interval", "", "number", "high"),
            "n": Head("n", "", "count"),
            "verdict": Head("verdict"),
        }

        counts: Any = self.promises["verdict"].value_counts()
        lead = write_counts(counts)
        if lead:
            lead = f"{core.capitalize(lead)}."
        return Part(
            key="promises",
            title="Does it keep its promises?",
            lead=lead,
            blocks=(show_by_market(self.promises, heads, empty="It promises nothing."),),
            shows="both",
        )

    def show_search(self) -> Part:
        """Return the section on trials and looks at holdouts."""
        if not self.settings["is_counted"]:
            text = "Trials and looks at a holdout are not counted: there is no store of results."
            return Part(
                key="search",
                title="Is it the search?",
                lead="",
                blocks=(text,),
                shows="both",
            )

        heads = {
            "trials": Head("trials", "on these bars", "count"),
            "looks": Head("looks", "at a holdout", "count"),
            "p_adjusted": Head("p", "of the difference", "p-value"),
            "deflated_sharpe": Head("deflated Sharpe", "of the difference", "probability"),
            "n": Head("n", "days", "count"),
        }
        table = show_by_market(self.leave_pooled(self.search), heads)
        return Part(
            key="search",
            title="Is it the search?",
            lead="What the store of results has counted; trials count as independent.",
            blocks=(table,),
            shows="both",
        )

    def list_assumptions(self) -> tuple[str, ...]:
        facts = self.settings
        resampling = (
            f"Intervals by the stationary bootstrap of daily differences: {facts['draws']:,} "
            f"histories, seed {facts['seed']}. Of several markets, differences are averaged over "
            "those that there are on a day, so that common moves are resampled together. "
            f"{core.capitalize(COVERAGE)}."
        )
        paths = (
            f"Paths of the model {MODEL}: {facts['n_paths']:,} of 30 days, one in {YEAR_SHARE} of "
            "them of a year."
        )
        return (resampling, paths)

    def list_policies(self) -> Iterable[type]:
        for result in (self.accounts or {}).values():
            yield from map(type, result.policies.values())


def show_by_market(
    table: pd.DataFrame,
    heads: Mapping[str, Head],
    caption: str = "",
    *,
    empty: str = "There are none.",
) -> ShownTable:
    """Return the columns of a table that have a head, a row by market."""
    return ShownTable(
        table,
        caption,
        labels=Head("market"),
        heads=heads,
        columns=tuple(heads),
        empty=empty,
    )


def name_none(limits: pd.DataFrame) -> pd.DataFrame:
    """Return limits that say "none" where crashes were replayed and none is of a kind."""
    is_replayed = limits["n_crashes"] > 0
    shown = limits.copy()
    for kind in ("survived", "fatal"):
        shown[kind] = shown[kind].mask(is_replayed & (shown[kind] == ""), "none")
    return shown


def name_limits(limits: pd.DataFrame) -> pd.DataFrame:
    """Return limits as texts: "over 19" where the search ended there, and "none" for no crash."""
    shown = name_none(limits)
    scales = []
    for scale, is_limited in zip(limits["largest_scale"], limits["is_limited"], strict=True):
        scales.append(name_scale(float(scale), is_limited=bool(is_limited)))
    shown["largest_scale"] = scales
    return shown


def list_scale_notes(limits: pd.DataFrame) -> list[str]:
    """Return where the search of scales ended without an answer, and what holds policies back."""
    notes = []
    ended = list_names(limits, limits["is_limited"].astype(bool))
    if ended:
        notes.append(
            f"{', '.join(ended)}: no scale up to the end of the search is lost with over 1 % in "
            "30 days."
        )
    row: Any
    for name, row in limits.iterrows():
        if row["cap"]:
            notes.append(f"{name}: at its largest scale, {write_cap(row)}.")
    return notes


def list_untested(table: pd.DataFrame) -> list[str]:
    """Return why rows of a table were not tested, a sentence for each market."""
    sentences = {}
    for name, why in table["why"].items():
        if why and name != POOLED:
            sentences[f"{name}: {why.rstrip('.')}."] = True
    return [*sentences]


def list_notes(texts: pd.Series[str]) -> list[str]:
    """Return what is said of each market, by name; once if the same is said of all."""
    said = texts[texts != ""]
    if len(said) > 1 and said.nunique() == 1:
        return [core.capitalize(said.iloc[0])]
    return [f"{name}: {text}" for name, text in said.items()]


def list_reversed(costs: pd.DataFrame) -> list[str]:
    """Return why growth moved the other way with more of a cost, where it did."""
    cases = []
    notes = []
    row: Any
    for name, row in costs.iterrows():
        if not is_reversed(row["cost"], row):
            continue

        if row["cost"] == DECAY:
            notes.append(
                f"{name}: growth is higher at {row['step']:g} times the volatility, where the "
                "policy holds other sizes: its row of decay shows them too, and not the drag alone."
            )
        else:
            cases.append(f"{name} {row['cost']}")

    if cases:
        notes.insert(
            0,
            f"Growth moved against more of the cost: {', '.join(cases)}. The account held other "
            "positions on the way, as sizes follow the equity, bands and stops the path, and these "
            "earned more than the cost took.",
        )
    return notes


def list_names(table: pd.DataFrame, is_meant: pd.Series[bool]) -> tuple[str, ...]:
    """Return the markets of a table for which a claim holds."""
    return tuple(map(str, table.index[is_meant]))


def write_years_needed(findings: rule.Findings) -> str:
    """Return after how many years, those of the test included, such a difference would show."""
    if math.isnan(findings.years_needed):
        return "A difference as small as this would not show in 1,000 years."

    years = f"{findings.years_needed:,.0f}"
    unit = "year" if years == "1" else "years"
    return (
        f"A difference as large as this, and as noisy, would show after about "
        f"{years} {unit} in all, those seen included, {findings.whole_place}."
    )
