"""The base of validations: tables, figures in JSON, and the accounts as saved results."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd

from backtest.base import (
    DataError,
    ParameterError,
    PolicyError,
    SavedResult,
    ShownChart,
    capitalize,
    discard_folder,
    from_plain,
    hash_file,
    name_folder,
    read_json_file,
    repr_plain,
    write_json_file,
)
from backtest.base.result_folders import MANIFEST
from backtest.engine import Result
from backtest.measures import name_measure
from backtest.measures.measure_table import METRICS
from backtest.tune import UNFINISHED, clear_drafts, hold_lock, write_json
from backtest.validation.interval_estimates import (
    ChanceCount,
    Estimate,
    count_better_than_median,
    count_evidence,
)
from backtest.validation.walk_figures import read_figures

if TYPE_CHECKING:
    from backtest.validation.terms import AnyAccount


FIGURES = "figures.json"
ACCOUNTS = "accounts"
TITLE = re.compile(r"(result|fixed)(-\d+)?")


SCATTER = (
    "Each gray point is a set, each blue one a winner. Winners under the dotted line lost against "
    "what they showed in sample; a cloud without slope means that the past does not separate the "
    "sets."
)


class Validation(SavedResult):
    """Base of validations.

    Attributes
    ----------
    figures : mapping
        Headline figures as data.
    """

    more_files = (FIGURES,)
    can_be_resumed = True
    aside = ("policy_module",)
    figures: Mapping[str, Any]

    @property
    def folder_title(self) -> str:
        """What the name of the folder begins with."""
        return f"{self.policy_name} {self.manifest['kind']}"

    @property
    def policy_name(self) -> str:
        """The policy whose parameters are chosen."""
        return str(self.manifest["policy"]["name"])

    @property
    def title(self) -> str:
        """The policy, and the parameters that are chosen."""
        return describe_search(self.manifest)["title"]

    @property
    def deflated_sharpe(self) -> float:
        """The probability that the true Sharpe ratio of the best is above 0, given the trials."""
        return read_figures(self.figures, "deflated_sharpe")

    @property
    def warnings(self) -> list[str]:
        """Warnings, one sentence each."""
        return list(self.figures["warnings"])

    @property
    def notices(self) -> tuple[str, ...]:
        """The warnings."""
        return tuple(f"{capitalize(text)}." for text in self.warnings)

    @property
    def accounts(self) -> Mapping[str, Result]:
        """The accounts that are saved with it, by name."""
        return {}

    @property
    def objective(self) -> str:
        """The objective in words."""
        given = self.manifest["objective"]
        if isinstance(given, Mapping):
            return " + ".join(f"{weight:g} {name_measure(name)}" for name, weight in given.items())
        return name_measure(str(given).partition(" sha256:")[0].removeprefix("-"))

    def list_policies(self) -> Iterable[type]:
        """Return the classes of the policies of the accounts; none of loaded ones."""
        for each in self.accounts.values():
            policies = [*each.policies.values(), *([each.overlay] if each.overlay else [])]
            yield from map(type, policies)

    def _write_more(self, folder: Path) -> Mapping[str, Any]:
        place, seals = folder / ACCOUNTS, {}
        for title, account in self.accounts.items():
            account.save(place / title).rename(place / f".{title}")
            (place / title).rmdir()
            (place / f".{title}").rename(place / title)
            seals[title] = hash_file(place / title / MANIFEST)
        write_json_file({"figures": self.figures, "accounts": seals}, folder / FIGURES)
        return {}

    @classmethod
    def _read_back(
        cls, manifest: dict[str, Any], tables: Mapping[str, pd.DataFrame], folder: Path
    ) -> Self:
        stored = from_plain(read_json_file(folder / FIGURES))
        accounts = {
            title: load_account(folder / ACCOUNTS / title, seal)
            for title, seal in stored["accounts"].items()
        }
        facts = {"figures": stored["figures"], "manifest": manifest}
        own = cls._read_accounts(accounts, manifest)
        fields: dict[str, Any] = {**cls._read_tables(tables), **own, **facts}
        return cls(**fields)

    @classmethod
    def _read_accounts(
        cls, accounts: Mapping[str, Result], manifest: Mapping[str, Any]
    ) -> dict[str, Any]:
        del manifest
        return dict(accounts)

    @classmethod
    def _read_tables(cls, tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
        raise NotImplementedError


def show_choice(trials: pd.DataFrame, what: str) -> ShownChart:
    points = trials.set_index("in_sample")
    drawn = {
        "all sets": points["out_of_sample"].where(~points["is_winner"]),
        "winners": points["out_of_sample"].where(points["is_winner"]),
    }
    return ShownChart(
        "scatter", f"{what} in and out of sample", SCATTER, pd.DataFrame(drawn), "scatter",
        {"all sets": "neutral", "winners": "accent"}, f"{what} in sample",
        f"{what} out of sample", has_legend=True, height=400,
    )  # fmt: skip


def describe_search(manifest: Mapping[str, Any]) -> dict[str, str]:
    name = str(manifest["policy"]["name"])
    varied = ", ".join(str(each["name"]) for each in manifest["space"]["dimensions"])
    return {"policy": name, "title": f"{name} over {varied}"}


def select_metrics(row: Mapping[Any, Any]) -> dict[str, float]:
    return {str(name): value for name, value in row.items() if name in METRICS}


def load_account(folder: Path, seal: str) -> Any:
    path = folder / MANIFEST
    if not path.is_file() or hash_file(path) != seal:
        raise DataError(f"{path}: was changed or truncated after saving, or is missing")
    return Result.load(folder)


@dataclass(frozen=True, eq=False, repr=False)
class WalkRecord(Validation):
    """Contents of a validation; :class:`WalkForward` describes the fields and adds methods."""

    folds: pd.DataFrame
    result: AnyAccount | None
    fixed: AnyAccount
    stability: pd.DataFrame
    trials: pd.DataFrame
    figures: Mapping[str, Any]
    manifest: Mapping[str, Any]
    parts: tuple[AnyAccount, ...] = ()

    @property
    def efficiency(self) -> float:
        """Log growth per year out of sample over that in sample; NaN if that is not positive."""
        return read_figures(self.figures, "efficiency")

    @property
    def efficiency_difference(self) -> float:
        """Log growth per year out of sample less that in sample."""
        return read_figures(self.figures, "efficiency_difference")

    @property
    def pbo(self) -> Estimate:
        """Share of folds whose winner was no better than the median set out of sample."""
        found = {name: read_figures(self.figures["pbo"], name) for name in ("value", "low", "high")}
        return Estimate(**found)

    @property
    def chance(self) -> dict[str, ChanceCount]:
        """Counts of folds beside what chance alone gives.

        ``better_than_median``: winners that were better than the median set out of sample.
        ``searches_with_evidence``: searches whose own deflated Sharpe ratio is 0.95 or more.
        """
        ranks, deflated = (
            self.folds[name].to_numpy(dtype=np.float64) for name in ("rank", "deflated_sharpe")
        )
        return {
            "better_than_median": count_better_than_median(ranks),
            "searches_with_evidence": count_evidence(deflated),
        }


@dataclass(frozen=True, eq=False, repr=False)
class CrossRecord(Validation):
    """Contents of a validation; :class:`CrossValidation` describes the fields and adds methods."""

    splits: pd.DataFrame
    paths: pd.DataFrame
    matrix: pd.DataFrame
    sets: pd.DataFrame
    curves: pd.DataFrame
    trials: pd.DataFrame
    figures: Mapping[str, Any]
    manifest: Mapping[str, Any]

    @property
    def pbo(self) -> Estimate:
        """Share of splits whose winner was no better than the median set out of sample."""
        found = {name: read_figures(self.figures["pbo"], name) for name in ("value", "low", "high")}
        return Estimate(**found)

    @property
    def ranks(self) -> pd.Series:
        """The winner's rank out of sample in each split."""
        return self.splits["rank"]


FORMAT = 1


def name_result(manifest: Mapping[str, Any]) -> str:
    return name_folder(f"{manifest['policy']['name']} {manifest['kind']}", manifest["id"])


def read_store(store: object) -> Path:
    if not isinstance(store, str | Path):
        raise ParameterError(f"store must be a folder, got {repr_plain(store):.60}")
    return Path(store)


def find_finished(
    store: str | Path | None, manifest: Mapping[str, Any], *, resume: bool | None
) -> Path | None:
    if not resume or store is None:
        return None
    folder = read_store(store)
    finished, begun = (folder / f"{k}{name_result(manifest)}" for k in ("", UNFINISHED))
    return finished if (finished / MANIFEST).is_file() and not begun.is_dir() else None


@contextlib.contextmanager
def open_progress(
    store: str | Path | None, manifest: Mapping[str, Any], *, resume: bool | None
) -> Iterator[Path | None]:
    if store is None:
        if resume:
            raise ParameterError(
                "resume needs the store that the validation was started in, got None"
            )
        yield None
        return
    folder = read_store(store) / f"{UNFINISHED}{name_result(manifest)}"
    check_begun(folder, resume=resume)
    with hold_lock(folder):
        clear_drafts(folder)
        write_begun(folder / MANIFEST, manifest)
        try:
            yield folder
        except (ParameterError, PolicyError):  # a resume would end the same way
            discard_folder(folder)
            raise
        discard_folder(folder)


def write_begun(path: Path, manifest: Mapping[str, Any]) -> None:
    if not path.is_file():
        write_json(path, {"format": FORMAT, **manifest})


def check_begun(folder: Path, *, resume: bool | None) -> None:
    if resume and not folder.is_dir():
        raise ParameterError(
            f"{folder.parent}: there is no validation of these data, policy source and settings "
            "to resume"
        )
    if folder.is_dir() and resume is False:
        raise ParameterError(
            f"{folder}: this validation was already started; resume=True continues it"
        )
