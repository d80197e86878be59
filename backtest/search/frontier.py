"""What a search shows beside its best set: frontiers, errors, and which parameters matter."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest import core
from backtest.core.number_text import STYLES, Head
from backtest.core.result_parts import Headline, Part, ShownChart, ShownTable
from backtest.core.units import DAY, YEAR_DAYS
from backtest.engine import count_periods
from backtest.results.differences import choose_block, draw_histories
from backtest.results.manifest import find_held
from backtest.results.measure_table import ABOUT, name_measure
from backtest.results.ranking import LEAST_BULGE, find_knee, is_dominated
from backtest.results.settings_result import SettingsResult
from backtest.search import trials as t
from backtest.search.winner import FEW_FILLS, StudyTask, describe_lack
from backtest.sweep import Evaluator, Sets, Space, draw_cube, name_column, take_sets

ERROR_DRAWS = 200
"""Resampled histories of a standard error: it is within 5 % of that of infinitely many."""
LEAST_GAIN = 0.25
"""Least gain that a search goes on for, in standard errors of the best."""


class Span(NamedTuple):
    years: float
    periods: float


def find_span(evaluator: Evaluator) -> Span:
    test, market, first = evaluator.varied.test, evaluator.market, evaluator.first
    years = (market.end - int(market.time[first])) / (YEAR_DAYS * DAY)
    return Span(years, count_periods(test.calendar, test.sampling, market, first))


def measure_returns(returns: core.FloatArray, span: Span) -> dict[str, core.FloatArray]:
    """Return the measures that follow from sampled returns, arrays of shape (k,) by name.

    ``returns`` (k, n) are simple, above -1, over the span. Drawdowns are those at the ends of
    sampling periods. The risk-free rate is 0.
    """
    path = np.cumsum(np.log1p(returns), axis=1)
    peaks = np.maximum(np.maximum.accumulate(path, axis=1), 0.0)
    fall = -np.expm1(np.min(path - peaks, axis=1))
    growth, root = np.expm1(path[:, -1] / span.years), math.sqrt(span.periods)
    deviation, mean = np.std(returns, axis=1, ddof=1), np.mean(returns, axis=1)
    downside = np.sqrt(np.mean(np.minimum(returns, 0.0) ** 2, axis=1))
    worth = np.mean((1.0 + returns) ** -2.0, axis=1)
    return {
        "total_return": np.expm1(path[:, -1]),
        "cagr": growth,
        "volatility": root * deviation,
        "sharpe": root * mean / deviation,
        "sortino": root * mean / downside,
        "max_drawdown": fall,
        "calmar": growth / fall,
        "certainty_equivalent": worth ** (-0.5 * span.periods) - 1.0,
    }


def resample_scores(
    goal: t.Goal,
    metrics: Mapping[str, core.FloatArray],
    returns: core.FloatArray,
    span: Span,
    draws: int,
    seed: int,
) -> Iterator[core.FloatArray]:
    """Yield the scores of k sets in resampled histories, of shape (k, n_objectives) each.

    The sampled ``returns`` (n, k) are resampled together by the stationary bootstrap. A measure
    moves by as much as that of the returns does; one that does not follow from returns stays.
    """
    series = np.ascontiguousarray(returns.T)
    logs = np.log1p(series)
    block = choose_block(logs - logs.mean(axis=1, keepdims=True))
    rng = np.random.default_rng([seed, 4])
    with np.errstate(all="ignore"):
        own = measure_returns(series, span)
        for chosen, _ in draw_histories(series.shape[1], block, draws, rng):
            drawn = measure_returns(np.take(series, chosen, axis=1), span)
            moved = {k: metrics[k] + drawn[k] - own[k] for k in own if k in metrics}
            yield goal.grade({**metrics, **moved})


class Patience:
    """Ends a search after some evaluations without a gain: ``left`` are those to go.

    A set is a gain if every leading set, made better by a quarter of its standard errors, is worse
    in an objective; of one objective, if its score is over the best by more than that. Errors are
    those of a stationary bootstrap of the sampled returns of the search.
    """

    def __init__(self, evaluations: int, goal: t.Goal, evaluator: Evaluator, seed: int) -> None:
        self.left = self.evaluations = evaluations
        self.goal, self.evaluator, self.seed = goal, evaluator, seed
        self.bars = np.empty((0, len(goal.objectives)))

    def count(self, batch: t.Batch) -> None:
        scores = t.grade_feasible(self.goal, batch)
        gains = np.flatnonzero(~is_dominated(scores))
        is_gain = np.all(np.any(scores[gains, None] > self.bars, axis=2), axis=1)
        gains = gains[is_gain]
        if not len(gains):
            self.left -= len(scores)
            return
        _, first = np.unique(scores[gains], axis=0, return_index=True)
        gains = gains[np.sort(first)]
        errors = estimate_errors(self.goal, self.evaluator, take_sets(batch.sets, gains), self.seed)
        bars = np.vstack([self.bars, scores[gains] + LEAST_GAIN * errors])
        self.bars = bars[~is_dominated(bars)]
        self.left = self.evaluations - (len(scores) - 1 - int(gains.max()))


def estimate_errors(goal: t.Goal, evaluator: Evaluator, sets: Sets, seed: int) -> core.FloatArray:
    """Return the standard errors of the scores of k sets, of shape (k, n_objectives).

    0 where a score does not follow from returns.
    """
    rows = evaluator.evaluate(sets, returns=True).finish()
    if len(rows.returns) < 2:
        return np.zeros((len(rows.done), len(goal.objectives)))
    span = find_span(evaluator)
    drawn = [*resample_scores(goal, rows.metrics, rows.returns, span, ERROR_DRAWS, seed)]
    return np.asarray(np.nan_to_num(np.std(drawn, axis=0, ddof=1)))


FRONTIER, DEFAULT, TODAY = "frontier", "default", "as given"
SHARE = "non_dominated"
"""Share of resampled histories in which no other set beats one in every objective."""
MOST_POINTS, MOST_RIVALS = 64, 128
"""Most sets of a frontier that are listed, and most others that they are resampled with."""
DRAWS = 500


@dataclass(frozen=True, eq=False, repr=False)
class Frontier(SettingsResult):
    """Sets that no other set of a search beats in every objective.

    Attributes
    ----------
    points : DataFrame
        By number, the best in the first objective first: ``point`` (``"frontier"``; ``"default"``
        for the defaults of the policy, ``"as given"`` for the parameters of a policy that was
        given), the objectives in the search, ``fills`` there, the parameters, ``non_dominated``
        (the share of resampled histories in which no other set of the table or next to it beats
        the set in every objective), and ``holdout_`` with each objective.
    trials : DataFrame
        Objectives of all sets that satisfy the constraints, were not ruined and filled an order.
    knee : int
        The row of ``points`` that a study and a walk-forward choose: the knee, farthest from the
        chord between the ends of the frontier; without one, the best of the first objective.
    has_knee : bool
        Whether that row is over 0.05 from the chord, in units of the range of each objective.
    found : int
        Sets on the frontier; of more than 64, those are listed that lie farthest apart.
    unfilled : int
        Sets that filled no order, which are left out.
    """

    points: pd.DataFrame
    trials: pd.DataFrame
    knee: int
    has_knee: bool
    found: int
    unfilled: int

    numbers = ("knee", "has_knee", "found", "unfilled")
    kind = "frontier"
    is_yearly = True
    long_tables = ("trials",)

    @property
    def objectives(self) -> list[str]:
        """The measures that are optimized."""
        return list(self.settings["objectives"])

    @property
    def title(self) -> str:
        return f"{self.settings['policy']}, {' and '.join(map(name_measure, self.objectives))}"

    @property
    def note(self) -> str:
        return f"{self.found:,} of {self.settings['sets']:,} sets"

    @property
    def has_holdout(self) -> bool:
        """Whether the sets were also measured on a holdout."""
        return f"holdout_{self.objectives[0]}" in self.points

    @property
    def chosen_name(self) -> str:
        """What the chosen set is, for a sentence: the knee, or why it is another one."""
        if self.has_knee:
            return "the knee"
        return f"there is no knee: the set with the best {name_measure(self.objectives[0])}"

    @property
    def verdict(self) -> str:
        text = f"{core.capitalize(self.chosen_name)} has {self.describe(self.knee)} in the search"
        if self.has_holdout:
            text += f", and {self.describe(self.knee, 'holdout_')} on the holdout"
        return f"{text}."

    def describe(self, row: int, where: str = "") -> str:
        """Return the objectives of a row of ``points``; ``where="holdout_"`` on the holdout."""
        values = [
            f"{name_measure(name)} {format_value(name, self.points.loc[row, f'{where}{name}'])}"
            for name in self.objectives
        ]
        return ", ".join(values)

    @property
    def notices(self) -> tuple[str, ...]:
        return (*super().notices, *self._list_notices())

    def _list_notices(self) -> Iterator[str]:
        if self.unfilled:
            yield f"{core.count_nouns(self.unfilled, 'set')} that filled no order are left out."
        few = self.points.index[self.points["fills"] < FEW_FILLS]
        if len(few):
            rows = ", ".join(str(row) for row in few)
            yield f"Under {FEW_FILLS} fills, too few to judge: row {rows} of the sets."
        for row in self.points.index[self.points["point"] != FRONTIER]:
            is_beaten = "is beaten" if self.is_beaten(row) else "is not beaten"
            point = self.points.loc[row, "point"]
            yield f"The set {point} {is_beaten} by a set of the search: {self.describe(row)}."

    def is_beaten(self, row: int) -> bool:
        """Return whether a set of the table is beaten by another one in the search."""
        signs = np.array([float(ABOUT[name].better) for name in self.objectives])
        own = signs * self.points.loc[row, self.objectives].to_numpy(dtype=np.float64)
        others = signs * self.trials[self.objectives].to_numpy(dtype=np.float64)
        return bool(is_dominated(np.vstack([own, others]))[0])

    @property
    def details(self) -> str:
        return (
            "No other set of the search beats a set of the frontier in every objective. "
            f"The frontier was chosen among {self.settings['sets']:,} sets on the same bars, and "
            "its measures there are not deflated for this selection; the holdout was never "
            "searched. Shares are of histories that were resampled for all sets together."
        )

    def list_numbers(self) -> list[Headline]:
        chosen: Any = self.points.loc[self.knee]
        where = "at the knee" if self.has_knee else "of the chosen set"
        numbers = []
        for name in self.objectives:
            note = "in the search"
            if self.has_holdout:
                note += f"; {format_value(name, chosen[f'holdout_{name}'])} on the holdout"
            title = f"{name_measure(name)} {where}"
            text = format_value(name, chosen[name])
            numbers.append(Headline(name, title, float(chosen[name]), note=note, text=text))
        return numbers

    def list_parts(self) -> list[Part]:
        pairs = itertools.combinations(self.objectives, 2)
        heads = {
            SHARE: Head("not beaten", "share of resampled histories", "percent"),
            **{f"{before}{k}": Head(name_measure(k), where, choose_style(k))
               for k in self.objectives
               for before, where in (("", "in the search"), ("holdout_", "on the holdout"))},
        }  # fmt: skip
        note = f"Row {self.knee} is the knee: farthest from the chord between the ends."
        if not self.has_knee:
            note = (
                f"No row is over {LEAST_BULGE:g} from the chord between the ends, so there is no "
                f"knee; row {self.knee} is chosen."
            )
        return [
            Part("frontier", "The frontier", "No set beats a blue one in every objective.", (
                *(self._draw_pair(*pair) for pair in pairs),
                ShownTable(self.points, "Sets", note, Head("row"), heads),
            ), shows="both")
        ]  # fmt: skip

    def _draw_pair(self, y: str, x: str) -> ShownChart:
        parts = {"all sets": self.trials}
        for name in (FRONTIER, DEFAULT, TODAY):
            parts[name] = self.points[self.points["point"] == name]
        name_chosen = "knee" if self.has_knee else "chosen"
        parts[name_chosen] = self.points.loc[[self.knee]]
        drawn = pd.concat({name: each.set_index(x)[y] for name, each in parts.items()}, axis=0)
        table = pd.DataFrame({name: drawn.where(drawn.index.get_level_values(0) == name)
                              for name in parts if len(parts[name])}).droplevel(0)  # fmt: skip
        axes = (("x", x), ("y", y))
        return ShownChart(
            f"frontier-{y}-{x}", f"{name_measure(y)} and {name_measure(x)}", "", table, "cloud",
            {"all sets": "neutral", FRONTIER: "accent", DEFAULT: "loss", TODAY: "step_3",
             name_chosen: "ink"},
            name_measure(x), name_measure(y), has_legend=True, height=420,
            percent="".join(axis for axis, name in axes if choose_style(name) == "percent"),
        )  # fmt: skip


def choose_style(name: str) -> str:
    return "percent" if ABOUT[name].unit.startswith("fraction") else "decimals"


def format_value(name: str, value: Any) -> str:
    return STYLES[choose_style(name)](float(value))


def choose_apart(scores: core.FloatArray, most: int) -> core.IntArray:
    """Return the rows of points that lie farthest apart, the best of each objective first."""
    width = np.ptp(scores, axis=0)
    scaled = scores / np.where(width > 0.0, width, 1.0)
    chosen = [*dict.fromkeys(np.argmax(scaled, axis=0).tolist())]
    apart = np.min([np.linalg.norm(scaled - scaled[k], axis=1) for k in chosen], axis=0)
    while len(chosen) < min(most, len(scores)) and apart.max() > 0.0:
        chosen.append(int(np.argmax(apart)))
        apart = np.minimum(apart, np.linalg.norm(scaled - scaled[chosen[-1]], axis=1))
    return np.array(chosen)


def build_frontier(
    task: StudyTask, trials: t.Batch, goal: t.Goal, objectives: Sequence[str], draws: int
) -> Frontier:
    places = t.find_distinct(trials.sets)
    scores = t.grade_feasible(goal, trials)[places]
    front = np.flatnonzero(~is_dominated(scores))
    if not len(front):
        lack = describe_lack(task, trials, len(places), goal)
        raise core.ParameterError(f"a frontier needs a set that can be chosen: {lack}")
    listed = front[choose_apart(scores[front], MOST_POINTS)]
    knee = find_knee(scores[front])
    chosen = front[knee.row]  # the best set of the study
    if chosen not in listed:
        listed = np.append(listed[: MOST_POINTS - 1], chosen)
    listed = listed[np.argsort(-scores[listed, 0], kind="stable")]
    left = np.setdiff1d(np.flatnonzero(~np.isnan(scores).any(axis=1)), listed)
    near = left[:0]
    while len(left) and len(near) < MOST_RIVALS:
        beaten = is_dominated(scores[left])
        near, left = np.append(near, left[~beaten]), left[beaten]
    near = near[:MOST_RIVALS]
    given = list_given(task)
    roles = [FRONTIER] * len(listed) + [*given]
    sets = t.join_columns([take_sets(trials.sets, places[listed]), *map(task.read, given.values())])
    everything = t.join_columns([sets, take_sets(trials.sets, places[near])])
    rows = task.seen.evaluate(everything, returns=True).finish()
    is_usable = (rows.metrics["ruined"] == 0.0) & ~np.isnan(goal.grade(rows.metrics)).any(axis=1)
    shares = np.full(len(rows.done), np.nan)
    if len(rows.returns) > 1:
        usable = take_sets(rows.metrics, is_usable)
        span, seed = find_span(task.seen), task.problem.seed
        drawn = resample_scores(goal, usable, rows.returns[:, is_usable], span, draws, seed)
        shares[is_usable] = np.mean([~is_dominated(each) for each in drawn], axis=0)
    n = len(roles)
    columns = {"point": roles, **{name: rows.metrics[name][:n] for name in objectives}}
    columns["fills"] = rows.metrics["fills"][:n]
    columns |= {SHARE: shares[:n], **{name_column(k): each for k, each in sets.items()}}
    if task.has_holdout:
        for k in range(n):
            task.note_look(take_sets(sets, k))
        held_out = task.whole.evaluate(sets, first=task.split).finish()
        columns |= {f"holdout_{name}": held_out.metrics[name] for name in objectives}
    table = pd.DataFrame(columns, index=pd.RangeIndex(1, n + 1, name="row"))
    kept = ~np.isnan(scores).any(axis=1)
    tried = pd.DataFrame({k: trials.metrics[k][places[kept]] for k in objectives})
    facts = ("policy", "constraints", "sampler", "seed", "holdout", "searched", "id")
    settings = {name: task.facts[name] for name in facts}
    settings |= {"policy": task.facts["policy"]["name"], "objectives": list(objectives)}
    settings["held"] = find_held(task.facts)
    settings |= {"sets": len(places), "draws": draws}
    row = 1 + int(np.flatnonzero(listed == chosen)[0])
    return Frontier(
        table,
        tried,
        knee=row,
        has_knee=knee.is_knee,
        found=len(front),
        unfilled=int(np.sum(trials.metrics["turnover"][places] == 0.0)),
        settings=settings,
        market=task.problem.market,
    )


def list_given(task: StudyTask) -> dict[str, dict[str, Any]]:
    problem, own = task.problem, task.whole.varied
    names = [*problem.names, *problem.space.fixed]
    today = {**{name: own.settings[name].value for name in names}, **problem.space.fixed}
    defaults = {each.name: each.default for p in own.policy_class.parameters().values()
                for each in p.list_elements()}  # fmt: skip
    plain = {name: today[name] if name in problem.space.fixed else defaults.get(name, today[name])
             for name in names}  # fmt: skip
    found = {DEFAULT: plain}
    if not isinstance(own.policy, type) and plain != today:
        found[TODAY] = today
    missing = (None, MISSING)
    return {k: each for k, each in found.items() if not any(v in missing for v in each.values())}


TREES, LEAF, FEATURES = 32, 2, 0.75
"""Trees of the forest, the least sets of a leaf, and the share of parameters of a split."""
CELLS, POINTS = 48, 4096
"""Cells of an axis on which marginals are averaged, and points of the variance of the forest."""
MOST_FITTED = 1024
"""Sets that the trees are fitted to; of more, those that lie evenly among them."""
LEAST_FITTED = 500
"""Least sets: with fewer, a parameter that explains a fifth of the score is often missed."""
PERMUTATIONS = 19
"""Forests of permuted scores: the share of a score without any effect exceeds the largest of them
with probability 1 / 20."""


class Explained(NamedTuple):
    """Variance that a forest explains: by parameters (d,), by pairs beyond them (n_pairs,), in all.

    In squares of the sum of the trees' values. Pairs are in the order of
    ``itertools.combinations``.
    """

    alone: core.FloatArray
    together: core.FloatArray
    total: float


def measure_importance(space: Space, trials: t.Batch, seed: int) -> pd.DataFrame:
    """Return the share of the variance of a score that each parameter and pair explains.

    Functional ANOVA of a random forest over the declared scales: Hutter, Hoos and Leyton-Brown
    (2014), An Efficient Approach for Assessing Hyperparameter Importance, ICML; here of the mean of
    the trees. Of each tree alone, S2 of Ishigami's function came to .33 to .37 in place of .44.

    A share is over the noise if it exceeds the largest, over all parameters (or all pairs), in
    each of 19 forests that are fitted to permuted scores: Altmann, Tolosi, Sander and Lengauer
    (2010), Permutation importance: a corrected feature importance measure, Bioinformatics 26(10).
    """
    rng = np.random.default_rng([seed, 5])
    cube, scores = read_scored(space, trials, rng)
    points = draw_cube(cube.shape[1], POINTS, rng)

    explained = explain_scores(cube, scores, points, rng)
    permuted = [
        explain_scores(cube, rng.permutation(scores), points, rng) for _ in range(PERMUTATIONS)
    ]

    # The largest over parameters, so that a search of many has no larger chance of a false one.
    noise_alone = max(float(np.max(forest.alone)) for forest in permuted)
    noise_together = max(float(np.max(forest.together, initial=0.0)) for forest in permuted)
    noise = [noise_alone] * len(explained.alone) + [noise_together] * len(explained.together)

    # Shares are of the fitted forest, also those of noise: a forest of noise varies less.
    total = explained.total if explained.total > 0.0 else math.inf
    share = np.concatenate([explained.alone, explained.together]) / total
    names = [dimension.name for dimension in space.dimensions]
    names += [f"{one} x {other}" for one, other in itertools.combinations(names, 2)]
    table = pd.DataFrame(
        {"share": share, "noise": np.divide(noise, total)}, index=pd.Index(names, name="parameters")
    )
    table.loc["rest"] = 1.0 - share.sum(), math.nan
    table["is_over_noise"] = table["share"] > table["noise"]
    return table


def read_scored(
    space: Space, trials: t.Batch, rng: np.random.Generator
) -> tuple[core.FloatArray, core.FloatArray]:
    """Return the places (n, d) of different sets in the unit cube, and their scores (n,).

    A ruined set has the worst finite score; sets that failed are left out.
    """
    scores = np.where(trials.violation < np.inf, trials.scores, -np.inf)
    has_run = np.array([error == "" for error in trials.errors], dtype=np.bool_)

    rows = t.find_distinct(trials.sets)
    rows = t.spread_sample(space, trials.sets, rows[has_run[rows]], MOST_FITTED, rng)
    scores = scores[rows]
    finite = scores[np.isfinite(scores)]
    if len(rows) < LEAST_FITTED or not len(finite) or not np.ptp(finite) > 0.0:
        raise core.ParameterError(
            f"importance needs {LEAST_FITTED} sets whose scores differ, got {len(finite)}; search "
            "with more trials"
        )

    scores = np.where(np.isfinite(scores), scores, finite.min())
    return space.encode(take_sets(trials.sets, rows)), scores


def explain_scores(
    cube: core.FloatArray,
    scores: core.FloatArray,
    points: core.FloatArray,
    rng: np.random.Generator,
) -> Explained:
    """Return what parameters and pairs explain in a forest that is fitted to scores (n,)."""
    from sklearn.tree import DecisionTreeRegressor  # noqa: PLC0415 - takes seconds to import

    d = cube.shape[1]
    pairs = [*itertools.combinations(range(d), 2)]
    predicted = np.zeros(len(points))
    alone = np.zeros((d, CELLS))
    joint = np.zeros((len(pairs), CELLS, CELLS))

    for _ in range(TREES):
        rows = rng.integers(len(cube), size=len(cube))
        tree = DecisionTreeRegressor(
            min_samples_leaf=LEAF, max_features=FEATURES, random_state=int(rng.integers(2**31))
        )
        tree.fit(cube[rows], scores[rows])
        tree_alone, tree_joint = average_leaves(tree.tree_, pairs)
        predicted += tree.predict(points)
        alone += tree_alone
        joint += tree_joint

    own, beyond = measure_marginals(alone, joint, pairs)
    return Explained(own, beyond, float(np.var(predicted)))


class Leaves(NamedTuple):
    """Boxes of the leaves of a tree, ``low`` to ``high`` (n, d), and values (n,)."""

    low: core.FloatArray
    high: core.FloatArray
    value: core.FloatArray


def list_leaves(tree: Any) -> Leaves:
    """Return the boxes of the leaves of a fitted tree, found level by level from its root."""
    low = np.zeros((tree.node_count, tree.n_features))
    high = np.ones((tree.node_count, tree.n_features))
    level = np.zeros(1, dtype=np.int64)

    while len(level):
        level = level[tree.feature[level] >= 0]  # a leaf splits on no feature
        axis = tree.feature[level]
        cut = tree.threshold[level]
        left = tree.children_left[level]
        right = tree.children_right[level]

        for children in (left, right):
            low[children] = low[level]
            high[children] = high[level]
        high[left, axis] = cut
        low[right, axis] = cut
        level = np.concatenate([left, right])

    is_leaf = tree.feature < 0
    return Leaves(low[is_leaf], high[is_leaf], tree.value[is_leaf].ravel())


def average_leaves(
    tree: Any, pairs: Sequence[tuple[int, int]]
) -> tuple[core.FloatArray, core.FloatArray]:
    """Return what a tree predicts in each cell of each axis, and of each pair, less its mean.

    Of shape (d, n_cells) and (n_pairs, n_cells, n_cells): exact means over all other axes, as
    leaves are boxes.
    """
    leaves = list_leaves(tree)
    width = leaves.high - leaves.low
    volume = width.prod(axis=1)
    weight = volume * (leaves.value - volume @ leaves.value)

    # A leaf adds to a range of cells: plus at its first, minus behind its last, then summed up.
    middle = (np.arange(CELLS) + 0.5) / CELLS
    first = np.searchsorted(middle, leaves.low)
    stop = np.searchsorted(middle, leaves.high)

    alone = np.zeros((tree.n_features, CELLS + 1))
    for k in range(tree.n_features):
        height = weight / width[:, k]
        np.add.at(alone[k], first[:, k], height)
        np.add.at(alone[k], stop[:, k], -height)

    joint = np.zeros((len(pairs), CELLS + 1, CELLS + 1))
    for k, (i, j) in enumerate(pairs):
        height = weight / (width[:, i] * width[:, j])
        np.add.at(joint[k], (first[:, i], first[:, j]), height)
        np.add.at(joint[k], (stop[:, i], stop[:, j]), height)
        np.add.at(joint[k], (first[:, i], stop[:, j]), -height)
        np.add.at(joint[k], (stop[:, i], first[:, j]), -height)

    alone = np.cumsum(alone, axis=1)
    joint = np.cumsum(np.cumsum(joint, axis=1), axis=2)
    return alone[:, :CELLS], joint[:, :CELLS, :CELLS]


def measure_marginals(
    alone: core.FloatArray, joint: core.FloatArray, pairs: Sequence[tuple[int, int]]
) -> tuple[core.FloatArray, core.FloatArray]:
    """Return the variances of marginals: of each axis (d,), and of pairs beyond them (n_pairs,)."""
    own = np.mean(alone**2, axis=1)
    beyond = np.mean(joint**2, axis=(1, 2))
    for k, (one, other) in enumerate(pairs):
        beyond[k] -= own[one] + own[other]
    return own, np.maximum(beyond, 0.0)
