"""What validations share: spans of time, results that resume, and shares with intervals."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
import pandas as pd

from backtest import core
from backtest.engine import Conditions, check_bars_left, find_first_bar, mark_samples
from backtest.engine.checks import warn_once
from backtest.market import Market, Markets, as_markets
from backtest.results import Result, name_measure
from backtest.results.measure_table import METRICS
from backtest.search.problem import Search, SearchProblem, read_search
from backtest.search.study import SearchResult
from backtest.search.trials import find_finished, open_folder
from backtest.sweep import Evaluator, on_cluster

LEAST_TRAIN = 200
"""Least bars of a train span."""
LEAST_TEST = 20
"""Least bars of a test span."""
FEW_BARS = 200
"""A test span under this many bars is allowed, with a warning."""
MOST_GROUPS = 50
MOST_SPLITS = 20_000
USUAL_EMBARGO = 0.01
"""Share of all bars: Lopez de Prado (2018), section 7.4.2."""
TIMES = ("train_start", "train_end", "test_start", "test_end")


class FoldSpan(NamedTuple):
    """Bars of a fold: the first of train and test span, and those after the last of each."""

    train: int
    train_stop: int
    test: int
    stop: int


class Groups(NamedTuple):
    """Groups of bars, cut at N + 1 ``edges``, before which so many ``samples`` end."""

    edges: core.IntArray
    samples: core.IntArray

    @property
    def n(self) -> int:
        return len(self.edges) - 1

    def span(self, group: int) -> tuple[int, int]:
        """Return the first bar of a group, and the bar after its last."""
        return int(self.edges[group]), int(self.edges[group + 1])


@core.checked
def folds(
    market: Market | Markets,
    *,
    train: str = "365d",
    test: str = "30d",
    anchored: bool = False,
    gap: str = "0d",
    groups: int | None = None,
    test_groups: int = 2,
    embargo: int | str = 0,
    sampling: str = "1d",
    start: core.TimeLike | None = None,
) -> pd.DataFrame:
    """Return the spans of a walk, or with ``groups`` those of a cross-validation.

    Parameters
    ----------
    market : Market or Markets
        The bars to cut; of several markets, those of their common clock.
    train, test, anchored, gap
        As in :meth:`backtest.Backtest.walk_forward`.
    groups, test_groups, embargo, sampling
        As in :meth:`backtest.Backtest.cross_validate`, without an embargo by default.
    start : str or Timestamp, optional
        When accounts begin, in UTC: spans and groups are of the bars that open from then on.

    Returns
    -------
    DataFrame
        Of a walk, a row per fold: ``train_start, train_end, test_start, test_end``. Of a
        cross-validation, a row per split and group: ``split``, ``group``, ``is_test``, ``start``,
        ``end``; a train group after a test group starts after the embargo. Times are UTC,
        half-open.

    Raises
    ------
    ParameterError
        If an argument is not allowed, or spans are too short.

    Examples
    --------
    >>> import backtest as bt
    >>> market = bt.Market.sample(bars=24 * 90)
    >>> bt.folds(market, train="30d", test="20d")["test_start"].dt.strftime("%m-%d").tolist()
    ['01-31', '02-20', '03-12']
    >>> len(bt.folds(market, groups=6, test_groups=2))
    90
    """
    as_markets(market)
    check_bars_left(market, start)
    first = find_first_bar(market, start)
    if groups is None:
        return tabulate_spans(market, plan_spans(market, train, test, anchored, gap, first=first))

    cut, n_tested = split_groups(
        market,
        groups,
        test_groups,
        sampling,
        first=first,
    )
    embargo_bars = check_embargo(embargo, cut, market)
    rows = []
    for split, tested in enumerate(itertools.combinations(range(cut.n), n_tested)):
        is_embargoed = find_embargoed(cut.n, tested)
        for group in range(cut.n):
            begin, stop = cut.span(group)
            if is_embargoed[group]:
                begin += embargo_bars
            rows.append((split, group, group in tested, begin, stop))

    table = pd.DataFrame(rows, columns=["split", "group", "is_test", "start", "end"])
    return table.assign(
        start=time_bars(market, table["start"]), end=time_bars(market, table["end"])
    )


def plan_spans(
    market: Market | Markets,
    train: str,
    test: str,
    anchored: bool = False,
    gap: str = "0d",
    *,
    first: int = 0,
) -> list[FoldSpan]:
    """Return the spans of a walk in the bars from ``first`` on, as bars of the market.

    Tests adjoin. Each is after the bars that it trains on and a gap; ``anchored`` ones train from
    ``first`` on. Raises ParameterError if the durations leave no test, or a span is too short.
    """
    begin = int(market.time[first])
    train_length = core.parse_duration(train, "train")
    test_length = core.parse_duration(test, "test")
    gap_length = parse_gap(gap)
    if gap_length >= min(train_length, test_length):
        raise core.ParameterError("gap must be shorter than train and test, '0d' for none")

    first_test = begin + train_length + gap_length
    if first_test >= market.end:
        half = (market.end - begin) // 2
        raise core.ParameterError(
            f"train must leave bars to test on, {core.format_duration(half)!r} for example: the "
            f"data end {core.format_time(market.end)}"
        )

    spans: list[FoldSpan] = []
    for test_start in range(first_test, market.end, test_length):
        # The test before took the rest of the bars.
        if spans and spans[-1].stop == market.n_bars:
            break

        train_end = test_start - gap_length
        train_start = begin
        if not anchored:
            train_start = max(begin, train_end - train_length)
        times = [train_start, train_end, test_start, test_start + test_length]
        span = FoldSpan(*np.searchsorted(market.time, times).tolist())

        # A rest that is too short for a test of its own belongs to this one.
        if market.n_bars - span.stop < LEAST_TEST:
            span = span._replace(stop=market.n_bars)

        check_length(
            market,
            "train",
            span.train,
            span.train_stop,
            LEAST_TRAIN,
            fold=len(spans),
        )
        check_length(
            market,
            "test",
            span.test,
            span.stop,
            LEAST_TEST,
            fold=len(spans),
        )
        spans.append(span)
    return spans


def parse_gap(gap: str) -> int:
    """Return a gap in ns; unlike other durations it may be 0, in any unit."""
    if re.fullmatch(r"\s*0+\s*[a-zA-Z]*\s*", str(gap)):
        return 0
    return core.parse_duration(gap, "gap")


def check_length(
    market: Market | Markets,
    name: str,
    first: int,
    stop: int,
    least: int,
    *,
    fold: int,
) -> None:
    """Raise ParameterError for a span of a fold that is too short."""
    if stop - first < least:
        raise core.ParameterError(
            f"a {name} span must have {least} bars or more, that of fold {fold} from "
            f"{describe_bar(market, first)} has {max(stop - first, 0)}"
        )


def describe_bar(market: Market | Markets, bar: int) -> str:
    """Return the open of a bar; for the one after the last, the end of the data."""
    time = int(market.time[bar]) if bar < market.n_bars else market.end
    return core.format_time(time)


def tabulate_spans(market: Market | Markets, spans: Sequence[FoldSpan]) -> pd.DataFrame:
    """Return the times of spans, a row per fold."""
    columns = {}
    for name, bars in zip(TIMES, np.transpose(spans), strict=True):
        columns[name] = time_bars(market, bars)
    return pd.DataFrame(columns).rename_axis("fold")


def time_bars(market: Market | Markets, bars: np.ndarray | pd.Series) -> pd.DatetimeIndex:
    """Return the opens of bars; of the one after the last, the end of the market."""
    edges = np.append(market.time, market.end)
    return core.utc_index(edges[np.asarray(bars)])


def split_groups(
    market: Market | Markets,
    groups: int,
    test_groups: int,
    sampling: str,
    *,
    first: int = 0,
) -> tuple[Groups, int]:
    """Return the groups of the bars from ``first`` on, and how many of them each split tests."""
    n = int(core.Range(2, MOST_GROUPS).check("groups", groups, whole=True))
    k = int(core.Range(1, n - 1).check("test_groups", test_groups, whole=True))
    if math.comb(n, k) > MOST_SPLITS:
        raise core.ParameterError(
            f"groups and test_groups must make at most {MOST_SPLITS:,} splits, {n} and {k} make "
            f"{math.comb(n, k):,}"
        )

    # Groups have as many sampling periods each, the first ones one more if they do not divide.
    last_bars = first + np.flatnonzero(mark_samples(market, sampling)[first:])
    periods = np.arange(len(last_bars))
    periods_by_group = [len(group) for group in np.array_split(periods, n)]
    samples = np.cumsum([0, *periods_by_group])

    # They are cut where periods end. A cut is the first bar of the next group.
    period_edges = np.concatenate(([first], last_bars + 1))
    edges = period_edges[samples]
    least_bars = int(np.diff(edges).min())
    if least_bars < LEAST_TRAIN or min(periods_by_group) < 2:
        raise core.ParameterError(
            f"groups must each have {LEAST_TRAIN} bars and two sampling periods or more, the "
            f"shortest of {n} has {least_bars} bars"
        )
    return Groups(edges.astype(np.int64), samples.astype(np.int64)), k


def list_paths(n: int, k: int) -> list[list[int]]:
    """Return the split from which each path takes each group: φ = k/n · C(n, k) paths.

    Source: Lopez de Prado (2018), Advances in Financial Machine Learning, section 12.4.
    """
    splits_of: list[list[int]] = [[] for _ in range(n)]
    for split, tested in enumerate(itertools.combinations(range(n), k)):
        for group in tested:
            splits_of[group].append(split)
    return [list(path) for path in zip(*splits_of, strict=True)]


def find_embargoed(n: int, tested: Sequence[int]) -> core.BoolArray:
    """Return which of n groups train right after a group that is tested."""
    return np.array([g - 1 in tested and g not in tested for g in range(n)])


def check_embargo(
    embargo: int | str | None,
    groups: Groups,
    market: Market | Markets,
) -> int:
    """Return the embargo in bars; raise ParameterError if it leaves too few of a group."""
    if embargo is None:
        return math.ceil(USUAL_EMBARGO * int(groups.edges[-1] - groups.edges[0]))

    if isinstance(embargo, str):
        bars = -(-core.parse_duration(embargo, "embargo") // market.interval)
    else:
        bars = int(core.Range(0, math.inf, "bars").check("embargo", embargo, whole=True))
    shortest = int(np.diff(groups.edges).min())
    if shortest - bars < LEAST_TRAIN:
        raise core.ParameterError(
            f"embargo must leave {LEAST_TRAIN} bars of each group, got {bars:,} of {shortest:,}"
        )
    return bars


V = TypeVar("V", bound="Validation")
FIGURES = "figures.json"
ACCOUNTS = "accounts"
EVIDENCE = 0.95
"""Least probabilistic Sharpe ratio that is evidence: without skill it has 1 in 20 chances."""
EVEN = 0.5
"""Probability of overfitting above which a choice is no better than chance."""
CONFIDENCE = 0.95
SCATTER = (
    "Each gray point is a set, each blue one a chosen set. Chosen sets under the dotted line "
    "lost against what they showed in sample; a cloud without slope means that the past does not "
    "separate the sets."
)


class Validation(SearchResult):
    """Base of validations; ``figures`` are headline figures as data."""

    more_files = (FIGURES,)
    figures: Mapping[str, Any]

    @property
    def pbo(self) -> Estimate:
        """Share of best sets that were no better than the median set out of sample."""
        return Estimate(**self.figures["pbo"])

    @property
    def warnings(self) -> list[str]:
        """Warnings, one sentence each."""
        return list(self.figures["warnings"])

    @property
    def notices(self) -> tuple[str, ...]:
        return tuple(f"{core.capitalize(text)}." for text in self.warnings)

    @property
    def accounts(self) -> Mapping[str, Result]:
        """The accounts that are saved with it, by name."""
        return {}

    @property
    def objective(self) -> str:
        """The objective in words."""
        source = self.manifest["objective_source"]
        if isinstance(source, Mapping):
            terms = [f"{weight:g} {name_measure(name)}" for name, weight in source.items()]
            return " + ".join(terms)
        if isinstance(source, list | tuple):
            return " and ".join(map(name_measure, source))
        return name_measure(str(source).partition(" sha256:")[0].removeprefix("-"))

    def list_policies(self) -> Iterable[type]:
        for account in self.accounts.values():
            yield from map(type, account.policies.values())
            if account.overlay:
                yield type(account.overlay)

    def describe_search(self) -> str:
        """Return what was searched, and by what, in a sentence."""
        facts = self.manifest
        subject = self.title
        if "overlay" in facts:
            subject = f"{subject} under {facts['overlay']}"

        text = f"Parameter sets of {subject} were chosen by {self.objective}"
        rules = ", ".join(facts["constraints"]).replace("ruined == 0", "no ruin")
        if rules:
            text = f"{text}, subject to {rules}"
        return f"{text}."

    def _write_data(self, name: str, **more: Any) -> dict[str, Any]:
        facts = {
            name: self.manifest,
            "verdict": self.verdict,
            "figures": self.figures,
        }
        return dict(core.to_plain({**facts, **more}))

    def _write_more(self, folder: Path) -> None:
        place = folder / ACCOUNTS
        for title, account in self.accounts.items():
            account.save(place / f".{title}").rename(place / title)
            (place / f".{title}").rmdir()
        stored = {"figures": self.figures, "accounts": [*self.accounts]}
        core.write_json_file(stored, folder / FIGURES)

    @classmethod
    def _read_back(
        cls,
        manifest: dict[str, Any],
        tables: Mapping[str, Any],
        folder: Path,
    ) -> Self:
        stored = core.from_plain(core.read_json_file(folder / FIGURES))
        accounts = {name: Result.load(folder / ACCOUNTS / name) for name in stored["accounts"]}
        facts: dict[str, Any] = {"figures": stored["figures"], "manifest": manifest}
        return cls(**tables, **accounts, **facts)


def select_metrics(row: Mapping[Any, Any]) -> dict[str, float]:
    return {str(name): value for name, value in row.items() if name in METRICS}


def read_validated(conditions: Conditions, policy: Any, search: Search) -> SearchProblem:
    """Return the problem of a validation, whose account and venue stay as they are."""
    problem = read_search(conditions, policy, search)
    dotted = [name for name in problem.names if name.startswith(("account.", "venue."))]
    if dotted:
        raise core.ParameterError(
            "space of a validation must hold parameters of policies, overlay and signal, got "
            f"{', '.join(dotted)}; fix sets single values"
        )
    return problem


def make_or_resume(
    cls: type[V],
    problem: SearchProblem,
    manifest: Mapping[str, Any],
    make: Callable[[Evaluator, Path | None], V],
) -> V:
    """Return a finished validation from the store, or make it and save it there.

    ``make`` has an evaluator, and the folder in which unfinished work is kept, if there is a store.
    """
    store = problem.store
    finished = find_finished(store, manifest, resume=problem.resume)
    if finished is not None:
        return cls.load(finished)

    evaluator = problem.build_evaluator(problem.market)
    with open_folder(store, manifest) as folder:
        with warn_once(is_first=False), on_cluster(evaluator, problem.cluster) as working:
            validation = make(working, folder)
        if store is not None and folder is not None:
            validation.save(store)
            core.discard_folder(folder)
    return validation


class Estimate(float):
    """A number with its interval."""

    low: float
    high: float

    def __new__(
        cls,
        value: float,
        low: float = math.nan,
        high: float = math.nan,
    ) -> Estimate:
        estimate = super().__new__(cls, value)
        estimate.low = float(low)
        estimate.high = float(high)
        return estimate

    def to_dict(self) -> dict[str, float]:
        return {
            "value": float(self),
            "low": self.low,
            "high": self.high,
        }


def estimate_overfitting(ranks: pd.Series, n: float) -> Estimate:
    """Return the share of ranks up to .5 with its interval, as of n independent ones.

    Source: Wilson (1927), J. American Statistical Association 22(158): the interval has the shares
    p with ``|share - p| <= z sqrt(p (1 - p) / n)``.
    """
    share = float((ranks.dropna() <= EVEN).mean())
    if math.isnan(share):
        return Estimate(math.nan)

    # The roots of the equation, about their middle.
    z = NormalDist().inv_cdf(0.5 + 0.5 * CONFIDENCE)
    weight = 1.0 + z * z / n
    middle = (share + 0.5 * z * z / n) / weight
    variance = share * (1.0 - share) / n + 0.25 * z * z / (n * n)
    half = z / weight * math.sqrt(variance)
    low = max(0.0, middle - half)
    high = min(1.0, middle + half)
    return Estimate(share, low, high)


def order_scores(scores: core.FloatArray, ruined: core.FloatArray) -> core.FloatArray:
    """Return scores, minus infinity of sets that were ruined or have none."""
    return np.where(np.isfinite(scores) & (ruined == 0.0), scores, -np.inf)


def find_rank(scores: core.FloatArray, row: int) -> float:
    """Return the rank of a set among all: 1 for the best, 0 for the worst; NaN without others."""
    n = len(scores)
    if n < 2 or row < 0:
        return math.nan
    worse = np.count_nonzero(scores < scores[row])
    equal = np.count_nonzero(scores == scores[row]) - 1
    return float((worse + 0.5 * equal) / (n - 1))


class ChanceCount(NamedTuple):
    """How many of n were found to be better, and how many chance gives, with its p-value."""

    found: int
    n: int
    expected: float
    p_value: float
