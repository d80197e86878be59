"""judge(): one answer on a policy, from what its commands compute one by one."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import pandas as pd

from backtest import core, results
from backtest.core.units import DAY
from backtest.engine import AnyPolicy, Conditions, plain
from backtest.judgement import accounts, costs, evidence, growth, survival
from backtest.judgement.judgement import TABLES, Judgement
from backtest.market import as_markets
from backtest.results.manifest import describe_policy
from backtest.risk.liquidations import LiquidationRisk
from backtest.risk.path_runner import PathsRunner
from backtest.risk.scored_risk import score_risk
from backtest.risk.scores import ALL, write_interval, write_score
from backtest.search.equal_risk import BUY_AND_HOLD
from backtest.search.shifts import FEW_FILLS, expect_seconds
from backtest.sweep import count_cores

Row: TypeAlias = dict[str, Any]
Tables: TypeAlias = dict[str, list[Row]]
ABSENT: Row = {
    "why": "",
    "survived": "",
    "fatal": "",
    "capacity": "",
    "rule": "",
    "verdict": "",
    "cap": "",
    "is_limited": False,
    "is_one_value": False,
    "is_counted": False,
}
"""The texts and claims of a row that lacks them."""
TRAIN_DAYS = 365
TEST_DAYS = 30
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
    markets: accounts.AnyMarkets = None,
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
    core.Range(survival.LEAST_PATHS, 10**7).check("paths", paths, whole=True)
    core.Range(99, 10**6).check("draws", draws, whole=True)
    core.Range(0, 2**62).check("seed", seed, whole=True)
    n_threads = count_cores()
    if threads is not None:
        n_threads = core.Whole(1).check("threads", threads)

    tests = accounts.plan_tests(conditions, policy, markets)
    court = Court(
        paths=paths,
        draws=draws,
        seed=seed,
        store=None if store is None else Path(store),
        score=score,
        threads=n_threads,
        compile=compile,
        progress=progress,
    )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # notices and rows say what matters
        court.run(tests, tune)
        court.answer()
    separation = accounts.describe_separation(conditions, len(tests))
    return court.write(tests, policy, tune, separation)


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
        self.accounts: dict[str, accounts.JudgedAccount] = {}
        self.faults: dict[str, str] = {}
        self.rows: Tables = {name: [] for name in TABLES}
        self.differences = pd.DataFrame()

    def report(self, question: str, market: str, text: str) -> None:
        """Hand a row to who follows the progress."""
        if self.progress is not None:
            self.progress(JudgedRow(question, market, text))

    def report_pooled(self, question: str, text: str) -> None:
        """Report the row of all markets; of one market alone it would say the same again."""
        if len(self.accounts) + len(self.faults) > 1:
            self.report(question, growth.POOLED, text)

    def run(self, tests: Iterable[accounts.JudgedTest], tune: int | None) -> None:
        """Run the account of each market; one that fails is kept with its cause."""
        errors = []
        for judged in tests:
            try:
                account = accounts.run_accounts(
                    judged,
                    tune,
                    self.seed,
                    threads=self.threads,
                    compile=self.compile,
                    store=self.store,
                )
            except core.BacktestError as error:
                errors.append(error)
                self.keep_fault(judged.name, error)
            else:
                self.accounts[judged.name] = account

        if not self.accounts:
            raise errors[0]

    def keep_fault(self, market: str, error: core.BacktestError) -> None:
        """Write why a market failed into the faults, and as its row of growth."""
        self.faults[market] = str(error)
        why = f"failed: {error}"
        self.rows["growth"].append({"market": market, "why": why})
        self.report("growth", market, why)

    def answer(self) -> None:
        """Answer the six questions in their order."""
        daily_growth = self.answer_growth()
        self.answer_each("timing", self.answer_timing)
        self.answer_each("survival", self.answer_survival)
        self.answer_each("costs", self.answer_costs)
        self.answer_each("promises", self.answer_promises)
        self.answer_search(daily_growth)

    def answer_each(
        self,
        question: str,
        answer: Callable[[accounts.JudgedAccount], Iterator[str]],
    ) -> None:
        """Answer a question for each account, and report what it yields as rows."""
        for name, account in self.accounts.items():
            for text in answer(account):
                self.report(question, name, text)

    def answer_growth(self) -> dict[str, growth.DailyGrowth]:
        """Write the rows of growth, and return the daily growth of the markets that have it."""
        daily_growth: dict[str, growth.DailyGrowth] = {}
        for name, account in self.accounts.items():
            row, daily = growth.judge_growth(account, self.draws, self.seed)
            if daily is not None:
                daily_growth[name] = daily
            self.rows["growth"].append({"market": name, **row})
            self.report("growth", name, write_growth(row))

        pooled, self.differences = growth.pool_growth(daily_growth, self.draws, self.seed)
        self.rows["growth"].append({"market": growth.POOLED, **pooled})
        self.report_pooled("growth", write_growth(pooled))
        return daily_growth

    def answer_timing(self, account: accounts.JudgedAccount) -> Iterator[str]:
        """Yield whether anything was timed; it becomes the row of the market."""
        row = evidence.judge_timing(account, threads=self.threads)
        self.rows["timing"].append({"market": account.name, **row})
        yield write_timing(row)

    def answer_survival(self, account: accounts.JudgedAccount) -> Iterator[str]:
        """Yield the risks, the largest scale and the crashes of an account, which become rows.

        Where paths fail, what is not known yet says why, and crashes are replayed all the same.
        """
        limits: Row = {
            "market": account.name,
            "leverage_today": account.leverage_today,
            "first_leverage": math.nan,
            "why": "",
        }
        try:
            # One batch of paths for the risk of a month and the largest scale.
            drawn = survival.draw_paths(account, survival.MONTH, self.paths, self.seed)
            drawn.keep_all()
            opened = survival.open_account(account, drawn, compile=self.compile)
            limits["first_leverage"] = survival.read_first_leverage(opened)
            month = yield from self.answer_risk(account, opened)
            yield survival.write_first_leverage(limits)

            scale, scores = survival.judge_scale(
                account,
                month,
                score=self.score,
                threads=self.threads,
                compile=self.compile,
            )
            limits |= scale
            yield survival.write_scale(limits, self.paths, is_walk=bool(account.segments))
            yield from self.keep_scores(account, scores)
        except core.BacktestError as error:
            limits["why"] = str(error)
            self.leave_unknown(account, str(error))
            yield f"not tested: {error}"

        # Crashes are replayed on history, and need no paths.
        try:
            limits |= survival.judge_crashes(account)
            yield write_crashes(limits)
        except core.BacktestError as error:
            limits["why"] = limits["why"] or str(error)
            yield f"crashes not replayed: {error}"
        self.rows["limits"].append(limits)

    def answer_risk(
        self,
        account: accounts.JudgedAccount,
        opened: PathsRunner,
    ) -> Generator[str, None, LiquidationRisk]:
        """Yield the rows of all horizons, and return the risk of a month."""
        risks = survival.measure_risks(
            account,
            opened,
            self.seed,
            threads=self.threads,
            compile=self.compile,
        )
        month = next(risks)
        probabilities: dict[str, float] = {}
        for risk in itertools.chain([month], risks):
            for horizon, row in survival.list_horizons(risk):
                probabilities[horizon] = row["probability"]
                self.rows["survival"].append({"market": account.name, "horizon": horizon, **row})
                yield f"lost within {horizon}: {survival.write_chance(row)}"

        if self.score:
            scored = score_risk(month, threads=self.threads, more=probabilities)
            yield from self.keep_scores(account, scored.scores, scored.intervals)
        return month

    def keep_scores(
        self,
        account: accounts.JudgedAccount,
        scores: pd.DataFrame | None,
        intervals: pd.DataFrame | None = None,
    ) -> Iterator[str]:
        """Keep the scores of forecasts of an account, and yield each as a clause."""
        for row in list_records(scores):
            self.rows["scores"].append({"market": account.name, **row})
            if row["days"] == ALL:
                yield write_score(row["forecast"], row)

        for row in list_records(intervals):
            self.rows["intervals"].append({"market": account.name, **row})
            yield write_interval(row["forecast"], row)

    def leave_unknown(self, account: accounts.JudgedAccount, why: str) -> None:
        """Write why the horizons that have no row yet were not tested."""
        known = set()
        for row in self.rows["survival"]:
            if row["market"] == account.name:
                known.add(row["horizon"])

        for horizon in itertools.chain.from_iterable(survival.HORIZONS.values()):
            if horizon not in known:
                row = {"market": account.name, "horizon": horizon, "why": why}
                self.rows["survival"].append(row)

    def answer_costs(self, account: accounts.JudgedAccount) -> Iterator[str]:
        """Yield what each cost eats, and the capital that halves growth; both become rows.

        Where one of them fails, the capital is not tested either.
        """
        try:
            for name, row in costs.judge_costs(account, compile=self.compile):
                self.rows["costs"].append({"market": account.name, "cost": name, **row})
                yield write_cost(name, row)
            capital = costs.judge_capacity(account, compile=self.compile)
        except core.BacktestError as error:
            capital = {"half_growth": math.nan, "capacity": f"not tested: {error}"}

        # The capital that the policy bears is one of its limits.
        for limits in self.rows["limits"]:
            if limits["market"] == account.name:
                limits.update(capital)
        yield f"capital: {capital['capacity']}"

    def answer_promises(self, account: accounts.JudgedAccount) -> Iterator[str]:
        """Yield how many promises were kept; each promise becomes a row."""
        rows = dict(evidence.list_promises(account))
        for name, row in rows.items():
            self.rows["promises"].append({"market": account.name, "promise": name, **row})
        yield evidence.count_verdicts(rows)

    def answer_search(self, daily_growth: Mapping[str, growth.DailyGrowth]) -> None:
        """Write the rows of the search, by market and pooled.

        ``daily_growth`` has only the markets whose growth could be compared.
        """
        p_values = {}
        for row in self.rows["growth"]:
            p_values[row["market"]] = row.get("p_value", math.nan)

        notes = evidence.SearchNotes(self.store)
        for name, account in self.accounts.items():
            self.keep_search(
                name,
                counted=notes.read(account),
                difference=evidence.read_difference(daily_growth.get(name)),
                p_value=p_values[name],
            )

        # The notes of all markets were read above, so they can be pooled.
        pooled_difference = None
        if daily_growth:
            pooled_difference = self.differences[growth.POOLED].to_numpy()
        self.keep_search(
            growth.POOLED,
            counted=notes.pooled,
            difference=pooled_difference,
            p_value=p_values[growth.POOLED],
        )

    def keep_search(
        self,
        market: str,
        counted: tuple[int, int] | None,
        difference: core.FloatArray | None,
        p_value: float,
    ) -> None:
        """Write the row of a market into the table of the search, and report it."""
        row = evidence.judge_search(counted, difference, p_value)
        self.rows["search"].append({"market": market, **row})
        if market == growth.POOLED:
            self.report_pooled("search", write_search(row))
        else:
            self.report("search", market, write_search(row))

    def write(
        self,
        tests: list[accounts.JudgedTest],
        policy: AnyPolicy,
        tune: int | None,
        separation: str,
    ) -> Judgement:
        """Return the judgement of the rows that were written.

        ``separation`` says which account of several markets is not judged.
        """
        tables = {}
        for name, columns in TABLES.items():
            tables[name] = make_table(self.rows[name], columns)

        used = {judged.name: plain(judged.test) for judged in tests}
        account_results = {name: account.result for name, account in self.accounts.items()}
        return Judgement(
            **tables,
            differences=self.differences,
            settings={
                **describe_tests(used),
                **self.describe_accounts(),
                "policy": write_policy(policy),
                "name": name_policy(policy),
                "tune": tune,
                "n_paths": self.paths,
                "draws": self.draws,
                "seed": self.seed,
                "is_counted": self.store is not None,
                "is_scored": self.score,
                "faults": self.faults,
                "separation": separation,
                "cautions": [judged.caution for judged in tests if judged.caution],
            },
            markets={name: test.market for name, test in used.items()},
            accounts=account_results,
        )

    def describe_accounts(self) -> Row:
        """Return what each account is made of, by market, and which venues are of other dates."""
        policies = {}
        directions = {}
        starts = {}
        misfits = []
        for name, account in self.accounts.items():
            policies[name] = describe_policies(account.policy)
            directions[name] = find_direction(account)
            starts[name] = core.format_time(account.result.span.start)
            misfits += account.misfits
        return {
            "policies": policies,
            "directions": directions,
            "starts": starts,
            "misfits": misfits,
        }


def list_records(table: pd.DataFrame | None) -> list[Row]:
    """Return the rows of a table with their labels; none without a table."""
    if table is None:
        return []
    records: list[Any] = table.reset_index().to_dict("records")
    return records


def make_table(rows: list[Row], columns: Sequence[str]) -> pd.DataFrame:
    """Return rows as a table by market, with what stands where a row lacks a text or a claim."""
    table = pd.DataFrame(rows, columns=list(columns)).set_index("market")
    for column, absent in ABSENT.items():
        if column not in table:
            continue
        values = table[column].astype(object)  # or a column of NaN would refuse a text
        table[column] = values.mask(values.isna(), absent).infer_objects()
    return table


def describe_tests(used: Mapping[str, Conditions]) -> Row:
    """Return the markets, their ends, the account, and the venue, or venues by market."""
    venues = {}
    ends = {}
    instruments = {}
    for name, test in used.items():
        markets = as_markets(test.market)
        symbols = [market.instrument for market in markets.values()]
        venues[name] = test.venue
        ends[name] = core.format_time(markets.end)
        instruments[name] = ", ".join(symbols) or name

    # The account of the first market stands for those of all.
    first = next(iter(used.values()))
    account = first.account
    venue: Any = venues
    if len(venues) == 1:
        venue = first.venue
    return {
        "markets": list(used),
        "venue": results.describe_venue(venue),
        "account": account.to_dict(),
        "ends": ends,
        "instruments": instruments,
    }


def expect_walk(test: Conditions, tune: int) -> tuple[int, float]:
    """Return the sets that walks of a test try on all markets, and about how long they take."""
    sets = 0
    seconds = 0.0
    for market in as_markets(test.market).values():
        days = (market.end - market.start) / DAY
        n_folds = max(math.ceil((days - TRAIN_DAYS) / TEST_DAYS), 0)
        n_bars = round(TRAIN_DAYS * DAY / market.interval)
        seconds_a_set = expect_seconds(
            n_bars,
            1,
            is_compiled=True,
            in_lanes=True,
            has_own_signal=False,
        )

        sets_of_market = n_folds * tune
        sets += sets_of_market
        seconds += sets_of_market * seconds_a_set * PARTS
    return sets, seconds


def find_direction(account: accounts.JudgedAccount) -> float | None:
    """Return the direction that an account of one market has on paths, if it has one."""
    signal = accounts.fix_direction(account).signal
    if isinstance(signal, int | float):
        return float(signal)
    return None


def describe_policies(policy: Any) -> Any:
    """Return the facts of a policy as the manifest has them, or of policies by market."""
    if isinstance(policy, Mapping):
        return {name: describe_policy(of_market) for name, of_market in policy.items()}
    return describe_policy(policy)


def write_policy(policy: Any) -> str:
    if isinstance(policy, Mapping):
        return ", ".join(f"{name}: {of_market!r}" for name, of_market in policy.items())
    if isinstance(policy, type):
        return policy.__name__
    return repr(policy)


def name_policy(policy: Any) -> str:
    """Return the name of the class of a policy, or of each, once."""
    policies = [policy]
    if isinstance(policy, Mapping):
        policies = [*policy.values()]

    names = {}
    for chosen in policies:
        kind = chosen if isinstance(chosen, type) else type(chosen)
        names[kind.__name__] = True
    return ", ".join(names)


# What a row says as soon as it is known.


def write_growth(row: Row) -> str:
    """Return growth over constant leverage with its interval, and drawdowns of one market."""
    if "difference" not in row:
        return f"not tested: {row['why']}"

    gap = core.format_percent(row["difference"], is_signed=True)
    low = core.format_percent(row["low"], is_signed=True)
    high = core.format_percent(row["high"], is_signed=True)
    text = f"{gap} of log growth a year (95 %: {low} to {high}, n {row['n']:,})"
    if "max_drawdown" not in row:  # pooled, there is no account
        return text

    fall = core.format_percent(row["max_drawdown"])
    constant = core.format_percent(row["constant_drawdown"])
    held = core.format_percent(row["held_drawdown"])
    return f"{text}; worst drawdown {fall}, constant {constant}, {BUY_AND_HOLD} {held}"


def write_timing(row: Row) -> str:
    fills = core.count_nouns(row["fills"], "fill")
    if row["fills"] < FEW_FILLS and row["why"] != evidence.OF_OPTIONS:
        return str(row["why"])
    if row["why"]:
        return f"not tested: {row['why']} ({fills})"
    return (
        f"{fills}, mean leverage {row['mean_leverage']:z.2f}x, "
        f"p of growth {core.format_p_value(row['p_growth'])} (n {row['shifts']:,} shifts)"
    )


def write_cost(name: str, row: Row) -> str:
    """Return what a cost took of growth, growth as run and with more of it, and what misleads."""
    lead = f"{name}: "
    if not math.isnan(row["given_up"]):
        lead = f"{write_given_up(name, row['given_up'])}; "

    # Funding that never was has no double.
    compared = f"compound growth {core.format_percent(row['growth'])} a year as run"
    if not math.isnan(row["growth_at_step"]):
        raised = "volatility" if name == costs.DECAY else name
        left = core.format_percent(row["growth_at_step"])
        compared = f"{compared}, {left} at {row['step']:g} times the {raised}"

    text = f"{lead}{compared} (n {row['n']:,})"
    if not costs.is_reversed(name, row):
        return text
    if name == costs.DECAY:
        return f"{text}; not the drag alone: the policy holds other sizes at that volatility"
    return f"{text}; not by the {name}: other positions were held on the way"


def write_given_up(name: str, given_up: float) -> str:
    """Return what a cost took of log growth a year, or what it added."""
    amount = core.format_percent(abs(given_up))
    verb = "took"
    if given_up < 0.0:
        verb = "added"
    text = f"{name} {verb} {amount} of log growth a year"
    if name == costs.DECAY:
        return f"{text} against leverage 1"
    return text


def write_crashes(limits: Row) -> str:
    """Return the worst crash that is survived, and the first that is not, with their falls."""
    fatal_fall = core.format_percent(limits["fatal_fall"])
    first_fatal = f"{limits['fatal']} (-{fatal_fall})"
    if not limits["survived"]:
        return f"no crash replayed is survived, not even {first_fatal}"

    survived_fall = core.format_percent(limits["survived_fall"])
    survived = f"worst crash survived {limits['survived']} (-{survived_fall})"
    if not limits["fatal"]:
        return f"{survived}, all {limits['n_crashes']} are"
    return f"{survived}, not {first_fatal}"


def write_search(row: Row) -> str:
    """Return trials and looks, and how sure the difference is after them."""
    if not row["is_counted"]:
        return "trials and looks at a holdout are not counted: no store"

    tested = "not tested"
    if row["n"]:
        deflated = core.format_probability(row["deflated_sharpe"])
        p_value = core.format_p_value(row["p_adjusted"])
        tested = f"p {p_value} and deflated Sharpe {deflated} of the difference"
    trials = core.count_nouns(row["trials"], "trial")
    looks = core.count_nouns(int(row["looks"]), "look")
    return f"{trials}, {looks} at a holdout; {tested} (n {row['n']:,})"
