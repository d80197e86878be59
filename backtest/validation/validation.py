"""The base of validations: figures in JSON, accounts as saved results, shares with intervals."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
import pandas as pd

from backtest.base import (
    DataError,
    FloatArray,
    ParameterError,
    SavedResult,
    ShownChart,
    capitalize,
    discard_folder,
    from_plain,
    hash_file,
    is_path,
    read_json_file,
    repr_plain,
    to_plain,
    warn_caller,
    write_json_file,
)
from backtest.base.result_folders import MANIFEST
from backtest.engine import Result
from backtest.engine.checks import warn_once
from backtest.measures import name_measure
from backtest.measures.measure_table import METRICS
from backtest.sweep import Evaluator, on_cluster
from backtest.tune import Problem, find_finished, open_folder, read_problem

V = TypeVar("V", bound="Validation")
FIGURES, ACCOUNTS = "figures.json", "accounts"
TITLE = re.compile(r"result|fixed")
EVIDENCE, EVEN = 0.95, 0.5
"""Least deflated Sharpe ratio that is evidence (without skill it has 1 in 20 chances), and the
probability of overfitting above which a choice is no better than chance."""
CONFIDENCE = 0.95
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
    aside = ("policy_module", "versions")
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
    def pbo(self) -> Estimate:
        """Share of winners that were no better than the median set out of sample."""
        return Estimate(*(read_figures(self.figures["pbo"], k) for k in ("value", "low", "high")))

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
        given = self.manifest["objective_source"]
        if isinstance(given, Mapping):
            return " + ".join(f"{weight:g} {name_measure(name)}" for name, weight in given.items())
        return name_measure(str(given).partition(" sha256:")[0].removeprefix("-"))

    def list_policies(self) -> Iterable[type]:
        """Return the classes of the policies of the accounts; none of loaded ones."""
        for each in self.accounts.values():
            policies = [*each.policies.values(), *([each.overlay] if each.overlay else [])]
            yield from map(type, policies)

    def describe_search(self) -> str:
        """Return what was searched, and by what, in a sentence."""
        facts = self.manifest
        above = f" under {facts['overlay']}" if "overlay" in facts else ""
        rules = f", where {', '.join(facts['constraints'])}" if facts["constraints"] else ""
        return f"Sets of {self.title}{above} were chosen by {self.objective}{rules}."

    def _write_data(self, name: str, **more: Any) -> dict[str, Any]:
        data: dict[str, Any] = to_plain(
            {name: self.manifest, "verdict": self.verdict, "figures": self.figures, **more}
        )
        return data

    def _write_more(self, folder: Path) -> Mapping[str, Any]:
        place, seals = folder / ACCOUNTS, {}
        for title, account in self.accounts.items():
            account.save(place / f".{title}").rename(place / title)
            (place / f".{title}").rmdir()
            seals[title] = hash_file(place / title / MANIFEST)
        write_json_file({"figures": self.figures, "accounts": seals}, folder / FIGURES)
        return {}

    @classmethod
    def _read_back(cls, manifest: dict[str, Any], tables: Mapping[str, Any], folder: Path) -> Self:
        stored = from_plain(read_json_file(folder / FIGURES))
        accounts = {
            title: load_account(folder / ACCOUNTS / title, seal)
            for title, seal in stored["accounts"].items()
        }
        fields = {**cls._read_tables(tables), **accounts}
        return cls(**fields | {"figures": stored["figures"], "manifest": manifest})

    @classmethod
    def _read_tables(cls, tables: Mapping[str, Any]) -> Mapping[str, Any]:
        return tables


def load_account(folder: Path, seal: str) -> Result:
    path = folder / MANIFEST
    if not path.is_file() or hash_file(path) != seal:
        raise DataError(f"{path}: was changed or truncated after saving, or is missing")
    return Result.load(folder)


def describe_search(manifest: Mapping[str, Any]) -> dict[str, str]:
    name = str(manifest["policy"]["name"])
    varied = ", ".join(str(each["name"]) for each in manifest["space"]["dimensions"])
    return {"policy": name, "title": f"{name} over {varied}"}


def read_figures(figures: Mapping[str, Any], name: str) -> float:
    value = figures.get(name)
    return math.nan if value is None else float(value)


def select_metrics(row: Mapping[Any, Any]) -> dict[str, float]:
    return {str(name): value for name, value in row.items() if name in METRICS}


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


# ------------------------------------------------------------------------------- the arguments


def read_validated(arguments: Mapping[str, Any]) -> Problem:
    store = arguments["store"]
    if store is not None and not is_path(store):
        raise ParameterError(f"store must be the path of a folder or None, got {repr_plain(store)}")
    problem = read_problem(arguments)
    dotted = [name for name in problem.names if name.startswith(("account.", "venue."))]
    if dotted:
        raise ParameterError(
            "space of a validation must hold parameters of policies, overlay and signal, got "
            f"{', '.join(dotted)}; fix takes one value each"
        )
    return problem


def make_or_resume(
    cls: type[V],
    problem: Problem,
    manifest: Mapping[str, Any],
    arguments: Mapping[str, Any],
    make: Callable[[Evaluator, Path | None], V],
) -> V:
    """Return a validation that is loaded from the store if it is finished, or made and saved."""
    store = None if arguments["store"] is None else Path(arguments["store"])
    if (finished := find_finished(store, manifest, resume=arguments["resume"])) is not None:
        return cls.load(finished)
    evaluator = problem.build_evaluator(problem.market)
    with open_folder(store, manifest) as folder:
        with warn_once(is_first=False), on_cluster(evaluator, arguments["cluster"]) as working:
            made = make(working, folder)
        if store is not None and folder is not None:
            made.save(store)
            discard_folder(folder)
    for text in made.warnings:
        warn_caller(text)
    return made


# ------------------------------------------------------------------ shares, ranks and chance alone


class Estimate(float):
    low: float
    high: float

    def __new__(cls, value: float, low: float, high: float) -> Estimate:
        found = super().__new__(cls, value)
        found.low, found.high = float(low), float(high)
        return found

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (float(self), self.low, self.high)

    def to_dict(self) -> dict[str, float]:
        return {"value": float(self), "low": self.low, "high": self.high}


def estimate_share(share: float, n: float) -> Estimate:
    """Return a share of n independent cases with its interval; n need not be whole.

    Source: Wilson (1927), J. American Statistical Association 22(158): the interval has the shares
    p with ``|share - p| <= z sqrt(p (1 - p) / n)``.
    """
    if math.isnan(share) or n <= 0.0:
        return Estimate(math.nan, math.nan, math.nan)
    z = NormalDist().inv_cdf(0.5 + 0.5 * CONFIDENCE)
    weight = 1.0 + z * z / n
    middle = (share + 0.5 * z * z / n) / weight
    half = z / weight * math.sqrt(share * (1.0 - share) / n + 0.25 * z * z / (n * n))
    return Estimate(share, max(0.0, middle - half), min(1.0, middle + half))


def order_scores(scores: FloatArray, ruined: FloatArray) -> FloatArray:
    return np.where(np.isfinite(scores) & (ruined == 0.0), scores, -np.inf)


def finite_or_nan(values: FloatArray) -> FloatArray:
    return np.where(np.isfinite(values), values, np.nan)


def find_rank(scores: FloatArray, row: int) -> float:
    n = len(scores)
    if n < 2:
        return math.nan
    worse = np.count_nonzero(scores < scores[row])
    equal = np.count_nonzero(scores == scores[row]) - 1
    return float((worse + 0.5 * equal) / (n - 1))


def share_overfit(ranks: FloatArray) -> float:
    known = ranks[~np.isnan(ranks)]
    return float(np.mean(known <= 0.5)) if len(known) else math.nan


class ChanceCount(NamedTuple):
    found: int
    n: int
    expected: float
    p_value: float


def count_by_chance(is_good: np.ndarray, share: float) -> ChanceCount:
    n, found = len(is_good), int(np.count_nonzero(is_good))
    tail = sum(math.comb(n, k) * share**k * (1.0 - share) ** (n - k) for k in range(found, n + 1))
    return ChanceCount(found, n, share * n, min(1.0, tail))
