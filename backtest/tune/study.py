"""Study: the result of :func:`backtest.tune`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backtest.base import (
    Making,
    ParameterError,
    Reportable,
    call_later,
    checked,
    reading_folder,
    to_plain,
    try_read_provenance,
)
from backtest.measures import find_cautions
from backtest.sweep import Trio, build_overlay, build_signal, build_trio
from backtest.tune.holdout import record_look
from backtest.tune.load_study import load_study
from backtest.tune.single_sets import Bench, complete_set, measure_holdout
from backtest.tune.study_record import StudyRecord
from backtest.tune.study_text import explain_spending, write_summary
from backtest.tune.trials import name_scores

if TYPE_CHECKING:
    from backtest.account import Account
    from backtest.engine import Result, SignalRule
    from backtest.market import Market, Markets
    from backtest.policy import Policy
    from backtest.venue import Venue


class Study(StudyRecord, Reportable):
    """Result of a search.

    Attributes
    ----------
    facts : mapping
        Description: data, policy, venue, account, space, objective, budget, seed, versions.
    batches : tuple of Batch
        Everything that was evaluated, in order.
    outcome : Outcome or None
        Conclusion; None in a study that was interrupted.
    folder : Path or None
        Folder in which it is stored.
    bench : Bench or None
        Runs its sets; None in a study that was loaded without market and policy.
    seen : list of mapping
        Sets that were looked at on the holdout since, if there is no folder to record them.
    """

    kind = "study"
    _plan_validation = staticmethod(
        call_later("backtest.validation.search_validation", "plan_validation")
    )
    _validate_search = staticmethod(
        call_later("backtest.validation.search_validation", "validate_search")
    )

    @cached_property
    def manifest(self) -> Mapping[str, Any]:
        """The facts, with the source of the data among the data, as in other results."""
        facts = to_plain(dict(self.facts))
        return {**facts, "data": {**facts["data"], "source": facts["source"]}}

    @property
    def _is_empty(self) -> bool:
        return not self.batches

    def _find_making(self) -> Making | None:
        if self.folder is None:
            return None
        return try_read_provenance(self.folder, str(self.facts["id"]))

    @property
    def validation(self) -> Any:
        """The validation that ended the search; None unless ``validate`` asked for one."""
        return vars(self).get("_validation")

    @validation.setter
    def validation(self, found: Any) -> None:
        vars(self)["_validation"] = found

    @property
    def best_policy(self) -> Any:
        """The policy with the parameters that won, ready for :func:`backtest.run`.

        A policy by instrument if some have parameters of their own.
        """
        return self._best_trio.policy

    @property
    def best_overlay(self) -> Policy | None:
        """The overlay with the parameters that won, if there is any."""
        evaluator = self._find_bench("its overlay").whole
        return build_overlay(evaluator.base, evaluator.settings, self.best_values)

    @property
    def best_venue(self) -> Venue | dict[str, Venue]:
        """The venue with the fields that won, or the venues by instrument."""
        venue: Venue | dict[str, Venue] = self._best_trio.venue
        return venue

    @property
    def best_account(self) -> Account:
        """The account with the fields that won."""
        return self._best_trio.account

    @property
    def best_signal(self) -> SignalRule | None:
        """The rule of the signal with the parameters that won; None unless some were searched."""
        return build_signal(self._find_bench("its signal").whole.base, self.best_values)

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
                f"{what} needs Study.load(folder, market=..., policy=...), the study was loaded "
                "without them"
            )
        return self.bench

    @property
    def spending(self) -> str:
        """Why fewer different sets than ``trials`` were evaluated; empty if they were not."""
        return explain_spending(self)

    def look(self, values: Mapping[str, Any]) -> dict[str, float]:
        """Return the measures of a set on the holdout. Each set that is looked at is recorded.

        The account begins with fresh capital at the first bar of the holdout; what the policy
        observes is computed on all bars. A holdout that was used to choose a set is no longer one.

        Parameters
        ----------
        values : mapping
            A set by name, such as :attr:`best_values`.

        Raises
        ------
        ParameterError
            If the study has no holdout or was loaded without its market and policy, or if the set
            is invalid; this does not count as a look.
        """
        bench = self._find_bench("a look at the holdout")
        if not bench.has_holdout:
            raise ParameterError("a look needs a holdout, and this study has none")
        here = complete_set(bench, values)
        if self.folder is not None:
            record_look(self.folder.parent, self.facts, here)
        elif here not in [*self.seen, *self._seen_first]:
            self.seen.append(here)
        return measure_holdout(bench, here)

    @property
    def _seen_first(self) -> list[dict[str, Any]]:
        is_there = self.outcome is not None and self.best_trial >= 0
        return [complete_set(self._find_bench("a look"), self.best_values)] if is_there else []

    def summary(self) -> str:
        """Return the result and how much of it is luck, as text for a terminal."""
        return write_summary(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the description and the result of the study for JSON, without the table."""
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
                "best": None
                if best is None
                else {
                    "values": self.best_values,
                    **best.to_dict(),
                    "note": find_cautions(best),
                },
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

    @classmethod
    @checked
    def load(
        cls,
        folder: str | Path,
        *,
        market: Market | Markets | None = None,
        policy: type[Policy] | Policy | None = None,
        signal: Any = None,
        overlay: Policy | None = None,
    ) -> Study:
        """Return a stored study, finished or not; nothing in the folder is executed.

        Parameters
        ----------
        folder : str or Path
            The study's own folder.
        market, policy, signal, overlay : optional
            Those it was made with, to replay its sets.

        Raises
        ------
        DataError
            If the folder is not a study, or a file is missing or damaged.
        ParameterError
            If market, policy, signal or overlay are not those it was made with, or prices of
            collateral are missing.
        """
        path = Path(folder)
        with reading_folder(path):
            return load_study(
                cls, path, market=market, policy=policy, signal=signal, overlay=overlay
            )
