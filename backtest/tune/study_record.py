"""The contents of a study: its trials, the best set, the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import ParameterError, to_plain
from backtest.engine import count_unfilled
from backtest.measures import pareto
from backtest.sweep import take_sets, to_plain_value
from backtest.sweep.tabulate import PLATEAU, ROBUST, STAGE
from backtest.tune.holdout import count_looks
from backtest.tune.journal import Batch
from backtest.tune.luck import Verdict
from backtest.tune.plateau import NEIGHBOUR
from backtest.tune.search_loop import find_knee
from backtest.tune.trials import find_distinct, gather, is_feasible, name_scores, tabulate_trials

if TYPE_CHECKING:
    from backtest.tune.single_sets import Bench


class StudyOutcome(NamedTuple):
    best: int
    candidates: list[int]
    robust: list[list[float]]
    plateau: list[list[float]]
    verdict: Verdict
    warnings: list[str]
    holdout: dict[str, float]
    chosen_by: str = ""

    def to_dict(self) -> dict[str, Any]:
        data: dict[str, Any] = to_plain({**self._asdict(), "verdict": self.verdict._asdict()})
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StudyOutcome:
        known = {**cls._field_defaults, **data}
        content = {name: known[name] for name in cls._fields}
        found = {"other_policies": (), **data["verdict"]}
        verdict = Verdict(**{**found, "other_policies": tuple(found["other_policies"])})
        return cls(**{**content, "verdict": verdict})


@dataclass(frozen=True, eq=False, repr=False)
class StudyRecord:
    """Contents of a study, as stored in its files.

    :class:`backtest.tune.study.Study` describes the fields and adds methods that run sets.
    """

    facts: Mapping[str, Any]
    batches: tuple[Batch, ...]
    outcome: StudyOutcome | None
    folder: Path | None = None
    bench: Bench | None = None
    seen: list[Mapping[str, Any]] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether the study is finished; False after Ctrl-C, or of one that was killed."""
        return self.outcome is not None

    @property
    def objectives(self) -> tuple[str, ...]:
        """The names of the objectives."""
        return tuple(self.facts["objectives"])

    @cached_property
    def trials(self) -> int:
        """Number of different sets that were evaluated, neighbors included."""
        return len(find_distinct(self._rows.sets))

    def count_unfilled(self) -> int:
        """Return the number of different sets that filled no order."""
        rows = self.table.iloc[find_distinct(self._rows.sets)]
        return count_unfilled({"turnover": rows["turnover"].to_numpy()})

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per set: parameters, measures, error, score, violation, stage.

        Measures are those of the bars of the search. ``score`` is the objective, larger is better
        (``score: name`` for each of several); ``violation`` is by how much the constraints are
        broken, infinite for a ruined or failed set; ``error`` is why a set failed. The candidates
        also have ``robust_score``, by which they were ranked, and ``plateau``, the median of their
        neighbors. The column of a parameter with the name of a measure, or of one of these
        columns, is ``policy.name``.
        """
        table = tabulate_trials(self.batches, name_scores(self.objectives))
        if self.outcome is not None:
            for prefix, values in ((ROBUST, self.outcome.robust), (PLATEAU, self.outcome.plateau)):
                for k, name in enumerate(name_scores(self.objectives, prefix)):
                    table[name] = np.nan
                    column = [row[k] for row in values]
                    table.loc[self.outcome.candidates, name] = column
        return table

    @property
    def front(self) -> pd.DataFrame:
        """The rows of the table on the Pareto front: no other is better in every objective.

        They keep all constraints. Sets that were evaluated only as neighbors are left out.
        """
        is_found = (self.table[STAGE] != NEIGHBOUR).to_numpy(copy=True)
        if self.outcome is not None:
            is_found[self.outcome.candidates] = True
        return self.table.iloc[pareto(self._rows.scores, is_feasible(self._rows) & is_found)]

    @cached_property
    def _rows(self) -> Batch:
        return gather(self.batches)

    @cached_property
    def best_trial(self) -> int:
        """The row of the table that won; -1 if none keeps the constraints.

        With several objectives, this is the knee of the front: the set nearest to the best of
        every objective, with the front scaled to 0 .. 1 in each. With ``robust``, it is the knee of
        the candidates' robust scores, which may lie off that front. In an unfinished study, it is
        the best by its own score.
        """
        if self.outcome is not None:
            return self.outcome.best
        return find_knee(self._rows.scores, is_feasible(self._rows))

    @property
    def best(self) -> pd.Series | None:
        """The row that won, parameters and measures; None if none keeps the constraints."""
        return None if self.best_trial < 0 else self.table.iloc[self.best_trial]

    @property
    def best_values(self) -> dict[str, Any]:
        """The parameters of the set that won, by name.

        Raises
        ------
        ParameterError
            If no set keeps the constraints.
        """
        if self.best_trial < 0:
            raise ParameterError(
                f"a best set must keep the constraints, none of {self.trials:,} does; study.table "
                "says how far off"
            )
        chosen: dict[str, Any] = take_sets(self._rows.sets, self.best_trial)
        plain = {name: v.item() if isinstance(v, np.generic) else v for name, v in chosen.items()}
        if self.bench is None:
            return plain
        settings = self.bench.whole.settings
        return {name: to_plain_value(settings[name], value) for name, value in plain.items()}

    @property
    def verdict(self) -> Verdict | None:
        """How much of the best is luck, in numbers; None of an unfinished study."""
        return None if self.outcome is None else self.outcome.verdict

    @property
    def warnings(self) -> list[str]:
        """Warnings about the result, one sentence each."""
        return [] if self.outcome is None else list(self.outcome.warnings)

    @property
    def looks(self) -> int:
        """How often any study in the store has looked at the holdout so far."""
        if self.folder is not None and self.folder.parent.is_dir():
            return count_looks(self.folder.parent, self.facts)
        return len(self.seen) + (0 if self.outcome is None else self.outcome.verdict.looks)
