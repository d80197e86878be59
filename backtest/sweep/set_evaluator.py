"""Evaluators: they compute the measures of many parameter sets, on one market or in several."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from backtest import core, engine, policies, results, signals
from backtest.account import without_flows_before
from backtest.engine.run import run
from backtest.margin import OwnMargin
from backtest.market import as_markets
from backtest.policies.lookahead import ENOUGH
from backtest.results.measure_table import ABOUT, CORE, OPTION_COSTS, PATH, STREAMED
from backtest.results.ranking import NEVER
from backtest.signals.computed import NOT_CHECKED
from backtest.sweep.lanes.rows import REASONS
from backtest.sweep.lanes.runner import count_cores
from backtest.sweep.panel import NotCompiled, Panel, Scored, list_ends
from backtest.sweep.sets import (
    MARGIN,
    SIGNAL,
    Sets,
    SetValues,
    VariedTest,
    count_sets,
    pick,
    take_part,
    take_sets,
)

PANELS = 6
"""Spans and signals whose columns are kept, because a search uses them repeatedly."""
MOST_TOLD = 100
"""Most different warnings of sets that are repeated, as each set may have words of its own."""
SIZES = {
    "B": 1,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
}


class Rows(NamedTuple):
    """Results of sets, in their order.

    ``metrics`` are arrays of shape (n_sets,) by name, NaN for a set that failed or was not done.
    ``sampled`` are the sampled simple returns of a set by its place, if requested. ``decided`` are
    the shares of the bars from which on the policy was asked, None where nothing is observed.
    ``errors`` says why a set failed, empty if it did not. ``done`` is False for sets that did not
    run because of Ctrl-C.
    """

    metrics: dict[str, core.FloatArray]
    sampled: dict[int, core.FloatArray]
    errors: list[str]
    done: core.BoolArray
    decided: core.FloatArray | None = None

    @property
    def shares(self) -> core.FloatArray:
        """The shares of bars on which sets decided, of shape (n_sets,)."""
        if self.decided is None:
            return np.ones(len(self.done))
        return self.decided

    @property
    def returns(self) -> core.FloatArray:
        """The sampled returns, of shape (n_samples, n_sets); NaN for sets without them."""
        length = max(map(len, self.sampled.values()), default=0)
        table = np.full((length, len(self.done)), np.nan)
        for k, values in self.sampled.items():
            table[:, k] = values
        return table

    def finish(self) -> Rows:
        """Return the rows; Ctrl-C goes on if it left any out."""
        if not self.done.all():
            raise KeyboardInterrupt
        return self


MOSTLY = 0.8
"""Share of its bars under which a set counts as one that decided on few."""


def describe_decided(decided: core.FloatArray) -> str:
    """Return how many sets decided on few of their bars, in words, "" if none did.

    ``decided`` (n_sets,) is the share of its bars on which each set decided.
    """
    n_few = int(np.sum(decided < MOSTLY))
    if not n_few:
        return ""

    percent = 100.0 * MOSTLY
    text = (
        f"{n_few:,} of {len(decided):,} parameter sets decided on under {percent:g} % of "
        "their bars, since their columns were not known before"
    )
    n_never = int(np.sum(decided == 0.0))
    if n_never:
        text = f"{text}; {n_never:,} never did: too long a warm-up"
    return f"{text}; give more bars, or shorter windows"


def start_rows(sets: Sets, names: tuple[str, ...]) -> Rows:
    """Return the rows of sets that have not run: all measures are NaN."""
    n = count_sets(sets)
    return Rows(
        metrics={name: np.full(n, np.nan) for name in names},
        sampled={},
        errors=[""] * n,
        done=np.zeros(n, dtype=np.bool_),
        decided=np.full(n, np.nan),
    )


def put_rows(rows: Rows, places: core.IntArray, part: Rows) -> None:
    """Write the measures, errors and returns of a part of the sets into ``rows``.

    ``places`` are the rows of its sets. Returns in ``sampled`` stay, where the part has none.
    """
    for name, column in rows.metrics.items():
        column[places] = part.metrics[name]

    for k, place in enumerate(places.tolist()):
        rows.errors[place] = part.errors[k]
        if k in part.sampled:
            rows.sampled[place] = part.sampled[k]

    if rows.decided is not None:
        rows.decided[places] = part.shares
    rows.done[places] = part.done


def measure_result(result: results.Result) -> float:
    """Return the share of its bars on which a run decided."""
    setup: Any = result.setup
    has_traded = result.tally.money.traded > 0.0 or bool(result.options)
    return engine.measure_observed(
        setup.observed,
        setup.markets,
        setup.first,
        has_traded=has_traded,
    )


def run_one_by_one(
    replay: Callable[[SetValues], results.Result],
    sets: Sets,
    names: tuple[str, ...],
    returns: bool,
    progress: core.Progress | None,
) -> Rows:
    """Return the rows of sets that each run alone; after Ctrl-C, those that have run.

    ``names`` are the measures. A run that raises makes a row with its error, and the others go on.
    What runs warn of is given once for all of them, at the end.
    """
    rows = start_rows(sets, names)
    n_sets = len(rows.done)

    # Warnings by text and kind, each once, in their order: the keys of a dict.
    told: dict[tuple[str, type[Warning]], None] = {}

    def note(
        message: Warning | str,
        category: type[Warning],
        *_: Any,
        **_more: Any,
    ) -> None:
        """Keep a warning in place of showing it: the same words once."""
        if len(told) < MOST_TOLD:
            told[str(message), category] = None

    with warnings.catch_warnings(), engine.warn_once(is_first=False):
        warnings.showwarning = note  # put back where the block ends
        try:
            for k in range(n_sets):
                try:
                    result = replay(take_sets(sets, k))
                    put_result(rows, k, result, names, has_returns=returns)
                except core.RAISED as error:  # a policy may raise anything
                    text = f"{type(error).__name__}: {error}"
                    rows.errors[k] = " ".join(text.split())  # in one line
                rows.done[k] = True
                core.report_progress(progress, k + 1, n_sets)
        except KeyboardInterrupt:
            # The set that was interrupted may have some of its measures.
            for column in rows.metrics.values():
                column[~rows.done] = np.nan

    for text, kind in told:
        core.warn_caller(text, kind)
    return rows


def put_result(
    rows: Rows,
    place: int,
    result: results.Result,
    names: tuple[str, ...],
    *,
    has_returns: bool,
) -> None:
    """Write the measures of a run into the rows; options cost nothing where there are none."""
    measures = {**dict.fromkeys(OPTION_COSTS, 0.0), **result.metrics}
    for name in names:
        rows.metrics[name][place] = measures[name]
    if has_returns:
        rows.sampled[place] = result.returns.to_numpy()
    rows.shares[place] = measure_result(result)


class Simulated(NamedTuple):
    """How many sets were simulated in blocks, and how many one by one.

    ``bars`` are those of all sets in blocks. ``alone`` counts those of them that a set passed by
    itself, by reason, (len(REASONS),).
    """

    in_blocks: int = 0
    one_by_one: int = 0
    bars: int = 0
    alone: core.IntArray = np.zeros(len(REASONS), np.int64)

    def add(self, other: Simulated) -> Simulated:
        """Return the sums of two counts."""
        sums: Any = map(sum, zip(self, other, strict=True))
        return Simulated(*sums)

    def __str__(self) -> str:
        if self.in_blocks + self.one_by_one == 0:
            return ""

        text = f"{self.in_blocks:,} sets were simulated in blocks, {self.one_by_one:,} one by one"

        # ``alone`` counts bars by reason, in the order of REASONS.
        shares = []
        for reason, n_bars in zip(REASONS.values(), self.alone, strict=True):
            if n_bars:
                percent = 100.0 * (n_bars / self.bars)
                shares.append(f"{percent:.2g} % for {reason}")

        if not shares:
            return f"{text}."
        return f"{text}; bars of a block simulated by themselves: {', '.join(shares)}."


Metrics = Literal["all", "core"]


class EvaluatedBars(NamedTuple):
    """The bars from ``first`` to before ``stop``, and whether sampled returns are wanted."""

    first: int
    stop: int | None
    returns: bool


class Evaluator(core.Carried):
    """Runs sets on one market. Accounts begin at bar ``first``; bars before it warm the columns."""

    is_pooled = False
    """Whether each market has an account of its own, whose measures are pooled."""

    def __init__(
        self,
        varied: VariedTest,
        *,
        metrics: Metrics = "all",
        threads: int | None = None,
        memory: str = "1GiB",
        compile: bool = True,  # noqa: A002 - the word users know
    ) -> None:
        self.varied = varied
        self.market: Any = varied.test.market
        self.markets = as_markets(self.market)
        self.first = engine.find_first_bar(self.markets, varied.test.start)
        self.metrics = STREAMED
        if metrics == "core":
            self.metrics = CORE

        self.threads = threads
        if threads is not None:
            self.threads = core.Whole(1).check("threads", threads)

        # Why sets are run in plain Python, empty while they are compiled. A policy that turns out
        # not to compile writes its reason here.
        self.plain_because = "compile=False"
        if core.Flag().check("compile", compile):
            self.plain_because = ""

        # Half of the memory is for columns, in bytes for each of the panels that are kept. The
        # other half is left to the blocks of lanes.
        self.memory = memory
        memory_for_columns = read_size(memory) / 2
        self._memory_of_panel = memory_for_columns / PANELS

        # What the first call finds, and how many sets all calls simulated in which way.
        self.weakest_check: policies.Causality | None = None
        self.has_checked = False
        self.simulated = Simulated()

    @functools.cached_property
    def _make_panel(self) -> Callable[..., Panel]:
        make = partial(Panel, self.varied, self.markets, self._memory_of_panel)
        return functools.lru_cache(PANELS)(make)

    @property
    def compile(self) -> bool:
        """Whether runs may be compiled."""
        return not self.plain_because

    @property
    def measured(self) -> tuple[str, ...]:
        """The names of the measures of a row; with options, also what they cost."""
        if self.markets.options:
            return (*self.metrics, *OPTION_COSTS)
        return self.metrics

    def evaluate(
        self,
        sets: Sets,
        *,
        first: int | None = None,
        stop: int | None = None,
        returns: bool = False,
        progress: core.Progress | None = None,
    ) -> Rows:
        """Return the rows of sets whose accounts begin at a bar, and end before another."""
        if first is None:
            first = self.first
        return self._evaluate(sets, EvaluatedBars(first, stop, returns), progress)

    def _evaluate(
        self,
        sets: Sets,
        wanted: EvaluatedBars,
        progress: core.Progress | None,
    ) -> Rows:
        """Return the rows of sets: in lanes where they can, or else one by one.

        A policy that turns out not to compile is named in a warning, and ``plain_because`` keeps
        the reason for later calls.
        """
        if self._is_swept():
            self.check_causal(sets, wanted.first, wanted.stop)

        if self._is_swept() and not self._is_plain_sooner(sets, wanted):
            try:
                return self._evaluate_lanes(sets, wanted, progress)
            except NotCompiled as reason:
                self.plain_because = str(reason)
            core.warn_caller(
                f"{self.varied.policy_class.__name__} is swept in plain Python, some thousand "
                f"times slower: {self.plain_because}"
            )

        return self._evaluate_plainly(sets, wanted, progress)

    def check_causal(
        self,
        sets: Sets,
        first: int | None = None,
        stop: int | None = None,
    ) -> None:
        """Check that signal, columns and overlay of sets do not look ahead, at the first call.

        A look ahead is a fault of code, so sets at the ends of their parameters stand for all, and
        later calls, with sets of the same code, check nothing. Keeps the check of columns at the
        fewest cuts, the weakest, for :attr:`causality`. Raises PolicyError for a look ahead.
        """
        if self.has_checked or count_sets(sets) == 0:
            return

        # Set first, so that a check that fails is not made again at the next call.
        self.has_checked = True
        if self.varied.rule is not None:
            self._check_signals(sets)

        # A panel is found by what sets vary of the signal and of the rules of margin. The empty
        # mapping varies nothing: that panel has those of the test itself.
        if first is None:
            first = self.first
        panel = self._find_panel({}, first, stop)
        checks = panel.check_ends(sets)
        self.weakest_check = min(checks, key=lambda check: check.cuts, default=None)

    def _check_signals(self, sets: Sets) -> None:
        """Check the rule of the signal at the ends of its parameters."""
        signal_sets = take_part(sets, SIGNAL)
        for settings in list_ends(signal_sets):
            values = {f"{SIGNAL}{name}": value for name, value in settings.items()}
            self._check_rule(values)

    def check_set(self, values: SetValues) -> None:
        """Check signal, columns and overlay of one set, whose run gives its faults."""
        if self._is_swept() and self._check_rule(values):
            self._find_panel(values, self.first, None).check_set(values)

    def _check_rule(self, values: SetValues) -> bool:
        """Check the signal of a set for a look ahead; return whether the set has one to run on."""
        try:
            rule = self.varied.build_signal(values)
            if rule is not None:
                signals.resolve_signal(rule, self.market)
        except core.ParameterError:  # the run of the set gives the reason
            return False
        return True

    def _find_panel(
        self,
        values: SetValues,
        first: int,
        stop: int | None,
    ) -> Panel:
        """Return the panel of sets with this signal and these rules of margin; a few are kept."""
        margin = {name: value for name, value in values.items() if name.startswith(MARGIN)}
        venue = self.varied.build_venue(margin)
        names = self.markets.names  # also of what is not listed yet
        venues = tuple((name, pick(venue, name)) for name in names)
        return self._make_panel(self.varied.build_signal(values), venues, first, stop)

    @property
    def causality(self) -> str:
        """What was checked for a look ahead, in words."""
        columns: Any = "columns checked in every run"
        if self._is_swept() and self.weakest_check:
            columns = self.weakest_check
        if self.varied.rule is not None:
            return f"{columns}; signal checked at both ends of its parameters, and in the best set"
        return signals.join_checks(columns, self.varied.test.signal)

    @property
    def doubts(self) -> list[str]:
        """What the checks could not see, a sentence each."""
        doubts = []

        # Sets that run one by one are checked in their runs.
        check = self.weakest_check
        if check is not None and self._is_swept():
            if check.is_weak:
                doubts.append(
                    f"a look ahead could be missed: {check}, under {ENOUGH}, as the warm-up of the "
                    "columns leaves no more of what was searched"
                )
            elif check.market_columns:
                doubts.append(f"{check}")

        signal = signals.describe_signal_check(self.varied.test.signal)
        if signal == NOT_CHECKED:
            doubts.append(signal)
        return doubts

    def _evaluate_lanes(
        self,
        sets: Sets,
        wanted: EvaluatedBars,
        progress: core.Progress | None,
    ) -> Rows:
        """Return the rows of sets that run together; those with a fault run again one by one."""
        from backtest.sweep.lanes.runner import score_sets  # noqa: PLC0415 - numba loads with it

        # Parts of the sets, as they are done: their places, and their scores, or a fault. None is a
        # part that was stopped.
        rows = start_rows(sets, self.metrics)
        scored = score_sets(
            self.metrics,
            sets,
            lambda values: self._find_panel(values, wanted.first, wanted.stop),
            self.threads or count_cores(),
            self._memory_of_panel,
            returns=wanted.returns,
        )
        faulty = []

        try:
            for places, part in scored:
                if isinstance(part, Scored):
                    self._put_scored(rows, places, part, wanted)
                elif part is not None:
                    faulty.append(places)
                core.report_progress(progress, int(rows.done.sum()), len(rows.done))

            # The run of each set gives its reason.
            for places in faulty:
                plain = self._evaluate_plainly(take_sets(sets, places), wanted, None)
                put_rows(rows, places, plain)
        except KeyboardInterrupt:  # what is not done is left out, and says so
            pass
        return rows

    def _put_scored(
        self,
        rows: Rows,
        places: core.IntArray,
        scored: Scored,
        wanted: EvaluatedBars,
    ) -> None:
        """Write the scores of sets into their places of the rows, and count how they ran.

        ``scored.alone`` is None of a set that ran by itself; of a block, it counts the bars that
        its sets passed by themselves, by reason.
        """
        n_sets = len(places)
        sampled = {}
        if wanted.returns:
            sampled = dict(enumerate(scored.returns.T))
        scores = Rows(
            metrics=scored.metrics,
            sampled=sampled,
            errors=[""] * n_sets,
            done=np.ones(n_sets, dtype=np.bool_),
            decided=scored.decided,
        )
        put_rows(rows, places, scores)

        if scored.alone is None:
            count = Simulated(one_by_one=n_sets)
        else:
            n_bars = self._find_stop(wanted.stop) - wanted.first
            count = Simulated(in_blocks=n_sets, bars=n_sets * n_bars, alone=scored.alone)
        self.simulated = self.simulated.add(count)

    def _find_stop(self, stop: int | None) -> int:
        """Return the bar before which accounts end, by default the end of the data."""
        if stop is None:
            return self.markets.n_bars
        return stop

    def _is_swept(self) -> bool:
        """Return whether sets may run in lanes, or in the compiled loop of one set."""
        is_own = isinstance(self.varied.test.account.requirement, OwnMargin)
        return not (is_own or self.plain_because or self.markets.options)

    def _is_plain_sooner(self, sets: Sets, wanted: EvaluatedBars) -> bool:
        """Return whether plain Python is done before the loop would be compiled."""
        n_bars = self._find_stop(wanted.stop) - wanted.first
        n_in_all = n_bars * count_sets(sets) * len(self.markets)
        if not engine.is_plain_sooner(n_in_all):
            return False
        return not engine.is_loop_compiled(has_options=bool(self.markets.options))

    def _evaluate_plainly(
        self,
        sets: Sets,
        wanted: EvaluatedBars,
        progress: core.Progress | None,
    ) -> Rows:
        how: Any = self.compile
        if self.compile and not self._is_plain_sooner(sets, wanted):
            how = "now"
        replay = partial(
            self.replay,
            first=wanted.first,
            stop=wanted.stop,
            compile=how,
        )
        return run_one_by_one(
            replay,
            sets,
            self.measured,
            wanted.returns,
            progress,
        )

    def evaluate_path(self, sets: Sets) -> Rows:
        """Return the measures of whole paths of equity, from runs one by one."""
        return run_one_by_one(self.replay, sets, PATH, False, None)

    def replay(
        self,
        values: SetValues,
        *,
        first: int | None = None,
        stop: int | None = None,
        compile: engine.Compile | None = None,  # noqa: A002 - as that of bt.run
    ) -> results.Result:
        """Return the run of one set, by default on all bars.

        An account that begins at a later bar than the test's has no flows of the time before, and
        columns of policies are warm from the bars before it.
        """
        changes: dict[str, Any] = {}
        if stop is not None:
            changes["market"] = self.market.prefix(stop)
        if first is not None and first > self.first:
            account = self.varied.build_account(values)
            changes["account"] = without_flows_before(account, int(self.market.time[first]))
            changes["start"] = self.market.times[first]

        if compile is None:
            compile = self.compile  # noqa: A001 - as above
        test = self.varied.build_test(values, **changes)
        return run(test, self.varied.build_policies(values), compile=compile)


def read_size(memory: str) -> int:
    """Return the bytes of a size such as ``"1GiB"``."""
    size = 0
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?i?B)\s*", str(memory))
    if match:
        number, unit = match.groups()
        size = int(float(number) * SIZES.get(unit, 0))
    if size <= 0:
        raise core.ParameterError(
            f"memory must be a size such as '1GiB' ({', '.join(SIZES)}), got {memory!r}"
        )
    return size


Pool = Literal["mean", "median", "worst"]
"""How measures of several markets become one."""


def pool_measure(
    name: str,
    values: core.FloatArray,
    pool: Pool,
) -> core.FloatArray:
    """Return a measure of each set over all markets, (n_sets,).

    ``values`` (n_markets, n_sets) are the measure by market. The number of ruined accounts is a
    sum, other measures are pooled by the mean, the median or the worst.
    """
    if name == "ruined":
        return np.asarray(values.sum(axis=0))

    # The time to what never came is NaN: of the others it is the mean, whatever the pool.
    if name in NEVER:
        came = ~np.isnan(values)
        total = np.where(came, values, 0.0).sum(axis=0)
        with np.errstate(invalid="ignore"):
            return np.asarray(total / came.sum(axis=0))

    # 1 where more is better, -1 where less is; 0 where neither, which has the mean.
    direction = ABOUT[name].better
    if pool == "worst" and direction > 0:
        return np.asarray(values.min(axis=0))
    if pool == "worst" and direction < 0:
        return np.asarray(values.max(axis=0))
    if pool == "median":
        return np.asarray(np.median(values, axis=0))
    return np.asarray(values.mean(axis=0))


class PooledEvaluator(Evaluator):
    """Evaluator of accounts that each hold one instrument: a set is simulated in all of them.

    Its bars are those of the clock of the markets. ``members`` are the evaluators by instrument.
    The measures of a set are pooled: their ``"mean"``, ``"median"`` or ``"worst"`` over markets.
    ``ruined`` is the number of markets in which it was ruined. Returns are the mean over markets on
    the days that all have.
    """

    is_pooled = True

    def __init__(
        self,
        varied: VariedTest,
        *,
        pool: Pool = "mean",
        **settings: Any,
    ) -> None:
        self.pool = pool
        markets = as_markets(varied.test.market)
        self.members: dict[str, Evaluator] = {}
        for name, market in markets.items():
            self.members[name] = Evaluator(varied.for_instrument(name, market), **settings)

        # All settings are those of a member, which has checked them. Market, start and test are of
        # all markets.
        first_member = next(iter(self.members.values()))
        vars(self).update(vars(first_member))
        self.market = self.markets = markets
        self.first = engine.find_first_bar(markets, varied.test.start)
        self.varied = varied

    def _evaluate(
        self,
        sets: Sets,
        wanted: EvaluatedBars,
        progress: core.Progress | None,
    ) -> Rows:
        """Return the rows of sets in all markets, pooled; progress is that of all together."""
        spans = self.find_spans(wanted.first, self._find_stop(wanted.stop))
        parts: dict[str, Rows] = {}

        def report(done: int, total: int) -> None:
            """Report the sets done in all markets, as if they were those of one."""
            # ``parts`` has the markets that are finished; ``done`` counts sets of the next one.
            done_in_all = len(parts) * total + done
            core.report_progress(progress, done_in_all // len(spans), total)

        report_part = None
        if progress:
            report_part = report
        for name, (first, stop) in spans.items():
            parts[name] = self.members[name].evaluate(
                sets,
                first=first,
                stop=stop,
                returns=wanted.returns,
                progress=report_part,
            )

        counts = [member.simulated for member in self.members.values()]
        self.simulated = functools.reduce(Simulated.add, counts)
        rows = pool_rows(parts, self.pool)
        if not wanted.returns:
            return rows
        returns = self._average_returns(parts, spans)
        return rows._replace(sampled=dict(enumerate(returns.T)))

    def _average_returns(
        self,
        parts: Mapping[str, Rows],
        spans: Mapping[str, tuple[int, int]],
    ) -> core.FloatArray:
        """Return the mean returns over markets, (n_samples, n_sets), in the periods that all have.

        A market's returns are of the periods, of ``sampling``, in which it has a bar. ``spans`` are
        the first bar of an account in each market, and the bar before which it ends.
        """
        sampling = self.varied.test.sampling
        length = core.parse_duration(sampling, "sampling")

        # The periods of each market by number; a bar that is longer is a period by itself.
        periods = {}
        for name, span in spans.items():
            market = self.members[name].market.slice(*span)
            ends_period = engine.mark_samples(market, sampling) != 0.0
            length_of_period = max(length, market.interval)
            periods[name] = market.time[ends_period] // length_of_period

        in_all = functools.reduce(np.intersect1d, periods.values())
        returns = []
        for name, rows in parts.items():
            is_in_all = np.isin(periods[name], in_all)
            returns.append(rows.returns[is_in_all])
        return np.asarray(np.mean(returns, axis=0))

    def evaluate_path(self, sets: Sets) -> Rows:
        parts = {name: member.evaluate_path(sets) for name, member in self.members.items()}
        return pool_rows(parts, self.pool)

    def replay(  # type: ignore[override] # one run of each market
        self,
        values: SetValues,
        *,
        first: int | None = None,
        stop: int | None = None,
    ) -> dict[str, results.Result]:
        """Return the runs of one set by instrument."""
        if first is None:
            first = self.first
        runs = {}
        for name, (begin, end) in self.find_spans(first, self._find_stop(stop)).items():
            runs[name] = self.members[name].replay(values, first=begin, stop=end)
        return runs

    def check_causal(
        self,
        sets: Sets,
        first: int | None = None,
        stop: int | None = None,
    ) -> None:
        """Check the accounts of all markets."""
        for member in self.members.values():
            member.check_causal(sets, first, stop)

    def check_set(self, values: SetValues) -> None:
        """Check the accounts of all markets with one set."""
        for member in self.members.values():
            member.check_set(values)

    @property
    def causality(self) -> str:
        """What was checked for a look ahead, of all markets once."""
        checks = [member.causality for member in self.members.values()]
        return "; ".join(dict.fromkeys(checks))

    @property
    def doubts(self) -> list[str]:
        """What the checks could not see, of all markets once."""
        doubts: dict[str, None] = {}
        for member in self.members.values():
            doubts |= dict.fromkeys(member.doubts)
        return [*doubts]

    def find_spans(self, first: int, stop: int) -> dict[str, tuple[int, int]]:
        """Return the bars of each market from bar ``first`` on, before ``stop``, by name.

        These two count the bars of all markets together; the pairs (first, stop) that are returned
        count those of the market itself. A market with fewer than two bars is left out.
        """
        spans = {}
        for name, span in zip(self.market.names, self.market.spans.tolist(), strict=True):
            begins, ends = span
            own_first = max(first - begins, 0)
            own_stop = min(stop, ends) - begins
            if own_stop - own_first > 1:
                spans[name] = (own_first, own_stop)
        return spans


def pool_rows(parts: Mapping[str, Rows], pool: Pool) -> Rows:
    """Return the rows of sets over several markets, ``parts`` by name of the market.

    A measure is pooled over the markets, and some are there of each market too. A set that failed
    in one market has no measures, and the error of the first in which it did.
    """
    rows_of_all = [*parts.values()]
    done = np.all([rows.done for rows in rows_of_all], axis=0)

    # Written from the last market to the first, so that the first one stays.
    errors = [""] * len(done)
    for market, rows in reversed([*parts.items()]):
        for k, error in enumerate(rows.errors):
            if error:
                errors[k] = f"{market}: {error}"

    is_measured = done & (np.array(errors, dtype=object) == "")
    measures = rows_of_all[0].metrics
    metrics = {}
    for measure in measures:
        values = np.array([rows.metrics[measure] for rows in rows_of_all])
        pooled = pool_measure(measure, values, pool)
        metrics[measure] = np.where(is_measured, pooled, np.nan)

    # The main ones by market too.
    for measure in ("sharpe", "total_return", "max_drawdown", "ruined"):
        if measure in measures:
            for market, rows in parts.items():
                metrics[f"{measure} {market}"] = rows.metrics[measure]

    # A set decided in the share of the market in which it did least.
    shares = np.min([rows.shares for rows in rows_of_all], axis=0)
    return Rows(
        metrics=metrics,
        sampled={},
        errors=errors,
        done=done,
        decided=shares,
    )
