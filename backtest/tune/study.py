"""Study: what a search has found, and how much of it is luck."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base.errors import ParameterError, PolicyError
from backtest.base.json_values import to_plain
from backtest.measures.ranking import pareto
from backtest.sweep.sets.set_checks import check_sets
from backtest.sweep.sets.sets import Trio, build_trio, to_plain_value
from backtest.sweep.tabulate import PLATEAU, ROBUST, STAGE, take
from backtest.tune.holdout import count_looks, record_look
from backtest.tune.journal import Batch
from backtest.tune.luck import Verdict
from backtest.tune.plateau import NEIGHBOUR
from backtest.tune.search_loop import find_knee
from backtest.tune.trials import (
    find_distinct,
    gather,
    is_feasible,
    name_scores,
    tabulate_trials,
)

if TYPE_CHECKING:
    from backtest.account.account import Account
    from backtest.engine.result import Result
    from backtest.market.market import Market
    from backtest.policy.policy import Policy
    from backtest.sweep.evaluator import Evaluator
    from backtest.venue.venue import Venue


class Outcome(NamedTuple):
    """What a finished study has concluded.

    Attributes
    ----------
    best : int
        The trial that won; -1 where none keeps the constraints.
    candidates : list of int
        The trials that were judged by their neighbours.
    robust, plateau : list of list of float
        Their low quantile and the median of their neighbours, per objective.
    verdict : Verdict
        How much is luck.
    warnings : list of str
        What a reader must know.
    holdout : dict of str to float
        The measures of the best on the holdout; empty without one.
    chosen_by : str
        ``"robust_score"``; ``"kept"`` where no candidate has one, the share of neighbours that keep
        the constraints; ``"score"`` where robust is off, or too little was judged; empty where
        nothing won, or in a study of an earlier version.
    """

    best: int
    candidates: list[int]
    robust: list[list[float]]
    plateau: list[list[float]]
    verdict: Verdict
    warnings: list[str]
    holdout: dict[str, float]
    chosen_by: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it as data for JSON."""
        data: dict[str, Any] = to_plain({**self._asdict(), "verdict": self.verdict._asdict()})
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Outcome:
        """Return what :meth:`to_dict` wrote, once it is read."""
        known = {**cls._field_defaults, **data}
        content = {name: known[name] for name in cls._fields}
        found = {"other_policies": (), **data["verdict"]}
        verdict = Verdict(**{**found, "other_policies": tuple(found["other_policies"])})
        return cls(**{**content, "verdict": verdict})


class Bench(NamedTuple):
    """What runs the sets of a study: an evaluator of all bars, and the first of the holdout."""

    whole: Evaluator
    split: int


@dataclass(frozen=True, eq=False, repr=False)
class Study:
    """What a search has found.

    Attributes
    ----------
    facts : mapping
        What the study is: data, policy, venue, account, space, objective, budget, seed, versions.
    batches : tuple of Batch
        Everything that was evaluated, in its order.
    outcome : Outcome or None
        What was concluded; None of a study that was interrupted.
    folder : Path or None
        Where it is stored.
    bench : Bench or None
        What runs its sets; None in a study that was loaded without market and policy.
    seen : list of mapping
        The sets that were looked at on the holdout since, where no folder keeps count.
    """

    facts: Mapping[str, Any]
    batches: tuple[Batch, ...]
    outcome: Outcome | None
    folder: Path | None = None
    bench: Bench | None = None
    seen: list[Mapping[str, Any]] = field(default_factory=list)

    # ------------------------------------------------------------------------------------- trials

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
        """How many different sets were ever evaluated, neighbours included."""
        return len(find_distinct(self._rows.sets))

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per set: parameters, measures, error, score, violation, stage.

        Measures are those of the bars of the search. ``score`` is the objective, larger is better
        (``score: name`` for each of several); ``violation`` by how much the constraints are broken,
        infinite for a ruined or failed set; ``error`` why a set failed. The candidates also have
        ``robust_score``, by which they were ranked, and ``plateau``, the median of their
        neighbours. Where a parameter has the name of a measure, or of one of these columns, its
        column is ``policy.name``.
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
        """The rows of the table that keep all constraints and that no other beats in everything.

        Sets that were evaluated as neighbours only are no part of it.
        """
        is_found = (self.table[STAGE] != NEIGHBOUR).to_numpy(copy=True)
        if self.outcome is not None:
            is_found[self.outcome.candidates] = True
        return self.table.iloc[pareto(self._rows.scores, is_feasible(self._rows) & is_found)]

    @cached_property
    def _rows(self) -> Batch:
        return gather(self.batches)

    # --------------------------------------------------------------------------------------- best

    @cached_property
    def best_trial(self) -> int:
        """The row of the table that won; -1 where none keeps the constraints.

        Of several objectives the knee of the front: the set nearest to the best of every
        objective, where the front is stretched to 0 .. 1 in each; where robust, the knee of the
        candidates' robust scores, which may lie off that front. In an unfinished study the best by
        its own score.
        """
        if self.outcome is not None:
            return self.outcome.best
        return find_knee(self._rows.scores, is_feasible(self._rows))

    @property
    def best(self) -> pd.Series | None:
        """The row that won, parameters and measures; None where none keeps the constraints."""
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
                f"a best set must keep the constraints, none of {self.trials:,} does",
                where="Study.best_values",
                cure="loosen the constraints, or search elsewhere: study.table says how far off",
            )
        chosen: dict[str, Any] = take(self._rows.sets, self.best_trial)
        plain = {name: v.item() if isinstance(v, np.generic) else v for name, v in chosen.items()}
        if self.bench is None:
            return plain
        settings = self.bench.whole.settings
        return {name: to_plain_value(settings[name], value) for name, value in plain.items()}

    @property
    def best_policy(self) -> Policy:
        """The policy with the parameters that won, ready for :func:`backtest.run`."""
        return self._best_trio.policy

    @property
    def best_venue(self) -> Venue:
        """The venue with the fields that won."""
        return self._best_trio.venue

    @property
    def best_account(self) -> Account:
        """The account with the fields that won."""
        return self._best_trio.account

    @property
    def _best_trio(self) -> Trio:
        evaluator = self._find_bench("its policy").whole
        return build_trio(evaluator.base, evaluator.settings, self.best_values)

    def replay(self) -> Result:
        """Return the run of the set that won on the whole market, holdout included."""
        return self._find_bench("replay").whole.replay(self.best_values)

    def _find_bench(self, what: str) -> Bench:
        if self.bench is None:
            raise ParameterError(
                f"a study needs its market and policy for {what}, was loaded without",
                where="Study.load",
                cure="load it with Study.load(folder, market=..., policy=...)",
            )
        return self.bench

    # ------------------------------------------------------------------------------------ verdict

    @property
    def verdict(self) -> Verdict | None:
        """How much of the best is luck, in numbers; None of an unfinished study."""
        return None if self.outcome is None else self.outcome.verdict

    @property
    def warnings(self) -> list[str]:
        """What a reader must know, one sentence each."""
        return [] if self.outcome is None else list(self.outcome.warnings)

    @property
    def spending(self) -> str:
        """Why fewer different sets were evaluated than the trials asked for; empty where not."""
        from backtest.tune.trial_budget import explain_spending  # noqa: PLC0415 - only when asked for

        return explain_spending(self)

    @property
    def looks(self) -> int:
        """How often the holdout has been looked at by now, by any study in the store."""
        if self.folder is not None and self.folder.parent.is_dir():
            return count_looks(self.folder.parent, self.facts)
        return len(self.seen) + (0 if self.outcome is None else self.outcome.verdict.looks)

    def look(self, values: Mapping[str, Any]) -> dict[str, float]:
        """Return the measures of a set on the holdout. Each set looked at is counted, and kept.

        The account begins with fresh capital at the first bar of the holdout; what the policy
        observes is computed on all bars. A holdout that was looked at to choose is none any more.

        Parameters
        ----------
        values : mapping
            A set by name, such as :attr:`best_values`.

        Raises
        ------
        ParameterError
            If the study has no holdout or was loaded without its market and policy, or the set is
            none; that counts as no look.
        """
        bench = self._find_bench("a look at the holdout")
        if bench.split >= bench.whole.market.n_bars:
            raise ParameterError(
                "a look needs a holdout, this study has none",
                where="Study.look",
                cure="tune with holdout='25%'",
            )
        here = settle_look(bench, values)
        if self.folder is not None:
            record_look(self.folder.parent, self.facts, here)
        elif here not in [*self.seen, *self._seen_first]:
            self.seen.append(here)
        return look_at(bench, here)

    @property
    def _seen_first(self) -> list[dict[str, Any]]:
        """The set that the search itself looked at: its winner."""
        is_there = self.outcome is not None and self.best_trial >= 0
        return [settle_look(self._find_bench("a look"), self.best_values)] if is_there else []

    def summary(self) -> str:
        """Return what was found and how much of it is luck, for a terminal."""
        from backtest.tune.study_text import write_summary  # noqa: PLC0415 - only when printed

        return write_summary(self)

    def report(self, path: str | Path, format: str | None = None) -> Path:  # noqa: A002
        """Write a report to read; see :meth:`backtest.engine.result.Result.report`."""
        from backtest.report.write import write_report  # noqa: PLC0415 - only when asked for

        return write_report(self, path, format)

    def to_dict(self) -> dict[str, Any]:
        """Return what the study is and what it found, as data for JSON; not the table."""
        best = self.best
        outcome = None if self.outcome is None else self.outcome.to_dict()
        data: dict[str, Any] = to_plain(
            {
                "study": self.facts,
                "folder": None if self.folder is None else str(self.folder),
                "complete": self.complete,
                "trials": self.trials,
                "spending": self.spending,
                "looks": self.looks,
                "best": None if best is None else {"values": self.best_values, **best.to_dict()},
                "outcome": outcome,
            }
        )
        return data

    def __repr__(self) -> str:
        name = self.facts["policy"]["name"]
        best = self.best
        score = math.nan if best is None else best[name_scores(self.objectives)[0]]
        state = "" if self.complete else ", unfinished"
        return (
            f"<Study of {name}: {self.trials:,} sets, best {self.objectives[0]} {score:.4g}{state}>"
        )

    def _repr_html_(self) -> str:
        from backtest.report.notebook import write_study_cell  # noqa: PLC0415 - in notebooks

        return write_study_cell(self)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        market: Market | None = None,
        policy: type[Policy] | Policy | None = None,
        signal: Any = None,
    ) -> Study:
        """Return a stored study, finished or not; nothing in the folder is executed.

        Parameters
        ----------
        folder : str or Path
            The study's own folder.
        market, policy, signal : optional
            What it was made with, to replay its sets; refused where they are others.

        Raises
        ------
        DataError
            If the folder is no study, or a file of it is missing or damaged.
        ParameterError
            If market, policy or signal are not those it was made with.
        """
        from backtest.tune.load_study import load_study  # noqa: PLC0415 - not always needed

        return load_study(Path(folder), market=market, policy=policy, signal=signal)


def settle_look(bench: Bench, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a set with all its parameters, so that one set has one description.

    Raises
    ------
    ParameterError
        If it is none.
    """
    base, settings = bench.whole.base, bench.whole.settings
    held = {name: settings[name].value for name in base.policy_class.parameters()}
    whole = {**{name: value for name, value in held.items() if value is not MISSING}, **values}
    columns = {name: [value] for name, value in whole.items()}
    sets = check_sets(base.policy, base.account, base.venue, columns)
    found = {name: to_plain_value(settings[name], column[0]) for name, column in sets.items()}
    return {
        name: value
        for name, value in sorted(found.items())
        if "." not in name or value != settings[name].value
    }


def look_at(bench: Bench, values: Mapping[str, Any]) -> dict[str, float]:
    """Return the measures of a set on the holdout, with fresh capital at its beginning.

    Raises
    ------
    PolicyError
        If it fails there.
    """
    base = bench.whole.base
    columns = {name: [value] for name, value in values.items()}
    sets = check_sets(base.policy, base.account, base.venue, columns)
    rows = bench.whole.evaluate(sets, first=bench.split)
    if not rows.done.all():
        raise KeyboardInterrupt
    if rows.errors[0]:
        raise PolicyError(
            f"a set must run on the holdout, failed: {rows.errors[0]}",
            where=f"holdout, {dict(values)}",
            cure="run it there alone to see more: bt.run(..., start=...)",
        )
    return {name: float(column[0]) for name, column in rows.metrics.items()}
