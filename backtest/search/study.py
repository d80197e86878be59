"""Study: the result of :meth:`backtest.Backtest.tune`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from backtest import core
from backtest.account import Account
from backtest.core.result_folders import UNFINISHED, name_result
from backtest.core.result_parts import Headline, Part
from backtest.engine import count_unfilled
from backtest.policies import Policy
from backtest.results import Result, describe_search, find_cautions
from backtest.results.run_record import count_days_between
from backtest.search import trials as t
from backtest.search import winner as w
from backtest.search.equal_risk import name_better
from backtest.search.frontier import DRAWS, Frontier, build_frontier
from backtest.search.growth_test import OWN, GrowthTest
from backtest.search.importance import measure_importance
from backtest.search.problem import read_goal
from backtest.search.signal_shifts import SIGNIFICANT
from backtest.signals import SignalRule
from backtest.sweep import ERROR, Space, name_column, order_columns, take_sets, to_plain_value
from backtest.sweep.sweep_table import PLATEAU, ROBUST, SCORE, STAGE, VIOLATION
from backtest.venue import Venue

OUTCOME = "outcome.json"
PARTS = ("in the search", "on the holdout")
EVEN = 0.5
"""Probability of overfitting above which the verdict mentions it."""


class SearchResult(core.SavedResult):
    """Base of a search and of the validations of one."""

    @property
    def folder_title(self) -> str:
        return f"{self.policy_name} {self.manifest['kind']}"

    @property
    def title(self) -> str:
        """The policy, and the parameters that were searched."""
        return describe_search(self.manifest)["title"]


@dataclass(frozen=True, eq=False, repr=False)
class Study(SearchResult):
    """Result of a search.

    Attributes
    ----------
    manifest : mapping
        Description: data, policy, venue, account, space, objective, budget, seed, versions.
    batches : tuple of Batch
        Everything that was evaluated, in order.
    outcome : Outcome or None
        Conclusion; None in a study that was interrupted.
    store : Path or None
        Folder in which its folder and the looks at its holdout are kept.
    task : StudyTask or None
        Runs its sets; None in a study that was loaded.
    curves : DataFrame or None
        The equity over time, 1 at the start: of up to 129 trials in the search, by their rows as
        text, and of the best trial and constant leverage at its risk also over the holdout. None of
        an unfinished study, and of an account for each market.
    """

    manifest: Mapping[str, Any]
    batches: tuple[t.Batch, ...]
    outcome: w.StudyOutcome | None
    store: Path | None = None
    task: w.StudyTask | None = None
    curves: pd.DataFrame | None = None

    kind = "study"
    call = "Backtest.tune"
    table_names = ("trials", "curves")
    more_files = (OUTCOME,)
    can_be_resumed = True

    def list_numbers(self) -> list[Headline]:
        """Return the headline numbers, the most important first."""
        from backtest.report.study_parts import list_study_numbers  # noqa: PLC0415 - only when it is shown

        return list_study_numbers(self)

    def list_parts(self) -> list[Part]:
        """Return the sections of the page, before those on data and assumptions."""
        from backtest.report.study_parts import list_study_parts  # noqa: PLC0415 - only when it is shown

        return list_study_parts(self)

    def list_assumptions(self) -> tuple[str, ...]:
        """Return what the numbers assume beside the rules of the account, in sentences."""
        from backtest.report.study_parts import list_study_assumptions  # noqa: PLC0415 - only when it is shown

        return list_study_assumptions(self)

    @property
    def heading(self) -> str:
        """The title of the page."""
        from backtest.report.study_parts import write_study_title  # noqa: PLC0415 - only when it is shown

        return write_study_title(self)

    @property
    def details(self) -> str:
        """What the reader must know beside the verdict, in sentences."""
        from backtest.report.study_parts import write_study_details  # noqa: PLC0415 - only when it is shown

        return write_study_details(self)

    @property
    def notices(self) -> tuple[str, ...]:
        """What must be read before any number."""
        from backtest.report.study_parts import list_study_notices  # noqa: PLC0415 - only when it is shown

        return tuple(list_study_notices(self))

    @property
    def complete(self) -> bool:
        """Whether the study is finished; False after Ctrl-C."""
        return self.outcome is not None

    def plot(self) -> Any:
        """Return a Plotly figure of the objective over the first two parameters of the search."""
        from backtest.report.study_parts import draw_study_map  # noqa: PLC0415 - only when it is shown

        return draw_study_map(self)

    @property
    def days_of_parts(self) -> tuple[float, float]:
        """The days of the search and of the holdout, 0 without one."""
        data = self.manifest["data"]
        split = self.manifest["searched"]
        return count_days_between(data["start"], split), count_days_between(split, data["end"])

    @property
    def objective(self) -> str:
        """The name of the objective."""
        return str(self.manifest["objective"])

    @property
    def folder(self) -> Path | None:
        """The folder in which it is stored; None if there is no store."""
        if self.store is None:
            return None
        name = name_result(self.manifest)
        if self.complete:
            return self.store / name
        return self.store / f"{UNFINISHED}{name}"

    @property
    def _is_empty(self) -> bool:
        return not self.batches

    @cached_property
    def _rows(self) -> t.Batch:
        return t.gather(self.batches)

    @cached_property
    def trials(self) -> int:
        """Number of different sets that were evaluated, neighbors included."""
        return len(t.find_distinct(self._rows.sets))

    def count_unfilled(self) -> int:
        """Return the number of different sets that filled no order."""
        rows = self.table.iloc[t.find_distinct(self._rows.sets)]
        return count_unfilled({"turnover": rows["turnover"].to_numpy()})

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per set: parameters, measures, error, score, violation, stage.

        Measures are those of the bars of the search. ``score`` is the objective, larger is better;
        ``violation`` is by how much the constraints are broken, infinite for a set that was
        ruined, failed or filled no order; ``error`` is why a set failed. The candidates
        also have ``robust_score``, by which they were ranked, and ``plateau``, the median of their
        neighbors. The column of a parameter with the name of a measure, or of one of these
        columns, is ``policy.name``.
        """
        trials = self._rows
        parameters = {name_column(name): values for name, values in trials.sets.items()}
        errors = np.array(trials.errors, dtype=object)
        table = pd.DataFrame({**parameters, **trials.metrics, ERROR: errors})
        table = order_columns(table, tuple(parameters)).rename_axis("trial")
        table[SCORE] = trials.scores
        table[VIOLATION] = trials.violation
        table[STAGE] = self._list_stages()
        if self.outcome is None:
            return table

        of_candidates = {ROBUST: self.outcome.robust, PLATEAU: self.outcome.plateau}
        for name, values in of_candidates.items():
            table[name] = np.nan
            table.loc[self.outcome.candidates, name] = values
        return table

    def _list_stages(self) -> np.ndarray:
        """Return the stage in which each set was evaluated on the whole time."""
        stages: list[str] = []
        for batch in self.batches:
            if batch.stage != t.PART:
                stages += [batch.stage] * len(batch.errors)
        return np.array(stages, dtype=object)

    @cached_property
    def best_trial(self) -> int:
        """The row of the table that won; -1 if none satisfies the constraints.

        In an unfinished study, it is the best by its own score.
        """
        if self.outcome is not None:
            return self.outcome.best
        return t.find_best(self._rows)

    @property
    def best(self) -> pd.Series | None:
        """The row that won, parameters and measures; None if none satisfies the constraints."""
        if self.best_trial < 0:
            return None
        return self.table.iloc[self.best_trial]

    @property
    def best_values(self) -> dict[str, Any]:
        """The parameters of the set that won, by name.

        Raises
        ------
        ParameterError
            If no set satisfies the constraints.
        """
        if self.best_trial < 0:
            why = f"{self.trials:,} sets were tried"
            if self.warnings:
                why = self.warnings[0]
            raise core.ParameterError(
                f"no set can be chosen: {why}; study.table has all sets and their measures"
            )

        values: dict[str, Any] = {}
        for name, value in take_sets(self._rows.sets, self.best_trial).items():
            values[name] = value.item() if isinstance(value, np.generic) else value
        if self.task is None:
            return values
        settings = self.task.whole.varied.settings
        return {name: to_plain_value(settings[name], value) for name, value in values.items()}

    @property
    def warnings(self) -> list[str]:
        """Warnings about the result, one sentence each."""
        return [] if self.outcome is None else list(self.outcome.warnings)

    @property
    def verdict(self) -> w.Verdict | None:  # type: ignore[override] # a sentence in other results
        """The selection bias of the best trial, in numbers; None of an unfinished study."""
        return None if self.outcome is None else self.outcome.verdict

    @property
    def best_policy(self) -> Any:
        """The policy with the parameters that won, ready for :func:`backtest.run`.

        A policy by instrument if some have parameters of their own.
        """
        return self._find_task("its policy").whole.varied.build_policies(self.best_values)

    @property
    def best_overlay(self) -> Policy | None:
        """The overlay with the parameters that won, if there is any."""
        return self._find_task("its overlay").whole.varied.build_overlay(self.best_values)

    @property
    def best_venue(self) -> Venue | dict[str, Venue]:
        """The venue with the fields that won, or the venues by instrument."""
        varied = self._find_task("its venue").whole.varied
        venue: Venue | dict[str, Venue] = varied.build_venue(self.best_values)
        return venue

    @property
    def best_account(self) -> Account:
        """The account with the fields that won."""
        return self._find_task("its account").whole.varied.build_account(self.best_values)

    @property
    def best_signal(self) -> SignalRule | None:
        """The rule of the signal with the parameters that won; None unless some were searched."""
        return self._find_task("its signal").whole.varied.build_signal(self.best_values)

    def replay(self) -> Result:
        """Return the run of the set that won on the whole market, holdout included."""
        return self._find_task("replay").whole.replay(self.best_values)

    def replay_holdout(self) -> Result:
        """Return the run of the set that won on the holdout alone, from fresh capital.

        Raises ParameterError if there is none, if the study was loaded, or if each market had an
        account of its own.
        """
        task = self._find_task("a run on the holdout")
        if not task.has_holdout or task.whole.is_pooled:
            why = "has one account for each market" if task.has_holdout else "has none"
            raise core.ParameterError(
                f"a run on the holdout needs one account and a holdout, and this study {why}"
            )
        return task.whole.replay(self.best_values, first=task.split)

    def _find_task(self, what: str) -> w.StudyTask:
        if self.task is None:
            raise core.ParameterError(
                f"{what} needs the market, and a loaded study has none; Backtest.tune of the same "
                "arguments with resume=True returns the study with it"
            )
        return self.task

    @property
    def looks(self) -> int | None:
        """Number of sets that studies in the store have evaluated on the holdout so far.

        None if there is a holdout, and no store counts them.
        """
        if self.store is not None:
            return len(t.read_notes(self.store, t.LOOKS, self.manifest))
        return 0 if self.outcome is None else self.outcome.verdict.looks

    def look(self, values: Mapping[str, Any]) -> dict[str, float]:
        """Return the measures of a set on the holdout. A store records each such set.

        The account begins with fresh capital at the first bar of the holdout; what the policy
        observes is computed on all bars. A holdout that was used to choose a set is no longer one.

        Parameters
        ----------
        values : mapping
            A set by name, such as :attr:`best_values`.

        Raises
        ------
        ParameterError
            If the study has no holdout or was loaded, or if the set is invalid; this does not
            count as a look.
        """
        task = self._find_task("a look at the holdout")
        if not task.has_holdout:
            raise core.ParameterError("a look needs a holdout, and this study has none")
        sets = task.read(values)
        task.note_look(values)
        return task.measure_holdout(sets)

    @core.checked
    def frontier(
        self,
        objectives: Sequence[str] | None = None,
        *,
        draws: int = DRAWS,
    ) -> Frontier:
        """Return the sets that no other set of the study beats in every objective.

        Sets that were ruined, break a constraint or filled no order never enter. Each set that is
        listed is looked at on the holdout, and a store counts these looks.

        Parameters
        ----------
        objectives : sequence of str, optional
            Two or three measures of the table; more or less is better as they say. By default those
            of a study of several.
        draws : int
            Histories that are resampled for the share in which a set is not beaten.

        Raises
        ------
        ParameterError
            If the study was loaded, a measure has no direction or was not measured, or no set keeps
            the constraints.
        """
        task = self._find_task("a frontier")
        core.Whole(1).check("draws", draws)
        if objectives is None:
            objectives = self.manifest["objective_source"]
        if isinstance(objectives, str | Mapping):
            raise core.ParameterError(
                f"a frontier needs two or three objectives, got {objectives!r}"
            )

        names = list(objectives)
        goal = read_goal(names, None)
        for name in names:
            if name not in self._rows.metrics:
                raise core.ParameterError(
                    f"an objective must have been measured in the study, got {name}; "
                    "Backtest.frontier measures it"
                )
        return build_frontier(task, self._rows, goal, names, draws)

    def importance(self) -> pd.DataFrame:
        """Return the share of the variance of the score that each parameter and pair explains.

        Returns
        -------
        DataFrame
            By parameter, pair (``"x x y"``: of both together, beyond each alone) and ``"rest"``
            (``"rest of the variance"`` beside a parameter of that name): ``share``, over the
            declared ranges on their scales; ``noise``, the largest share of any parameter (or
            pair) in 19 forests of permuted scores, which a score without effects exceeds in one
            search of 20; ``is_over_noise``. Sets that were ruined or filled no order have the
            worst finite score.

        Raises
        ------
        ParameterError
            If fewer than 500 sets have scores that differ.

        Notes
        -----
        Functional ANOVA of a random forest: Hutter, Hoos and Leyton-Brown (2014),
        An Efficient Approach for Assessing Hyperparameter Importance, ICML. Permutations: Altmann,
        Tolosi, Sander and Lengauer (2010), Permutation importance: a corrected feature importance
        measure, Bioinformatics 26(10).
        """
        space = Space.read(self.manifest["space"])
        return measure_importance(space, self._rows, int(self.manifest["seed"]))

    @property
    def note(self) -> str:
        if self.complete:
            return f"{self.trials:,} sets"
        return f"{self.trials:,} sets, unfinished"

    @property
    def has_evidence(self) -> bool:
        """Whether the best trial beats constant leverage at equal risk by more than noise.

        Its log growth is higher over search and holdout, with a p-value of at most 0.05 that is
        adjusted for the independent trials, and higher on the holdout if there is one. Of a policy
        in and out of the market by its columns, and of the rule of a signal, the p-value is the
        share of shifts in time whose best set has as high an objective; of a rule, a gain over
        search and holdout together is enough.
        """
        return self.verdict is not None and self.verdict.is_evidence

    @property
    def verdict_text(self) -> str:
        """Whether the best trial beats constant leverage at equal risk, in a sentence."""
        if not self.trials:
            return "no verdict: nothing was evaluated"
        if self.verdict is None:
            return "no verdict yet: the study is not finished"
        if self.best is None:
            return f"no best trial: {self.warnings[0]}"
        return describe_evidence(self.verdict)

    def list_remarks(self) -> Iterator[str]:
        """Yield the sentences under the figures of the verdict."""
        verdict = self.verdict
        if verdict is None or self.best is None:
            return

        yield from describe_test(verdict)
        growth = verdict.growth
        if not math.isnan(growth.holdout_difference):
            gap = core.format_percent(growth.holdout_difference, is_signed=True)
            fills = core.count_nouns(growth.holdout_fills, "fill")
            text = f"On the holdout the difference is {gap} a year with {fills}"
            if growth.holdout_fills < w.FEW_FILLS:
                text = f"{text}, under {w.FEW_FILLS}, too few to judge"
            yield f"{text}."
        if verdict.is_evidence and verdict.overfitting > EVEN:
            yield (
                "The best set of one half of the time was no better than the median in the other "
                f"half in {100.0 * verdict.overfitting:.0f} % of the splits."
            )

        lines_of_parts = self.outcome.lines if self.outcome else ()
        for part, lines, days in zip(PARTS, lines_of_parts, self.days_of_parts, strict=False):
            better = name_better(lines, lines[OWN], days=days)
            if better:
                yield f"{part.capitalize()}, {better}."

    def list_measures(self) -> Mapping[str, float]:
        best = self.best
        if best is None:
            return {}
        return {name: float(best[name]) for name in self._rows.metrics if name != t.DECIDED}

    def to_dict(self) -> dict[str, Any]:
        best = None
        if self.best is not None:
            best = {"values": self.best_values, **self.best.to_dict()}
            best["note"] = find_cautions(best)
        data: dict[str, Any] = core.to_plain(
            {
                "study": self.manifest,
                "complete": self.complete,
                "folder": None if self.folder is None else str(self.folder),
                "trials": self.trials,
                "looks": self.looks,
                "best": best,
                "outcome": None if self.outcome is None else self.outcome.to_dict(),
            }
        )
        return data

    def __repr__(self) -> str:
        best = self.best
        score = math.nan if best is None else best[SCORE]
        state = "" if self.complete else ", unfinished"
        return (
            f"<Study of {self.policy_name}: {self.trials:,} sets, best {self.objective} "
            f"{score:.4g}{state}>"
        )

    def list_policies(self) -> Iterable[type]:
        return [self.task.whole.varied.policy_class] if self.task else []

    def _lay_out(self) -> dict[str, pd.DataFrame | None]:
        tables = [t.lay_out_batch(batch, k) for k, batch in enumerate(self.batches)]
        trials = pd.concat(tables or [pd.DataFrame()], ignore_index=True)
        return {"trials": trials, "curves": self.curves}

    def _write_more(self, folder: Path) -> None:
        outcome = None if self.outcome is None else self.outcome.to_dict()
        core.write_json_file({"outcome": outcome}, folder / OUTCOME)

    @classmethod
    def _read_back(
        cls,
        manifest: dict[str, Any],
        tables: Mapping[str, Any],
        folder: Path,
    ) -> Self:
        stored = core.from_plain(core.read_json_file(folder / OUTCOME))["outcome"]
        outcome = TypeAdapter(w.StudyOutcome | None).validate_python(stored)
        table = tables["trials"]
        batches = []
        if not table.empty:
            batches = [t.read_batch(rows) for _, rows in table.groupby("batch")]
        return cls(
            manifest,
            tuple(batches),
            outcome,
            folder.parent,
            curves=tables["curves"],
        )

    @staticmethod
    def _read_progress(folder: Path, manifest: Mapping[str, Any]) -> str:  # noqa: ARG004
        paths = sorted((folder / t.TRIALS).glob("[0-9]*.parquet"))
        n_sets = 0
        for path in paths:
            table = t.load_batch(path)
            if len(table) and table["stage"][0] != t.PART:
                n_sets += len(table)
        return f"{n_sets:,} sets"


def describe_evidence(verdict: w.Verdict) -> str:
    """Return whether the best trial beats its benchmark at equal risk, by which p-value."""
    signal = verdict.signal
    if signal is None or signal.untested:
        benchmark = w.UNSIGNALLED if verdict.is_unsignalled else "constant leverage at equal risk"
        return describe_growth(verdict.growth, benchmark)

    claim = "evidence" if signal.is_evidence else "no evidence"
    parts = [describe_gain(signal.gain, signal.holdout_gain, verdict.growth)]
    parts.append(f"p {core.format_p_value(signal.p_value)} of shifts in time")
    return f"{claim} that the best trial beats {signal.benchmark}: {'; '.join(parts)}"


def describe_gain(gain: float, holdout_gain: float, growth: GrowthTest) -> str:
    """Return a difference in log growth with its own p-value, and a loss on the holdout."""
    text = f"{core.format_percent(gain, is_signed=True)} of log growth a year"
    if not growth.untested:
        text = f"{text}, adjusted p {core.format_p_value(growth.p_adjusted)}"
    if holdout_gain <= 0.0:
        loss = core.format_percent(holdout_gain, is_signed=True)
        text = f"{text}; {loss} a year on the holdout"
    return text


def describe_test(verdict: w.Verdict) -> Iterator[str]:
    """Yield how the p-value of a verdict was found, in sentences."""
    signal = verdict.signal
    if signal is not None and not signal.untested:
        n_reached = round(signal.p_value * signal.shifts)
        shifts = f"{n_reached:,} of {signal.shifts:,} shifts in time"
        if signal.every > 1:
            shifts = f"{shifts} (one in {signal.every} of the days)"
        gain = "with a gain on the holdout too"
        if math.isnan(signal.holdout_gain):
            gain = "and a gain"
        yield (
            f"The best of {format_sets(verdict.trials)} does as well in {shifts}, the unshifted "
            f"one among them; {SIGNIFICANT} or less, {gain}, would be evidence."
        )
        return

    if signal is not None:
        yield f"Shifts of the signal in time were not tested: {signal.untested}."
    growth = verdict.growth
    if not growth.untested:
        trials = core.count_nouns(round(growth.trials), "independent difference")
        sets = format_sets(verdict.trials + verdict.other_trials)
        yield (
            f"The p-value is adjusted by {trials} among {sets}; {SIGNIFICANT} or less, and a gain "
            "on the holdout, would be evidence."
        )


def describe_growth(growth: GrowthTest, benchmark: str) -> str:
    """Return whether the best trial grows more than a benchmark, by the test of growth."""
    claim = f"evidence that the best trial beats {benchmark}"
    if not growth.is_evidence or growth.untested:
        claim = f"no {claim}"
    if growth.untested:
        return f"{claim}: not tested, {growth.untested}"

    return f"{claim}: {describe_gain(growth.difference, growth.holdout_difference, growth)}"


def format_sets(n: int) -> str:
    return "a single parameter set" if n == 1 else f"{n:,} parameter sets"
