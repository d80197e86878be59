"""judge(): one answer on a policy, from what its commands compute one by one."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pandas as pd

from backtest import core, results
from backtest.core.units import DAY
from backtest.engine import AnyPolicy, Conditions, plain
from backtest.judgement import accounts as a
from backtest.judgement import costs as c
from backtest.judgement import evidence as e
from backtest.judgement import growth as g
from backtest.judgement import survival as s
from backtest.judgement.judgement import TABLES, Judgement
from backtest.market import as_markets
from backtest.results.manifest import describe_policy
from backtest.risk.liquidations import LiquidationRisk
from backtest.risk.paths import Paths
from backtest.risk.scored_risk import score_risk
from backtest.risk.scores import ALL, write_interval, write_score
from backtest.search.equal_risk import BUY_AND_HOLD
from backtest.search.shifts import FEW_FILLS, expect_seconds
from backtest.sweep import count_cores

Row: TypeAlias = dict[str, Any]
Tables: TypeAlias = dict[str, list[Row]]
ABSENT: Row = {
    **dict.fromkeys(("why", "survived", "fatal", "capacity", "rule", "verdict"), ""),
    **dict.fromkeys(("is_limited", "is_one_value", "is_counted"), False),
}
"""What stands in a row that lacks a text or a claim."""
TRAIN_DAYS, TEST_DAYS = 365, 30
"""The spans of the walk of a policy that is re-tuned."""
PARTS = 4.0
"""How often the bars of a train span are simulated for each set, with neighbors and parts."""
QUESTIONS = {
    "growth": "Better than constant?",
    "timing": "Was anything timed?",
    "survival": "Will it survive?",
    "costs": "What eats it?",
    "promises": "Does it keep its promises?",
    "search": "Is it the search?",
}


class JudgedRow(NamedTuple):
    """A row of a judgement as soon as it is known: its question, its market, and what came out."""

    question: str
    market: str
    text: str

    def __str__(self) -> str:
        return f"{QUESTIONS[self.question]} {self.market}: {self.text}"


RowReport: TypeAlias = Callable[[JudgedRow], object] | None


@core.record_making
@core.checked_only("compile")
def judge(
    conditions: Conditions,
    policy: AnyPolicy,
    *,
    markets: a.AnyMarkets = None,
    tune: int | None = None,
    paths: int = 2_000,
    draws: int = 1_999,
    seed: int = 0,
    store: str | Path | None = None,
    score: bool = False,
    threads: int | None = None,
    compile: bool = True,  # noqa: A002 - the word of bt.run
    progress: RowReport = None,
) -> Judgement:
    """Answer :meth:`backtest.Backtest.judge`, which documents it."""
    if tune is not None:
        core.Whole(4).check("tune", tune)
    core.Range(s.LEAST_PATHS, 10**7).check("paths", paths, whole=True)
    core.Range(99, 10**6).check("draws", draws, whole=True)
    core.Range(0, 2**62).check("seed", seed, whole=True)
    tests = a.plan_tests(conditions, policy, markets)
    court = Court(
        paths=paths,
        draws=draws,
        seed=seed,
        store=None if store is None else Path(store),
        score=score,
        threads=count_cores() if threads is None else core.Whole(1).check("threads", threads),
        compile=compile,
        progress=progress,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # notices and rows say what matters
        court.run(tests, tune)
        court.answer()
    return court.write(tests, policy, tune)


class Court:
    """What a judgement is made with, and what is known so far: rows by table, and faults."""

    def __init__(
        self,
        *,
        paths: int,
        draws: int,
        seed: int,
        store: Path | None,
        score: bool,
        threads: int,
        compile: bool,  # noqa: A002 - the word of bt.run
        progress: RowReport,
    ) -> None:
        self.paths = paths
        self.draws = draws
        self.seed = seed
        self.store = store
        self.score = score
        self.threads = threads
        self.compile = compile
        self.progress = progress
        self.accounts: dict[str, a.JudgedAccount] = {}
        self.faults: dict[str, str] = {}
        self.rows: Tables = {name: [] for name in TABLES}
        self.differences = pd.DataFrame()

    def tell(self, question: str, market: str, text: str) -> None:
        if self.progress is not None:
            self.progress(JudgedRow(question, market, text))

    def run(self, tests: Iterable[a.JudgedTest], tune: int | None) -> None:
        """Run the account of each market; one that fails is kept with its cause."""
        errors = []
        for each in tests:
            try:
                how = {"threads": self.threads, "compile": self.compile, "store": self.store}
                self.accounts[each.name] = a.run_accounts(each, tune, self.seed, **how)
            except core.BacktestError as error:
                errors.append(error)
                self.faults[each.name] = str(error)
                self.rows["growth"].append({"market": each.name, "why": f"failed: {error}"})
                self.tell("growth", each.name, f"failed: {error}")
        if not self.accounts:
            raise errors[0]

    def answer(self) -> None:
        """Answer the six questions in their order."""
        found = self.answer_growth()
        self.answer_each("timing", self.answer_timing)
        self.answer_each("survival", self.answer_survival)
        self.answer_each("costs", self.answer_costs)
        self.answer_each("promises", self.answer_promises)
        self.answer_search(found)

    def answer_each(
        self, question: str, answer: Callable[[a.JudgedAccount], Iterator[str]]
    ) -> None:
        for name, account in self.accounts.items():
            for text in answer(account):
                self.tell(question, name, text)

    def answer_growth(self) -> dict[str, g.DailyGrowth]:
        found: dict[str, g.DailyGrowth] = {}
        for name, account in self.accounts.items():
            row, daily = g.judge_growth(account, self.draws, self.seed)
            if daily is not None:
                found[name] = daily
            self.rows["growth"].append({"market": name, **row})
            self.tell("growth", name, write_growth(row))

        row, self.differences = g.pool_growth(found, self.draws, self.seed)
        self.rows["growth"].append({"market": g.POOLED, **row})
        self.tell("growth", g.POOLED, write_growth(row))
        return found

    def answer_timing(self, account: a.JudgedAccount) -> Iterator[str]:
        row = e.judge_timing(account, threads=self.threads)
        self.rows["timing"].append({"market": account.name, **row})
        if row["fills"] < FEW_FILLS and row["why"] != e.OF_OPTIONS:
            yield row["why"]
            return
        if row["why"]:
            yield f"not tested: {row['why']} ({core.count_nouns(row['fills'], 'fill')})"
            return
        yield (
            f"{core.count_nouns(row['fills'], 'fill')}, mean leverage {row['mean_leverage']:.2f}x, "
            f"p of growth {row['p_growth']:.3f} (n {row['shifts']:,} shifts)"
        )

    def answer_survival(self, account: a.JudgedAccount) -> Iterator[str]:
        limits: Row = {"market": account.name, "leverage_today": account.leverage_today, "why": ""}
        how = {"threads": self.threads, "compile": self.compile}
        try:
            # One batch of paths for the risk of a month and the largest scale.
            drawn = s.draw_paths(account, s.MONTH, self.paths, self.seed)
            drawn.keep_all()
            month = yield from self.answer_risk(account, drawn)
            scale, scores = s.judge_scale(account, month, score=self.score, **how)
            limits |= scale
            yield s.write_scale(limits, self.paths)
            yield from self.keep_scores(account, scores)
        except core.BacktestError as error:
            limits["why"] = str(error)
            yield from self.leave_unknown(account, str(error))
        try:
            limits |= s.judge_crashes(account)
            yield write_crashes(limits)
        except core.BacktestError as error:
            limits["why"] = limits["why"] or str(error)
            yield f"crashes not replayed: {error}"
        self.rows["limits"].append(limits)

    def answer_risk(
        self, account: a.JudgedAccount, drawn: Paths
    ) -> Generator[str, None, LiquidationRisk]:
        """Yield the rows of all horizons, and return the risk of a month."""
        risks = s.measure_risks(
            account, drawn, self.seed, threads=self.threads, compile=self.compile
        )
        month = next(risks)
        told: dict[str, float] = {}
        for risk in itertools.chain([month], risks):
            for horizon, row in s.list_horizons(risk):
                told[horizon] = row["probability"]
                self.rows["survival"].append({"market": account.name, "horizon": horizon, **row})
                yield f"lost within {horizon}: {s.write_chance(row)}"
        if self.score:
            scored = score_risk(month, threads=self.threads, more=told)
            yield from self.keep_scores(account, scored.scores, scored.intervals)
        return month

    def keep_scores(
        self,
        account: a.JudgedAccount,
        scores: pd.DataFrame | None,
        intervals: pd.DataFrame | None = None,
    ) -> Iterator[str]:
        """Keep the scores of forecasts of an account, and yield each as a clause."""
        market = {"market": account.name}
        tables = {"scores": scores, "intervals": intervals}
        for name, table in tables.items():
            if table is None:
                continue
            for row in table.reset_index().to_dict("records"):
                self.rows[name].append(market | {str(key): x for key, x in row.items()})
                if name == "intervals":
                    yield write_interval(row["forecast"], row)
                elif row["days"] == ALL:
                    yield write_score(row["forecast"], row)

    def leave_unknown(self, account: a.JudgedAccount, why: str) -> Iterator[str]:
        """Keep why the horizons that have no row yet were not tested."""
        known = {row["horizon"] for row in self.rows["survival"]
                 if row["market"] == account.name}  # fmt: skip
        for horizon in (each for horizons in s.HORIZONS.values() for each in horizons):
            if horizon not in known:
                row = {"market": account.name, "horizon": horizon, "why": why}
                self.rows["survival"].append(row)
        yield f"not tested: {why}"

    def answer_costs(self, account: a.JudgedAccount) -> Iterator[str]:
        try:
            for name, row in c.judge_costs(account, compile=self.compile):
                self.rows["costs"].append({"market": account.name, "cost": name, **row})
                yield write_cost(name, row)
            row = c.judge_capacity(account, compile=self.compile)
        except core.BacktestError as error:
            row = {"half_growth": float("nan"), "capacity": f"not tested: {error}"}
        for limits in self.rows["limits"]:
            if limits["market"] == account.name:
                limits.update(row)
        yield f"capital: {row['capacity']}"

    def answer_promises(self, account: a.JudgedAccount) -> Iterator[str]:
        rows = dict(e.list_promises(account))
        for name, row in rows.items():
            self.rows["promises"].append({"market": account.name, "promise": name, **row})
        yield e.count_verdicts(rows)

    def answer_search(self, found: Mapping[str, g.DailyGrowth]) -> None:
        notes = e.SearchNotes(self.store)
        p_values = {row["market"]: row.get("p_value", float("nan")) for row in self.rows["growth"]}
        for name, account in self.accounts.items():
            difference = e.read_difference(found.get(name))
            row = e.judge_search(notes.read(account), difference, p_values[name])
            self.rows["search"].append({"market": name, **row})
            self.tell("search", name, write_search(row))

        pooled = self.differences[g.POOLED].to_numpy() if found else None
        row = e.judge_search(notes.pooled, pooled, p_values[g.POOLED])
        self.rows["search"].append({"market": g.POOLED, **row})
        self.tell("search", g.POOLED, write_search(row))

    def write(self, tests: list[a.JudgedTest], policy: AnyPolicy, tune: int | None) -> Judgement:
        tables = {
            name: pd.DataFrame(self.rows[name], columns=list(columns)).set_index("market")
            for name, columns in TABLES.items()
        }
        for table in tables.values():
            for column, absent in ABSENT.items():
                if column in table:
                    table[column] = [absent if pd.isna(x) else x for x in table[column]]

        judged = {each.name: each for each in tests}
        used = {name: plain(each.test) for name, each in judged.items()}
        venues: Any = {name: each.venue for name, each in used.items()}
        settings = {
            "policy": write_policy(policy),
            "name": name_policy(policy),
            "policies": {name: describe_policies(x.policy) for name, x in self.accounts.items()},
            "markets": list(judged),
            "venue": results.describe_venue(
                venues if len(venues) > 1 else next(iter(venues.values()))
            ),
            "account": next(iter(used.values())).account.to_dict(),
            "ends": {name: core.format_time(as_markets(x.market).end) for name, x in used.items()},
            "directions": {name: find_direction(x) for name, x in self.accounts.items()},
            "tune": tune,
            "n_paths": self.paths,
            "draws": self.draws,
            "seed": self.seed,
            "is_counted": self.store is not None,
            "is_scored": self.score,
            "faults": self.faults,
            "cautions": [each.caution for each in tests if each.caution],
        }
        return Judgement(
            **tables,
            differences=self.differences,
            settings=settings,
            markets={name: each.market for name, each in used.items()},
            accounts={name: each.result for name, each in self.accounts.items()},
        )


def expect_walk(test: Conditions, tune: int) -> tuple[int, float]:
    """Return the sets that walks of a test try on all markets, and about how long they take."""
    sets = 0
    seconds = 0.0
    for market in as_markets(test.market).values():
        days = (market.end - market.start) / DAY
        folds = max(math.ceil((days - TRAIN_DAYS) / TEST_DAYS), 0)
        bars = TRAIN_DAYS * DAY / market.interval
        own = expect_seconds(round(bars), 1, is_compiled=True, in_lanes=True, has_own_signal=False)
        sets += folds * tune
        seconds += folds * tune * own * PARTS
    return sets, seconds


def find_direction(account: a.JudgedAccount) -> float | None:
    """Return the direction that an account of one market has on paths, if it has one."""
    signal = a.fix_direction(account).signal
    return float(signal) if isinstance(signal, int | float) else None


def describe_policies(policy: Any) -> Any:
    if isinstance(policy, Mapping):
        return {name: describe_policy(each) for name, each in policy.items()}
    return describe_policy(policy)


def write_policy(policy: Any) -> str:
    if isinstance(policy, Mapping):
        return ", ".join(f"{name}: {each!r}" for name, each in policy.items())
    return policy.__name__ if isinstance(policy, type) else repr(policy)


def name_policy(policy: Any) -> str:
    given = [*policy.values()] if isinstance(policy, Mapping) else [policy]
    kinds = [each if isinstance(each, type) else type(each) for each in given]
    return ", ".join(dict.fromkeys(each.__name__ for each in kinds))


def write_growth(row: Row) -> str:
    if "difference" not in row:
        return f"not tested: {row['why']}"
    gap, low, high = (
        core.format_percent(row[name], is_signed=True) for name in ("difference", "low", "high")
    )
    text = f"{gap} of log growth a year (95 %: {low} to {high}, n {row['n']:,})"
    if "max_drawdown" not in row:
        return text
    fall, constant, held = (
        core.format_percent(row[name])
        for name in ("max_drawdown", "constant_drawdown", "held_drawdown")
    )
    return f"{text}; worst drawdown {fall}, constant {constant}, {BUY_AND_HOLD} {held}"


def write_cost(name: str, row: Row) -> str:
    lead = f"{name}: "
    if not math.isnan(row["given_up"]):
        lead = f"{name} took {core.format_percent(row['given_up'])} of log growth a year; "
    times = f"{row['step']:g} times"
    what = f"at {times} the volatility" if name == "decay" else f"at {times} the {name}"
    left = core.format_percent(row["growth_at_step"])
    return (
        f"{lead}growth {left} {what}, {core.format_percent(row['growth'])} as run (n {row['n']:,})"
    )


def write_crashes(limits: Row) -> str:
    survived = limits["survived"]
    text = "no crash replayed is survived"
    if survived:
        text = f"worst crash survived {survived} (-{core.format_percent(limits['survived_fall'])})"
    if not limits["fatal"]:
        return f"{text}, all {limits['n_crashes']} are"
    return f"{text}, not {limits['fatal']} (-{core.format_percent(limits['fatal_fall'])})"


def write_search(row: Row) -> str:
    if not row["is_counted"]:
        return "trials and looks at a holdout are not counted: no store"
    p = "not tested"
    if row["n"]:
        deflated = core.format_probability(row["deflated_sharpe"])
        p = f"p {row['p_adjusted']:.3f} and deflated Sharpe {deflated} of the difference"
    return f"{row['trials']:,} trials, {row['looks']:.0f} looks at a holdout; {p} (n {row['n']:,})"
