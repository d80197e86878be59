"""The base of validations: tables, figures in JSON, and the accounts as saved results."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import pandas as pd

from backtest.base import (
    DataError,
    SavedResult,
    ShownChart,
    capitalize,
    from_plain,
    hash_file,
    read_json_file,
    write_json_file,
)
from backtest.base.result_folders import MANIFEST
from backtest.engine import Result
from backtest.measures import name_measure
from backtest.measures.run_measures import METRICS
from backtest.validation.walk_figures import read_figures

FIGURES = "figures.json"
ACCOUNTS = "accounts"
"""Folder with the accounts, each a saved result of its own."""
TITLE = re.compile(r"(result|fixed)(-\d+)?")
"""Names of the folders of the accounts of a walk; with a number, of one of several markets."""


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
        """Write the figures and the accounts."""
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
        """Return a validation from its manifest, and its tables and figures as files hold them."""
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
        """Return the accounts by field, from those by folder."""
        del manifest
        return dict(accounts)

    @classmethod
    def _read_tables(cls, tables: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
        """Return tables as they are in memory, from those that files hold."""
        raise NotImplementedError


def show_choice(trials: pd.DataFrame, what: str) -> ShownChart:
    """Return the chart of the objective out of sample over that in sample."""
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
    """Return the policy of a search, and a title with the parameters that it chooses."""
    name = str(manifest["policy"]["name"])
    varied = ", ".join(str(each["name"]) for each in manifest["space"]["dimensions"])
    return {"policy": name, "title": f"{name} over {varied}"}


def select_metrics(row: Mapping[Any, Any]) -> dict[str, float]:
    """Return the entries of a row that are metrics of a run."""
    return {str(name): value for name, value in row.items() if name in METRICS}


def load_account(folder: Path, seal: str) -> Any:
    """Load an account of a validation; its manifest must be the one that was saved."""
    path = folder / MANIFEST
    if not path.is_file() or hash_file(path) != seal:
        raise DataError(
            f"{MANIFEST} was changed or truncated after saving, or is missing",
            where=str(path),
            cure="run the validation again, or restore the file",
        )
    return Result.load(folder)
