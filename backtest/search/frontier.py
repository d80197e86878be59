"""Frontier: the sets of a search that no other set beats in every objective."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass
from typing import Any

import numpy as np
import pandas as pd

from backtest import core
from backtest.core.number_text import STYLES, Head
from backtest.core.result_parts import Headline, Part, ShownChart, ShownTable
from backtest.results.manifest import find_held
from backtest.results.measure_table import ABOUT, name_measure
from backtest.results.ranking import LEAST_BULGE, find_knee, is_dominated
from backtest.results.settings_result import SettingsResult
from backtest.search import trials as t
from backtest.search.patience import find_span, resample_scores
from backtest.search.winner import FEW_FILLS, StudyTask, describe_lack
from backtest.sweep import Rows, Sets, count_sets, name_column, take_sets

FRONTIER = "frontier"
DEFAULT = "default"
TODAY = "as given"
SHARE = "non_dominated"
"""Share of resampled histories in which no other set beats one in every objective."""
MOST_POINTS = 64
"""Most sets of a frontier that are listed."""
MOST_RIVALS = 128
"""Most others that they are resampled with."""
DRAWS = 500
FACTS = (
    "policy",
    "constraints",
    "sampler",
    "seed",
    "holdout",
    "searched",
    "id",
)
"""Entries of a study's manifest that a frontier repeats."""


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
            text = f"{text}, and {self.describe(self.knee, 'holdout_')} on the holdout"
        return f"{text}."

    def describe(self, row: int, where: str = "") -> str:
        """Return the objectives of a row of ``points``; ``where="holdout_"`` on the holdout."""
        clauses = []
        for name in self.objectives:
            value = self.points.loc[row, f"{where}{name}"]
            clauses.append(f"{name_measure(name)} {format_value(name, value)}")
        return ", ".join(clauses)

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
            yield f"The {point} set {is_beaten} by a set of the search: {self.describe(row)}."

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
                held_out = format_value(name, chosen[f"holdout_{name}"])
                note = f"{note}; {held_out} on the holdout"

            number = Headline(
                name=name,
                title=f"{name_measure(name)} {where}",
                value=float(chosen[name]),
                note=note,
                text=format_value(name, chosen[name]),
            )
            numbers.append(number)
        return numbers

    def list_parts(self) -> list[Part]:
        pairs = itertools.combinations(self.objectives, 2)
        charts = [self._draw_pair(y, x) for y, x in pairs]
        return [
            Part(
                key="frontier",
                title="The frontier",
                lead="No set beats a blue one in every objective.",
                blocks=(*charts, self._tabulate_points()),
                shows="both",
            )
        ]

    def _tabulate_points(self) -> ShownTable:
        heads = {SHARE: Head("not beaten", "share of resampled histories", "percent")}
        for name in self.objectives:
            title = name_measure(name)
            style = choose_style(name)
            heads[name] = Head(title, "in the search", style)
            heads[f"holdout_{name}"] = Head(title, "on the holdout", style)

        note = f"Row {self.knee} is the knee: farthest from the chord between the ends."
        if not self.has_knee:
            note = (
                f"No row is over {LEAST_BULGE:g} from the chord between the ends, so there is no "
                f"knee; row {self.knee} is chosen."
            )
        return ShownTable(
            self.points,
            caption="Sets",
            note=note,
            labels=Head("row"),
            heads=heads,
        )

    def _draw_pair(self, y: str, x: str) -> ShownChart:
        """Draw all sets and those of the table by two objectives."""
        chosen = "knee" if self.has_knee else "chosen"
        parts = {"all sets": self.trials}
        for name in (FRONTIER, DEFAULT, TODAY):
            parts[name] = self.points[self.points["point"] == name]
        parts[chosen] = self.points.loc[[self.knee]]

        # A column for each part, over the values of all on the x axis.
        points = pd.concat({name: part.set_index(x)[y] for name, part in parts.items()}, axis=0)
        part_of = points.index.get_level_values(0)
        columns = {}
        for name, part in parts.items():
            if len(part):
                columns[name] = points.where(part_of == name)
        percent = [axis for axis, name in (("x", x), ("y", y)) if choose_style(name) == "percent"]
        return ShownChart(
            key=f"frontier-{y}-{x}",
            title=f"{name_measure(y)} and {name_measure(x)}",
            caption="",
            table=pd.DataFrame(columns).droplevel(0),
            kind="cloud",
            colors={
                "all sets": "neutral",
                FRONTIER: "accent",
                DEFAULT: "loss",
                TODAY: "step_3",
                chosen: "ink",
            },
            x=name_measure(x),
            y=name_measure(y),
            has_legend=True,
            height=420,
            percent="".join(percent),
        )


def choose_style(name: str) -> str:
    """Return how an objective is written: fractions in per cent."""
    if ABOUT[name].unit.startswith("fraction"):
        return "percent"
    return "decimals"


def format_value(name: str, value: Any) -> str:
    return STYLES[choose_style(name)](float(value))


def choose_apart(scores: core.FloatArray, most: int) -> core.IntArray:
    """Return the rows of points that lie farthest apart, the best of each objective first.

    ``scores`` (n_points, n_objectives) are better where they are larger. There are at most ``most``
    rows, but for the best of each objective.
    """
    # All objectives count alike, in ranges of their own.
    width = np.ptp(scores, axis=0)
    scaled = scores / np.where(width > 0.0, width, 1.0)

    # The best of each objective, each point once, and the distance of all to the nearest of these.
    chosen = [*dict.fromkeys(np.argmax(scaled, axis=0).tolist())]
    to_nearest = np.full(len(scaled), np.inf)
    for row in chosen:
        to_nearest = np.minimum(to_nearest, measure_distances(scaled, row))

    # The next is always the point whose nearest chosen one is farthest away.
    while len(chosen) < min(most, len(scores)) and to_nearest.max() > 0.0:
        row = int(np.argmax(to_nearest))
        chosen.append(row)
        to_nearest = np.minimum(to_nearest, measure_distances(scaled, row))
    return np.array(chosen)


def measure_distances(points: core.FloatArray, row: int) -> core.FloatArray:
    """Return the distances of points (n, d) from the one in a row, (n,)."""
    return np.asarray(np.linalg.norm(points - points[row], axis=1))


def build_frontier(
    task: StudyTask,
    trials: t.Batch,
    goal: t.Goal,
    objectives: Sequence[str],
    draws: int,
) -> Frontier:
    """Return the frontier of a study, with its sets resampled, and looked at on the holdout."""
    places = t.find_distinct(trials.sets)
    scores = t.grade_feasible(goal, trials)[places]
    front = np.flatnonzero(~is_dominated(scores))
    if len(front) == 0:
        lack = describe_lack(task, trials, len(places), goal)
        raise core.ParameterError(f"a frontier needs a set that can be chosen: {lack}")

    knee = find_knee(scores[front])
    chosen = int(front[knee.row])  # the best set of the study
    listed = choose_listed(scores, front, chosen)
    rivals = choose_rivals(scores, listed)
    references = list_references(task)
    roles = [FRONTIER] * len(listed) + [*references]
    sets = t.join_columns(
        [take_sets(trials.sets, places[listed]), *map(task.read, references.values())]
    )

    # The rivals are resampled with the listed sets, which they may beat by chance.
    everything = t.join_columns([sets, take_sets(trials.sets, places[rivals])])
    rows = task.seen.evaluate(everything, returns=True).finish()
    shares = measure_shares(task, goal, rows, draws)

    # A row for each listed set and reference, without the rivals.
    n = len(roles)
    columns: dict[str, Any] = {"point": roles}
    for name in objectives:
        columns[name] = rows.metrics[name][:n]
    columns["fills"] = rows.metrics["fills"][:n]
    columns[SHARE] = shares[:n]
    for name, values in sets.items():
        columns[name_column(name)] = values
    if task.has_holdout:
        columns |= look_at_holdout(task, sets, objectives)

    is_feasible = ~np.isnan(scores).any(axis=1)
    tried = {name: trials.metrics[name][places[is_feasible]] for name in objectives}
    return Frontier(
        pd.DataFrame(columns, index=pd.RangeIndex(1, n + 1, name="row")),
        pd.DataFrame(tried),
        knee=1 + int(np.flatnonzero(listed == chosen)[0]),
        has_knee=knee.is_knee,
        found=len(front),
        unfilled=int(np.sum(trials.metrics["turnover"][places] == 0.0)),
        settings=describe_frontier(
            task,
            objectives,
            n_sets=len(places),
            draws=draws,
        ),
        market=task.problem.market,
    )


def choose_listed(
    scores: core.FloatArray,
    front: core.IntArray,
    chosen: int,
) -> core.IntArray:
    """Return the rows of a frontier that are listed, the best of the first objective first.

    The chosen set is always among them.
    """
    listed = front[choose_apart(scores[front], MOST_POINTS)]
    if chosen not in listed:
        listed = np.append(listed[: MOST_POINTS - 1], chosen)
    return listed[np.argsort(-scores[listed, 0], kind="stable")]


def choose_rivals(scores: core.FloatArray, listed: core.IntArray) -> core.IntArray:
    """Return the rows of the sets next to those that are listed: frontier behind frontier."""
    left = np.setdiff1d(np.flatnonzero(~np.isnan(scores).any(axis=1)), listed)
    rivals = left[:0]
    while len(left) and len(rivals) < MOST_RIVALS:
        is_beaten = is_dominated(scores[left])
        rivals = np.append(rivals, left[~is_beaten])
        left = left[is_beaten]
    return rivals[:MOST_RIVALS]


def measure_shares(
    task: StudyTask,
    goal: t.Goal,
    rows: Rows,
    draws: int,
) -> core.FloatArray:
    """Return the share of resampled histories in which no other set beats each; NaN if ruined."""
    shares = np.full(len(rows.done), np.nan)
    if len(rows.returns) <= 1:
        return shares

    has_scores = ~np.isnan(goal.grade(rows.metrics)).any(axis=1)
    is_usable = (rows.metrics["ruined"] == 0.0) & has_scores
    drawn = resample_scores(
        goal,
        take_sets(rows.metrics, is_usable),
        rows.returns[:, is_usable],
        find_span(task.seen),
        draws=draws,
        seed=task.problem.seed,
    )
    shares[is_usable] = np.mean([~is_dominated(scores) for scores in drawn], axis=0)
    return shares


def look_at_holdout(
    task: StudyTask,
    sets: Sets,
    objectives: Sequence[str],
) -> dict[str, core.FloatArray]:
    """Return the objectives of sets on the holdout; a store records each look."""
    for place in range(count_sets(sets)):
        task.note_look(take_sets(sets, place))
    rows = task.whole.evaluate(sets, first=task.split).finish()
    return {f"holdout_{name}": rows.metrics[name] for name in objectives}


def describe_frontier(
    task: StudyTask,
    objectives: Sequence[str],
    *,
    n_sets: int,
    draws: int,
) -> dict[str, Any]:
    settings = {name: task.facts[name] for name in FACTS}
    settings |= {
        "policy": task.facts["policy"]["name"],
        "objectives": list(objectives),
        "held": find_held(task.facts),
        "sets": n_sets,
        "draws": draws,
    }
    return settings


def list_references(task: StudyTask) -> dict[str, dict[str, Any]]:
    """Return the sets that a frontier is shown beside: the defaults, and the policy as given.

    A set is left out if a parameter has no value there.
    """
    varied = task.whole.varied
    fixed = task.problem.space.fixed
    names = [*task.problem.names, *fixed]
    today = {**{name: varied.settings[name].value for name in names}, **fixed}

    defaults = {}
    for parameter in varied.policy_class.parameters().values():
        for element in parameter.list_elements():
            defaults[element.name] = element.default
    plain = {**{name: defaults.get(name, today[name]) for name in names}, **fixed}

    references = {DEFAULT: plain}
    if not isinstance(varied.policy, type) and plain != today:
        references[TODAY] = today

    # A set whose values are not all known cannot be run.
    for role, values in [*references.items()]:
        if None in values.values() or MISSING in values.values():
            del references[role]
    return references
