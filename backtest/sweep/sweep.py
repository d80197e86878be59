"""sweep(): run many sets of parameters, and the table of what became of them."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard, get_args

import numpy as np
import pandas as pd

from backtest.account.account import Account
from backtest.base.errors import ParameterError
from backtest.base.fields import Whole
from backtest.base.json_values import to_plain
from backtest.base.number_text import format_value
from backtest.base.provenance import clocked
from backtest.base.ranges import Choice
from backtest.base.units import BoolArray, FloatArray, IntArray
from backtest.engine.loop_driver import Progress
from backtest.engine.manifest import describe_data, find_versions, hash_source, identify
from backtest.engine.no_fill import warn_of_unfilled
from backtest.engine.result import Result
from backtest.engine.run import (
    check_kinds,
    check_settings,
    describe_signal,
    read_signal,
    warn_of_other_days,
)
from backtest.engine.run_warnings import warn_of_last_prices
from backtest.market.market import Market
from backtest.measures.ranking import ObjectiveLike, rank, read_constraints
from backtest.measures.run_measures import METRICS
from backtest.policy.policy import Policy
from backtest.sweep.cluster import on_cluster
from backtest.sweep.evaluator import Evaluator, Metrics, Signal
from backtest.sweep.sets.set_checks import check_sets
from backtest.sweep.sets.sets import (
    Base,
    Sets,
    build_terms,
    count_sets,
    from_frame,
    grid,
    read_settings,
)
from backtest.sweep.sets.space import Method, draw, read_space
from backtest.sweep.tabulate import (
    ERROR,
    TAKEN,
    label,
    order_columns,
    put_dates,
    tabulate,
    take,
    unlabel,
)
from backtest.venue.venue import Venue

if TYPE_CHECKING:
    from backtest.sweep.heatmap import Reduce

SetsLike: TypeAlias = "Mapping[str, Any] | pd.DataFrame | int"
Labels: TypeAlias = "int | Iterable[int] | pd.DataFrame"


@clocked
def sweep(  # noqa: PLR0913 - keywords, each with a default that is said
    market: Market,
    policy: type[Policy] | Policy,
    sets: SetsLike,
    *,
    venue: Venue,
    account: Account,
    signal: Signal = None,
    sampling: str = "1d",
    calendar: str = "365",
    metrics: Metrics = "all",
    full: bool = False,
    space: Mapping[str, Any] | None = None,
    method: Method = "sobol",
    seed: int = 0,
    threads: int | None = None,
    memory: str = "1GiB",
    compile: bool = True,  # noqa: A002 - the word users know
    cluster: str | None = None,
    progress: Progress | None = None,
) -> Sweep:
    """Run many sets of parameters; each row equals :func:`backtest.run` of its set, bit for bit.

    Parameters
    ----------
    market, venue, account, signal, sampling, calendar, compile
        As in :func:`backtest.run`.
    policy : type or Policy
        A policy class, or an instance whose settings hold where the sets do not say otherwise.
    sets : mapping of arrays, DataFrame or int
        The product of some values per name, the last name fastest; a table of sets, of which the
        index is not kept; or how many to draw from the declared ranges. Names are the policy's
        parameters, and fields of the account and venue such as ``account.band``,
        ``venue.fees.taker``. None is a value where a field may be None. A parameter that does not
        matter in a set has its default there.
    metrics : str
        ``"all"`` measures that need no path, or ``"core"``, which is faster.
    full : bool
        Whether every set is run once more for the measures that need its path, as
        :meth:`Sweep.detail` gives them.
    space : mapping, optional
        What to draw from instead of all declared ranges, as in :func:`backtest.sweep.sets.space.read_space`.
    method, seed : str, int
        How to draw: ``"sobol"``, ``"lhs"`` or ``"uniform"``, and the seed of it.
    threads : int, optional
        Threads at once; default all cores. The numbers do not depend on it.
    memory : str
        How much the columns of policies may take; more sets than that are computed in turns.
    cluster : str, optional
        ``"tcp://host:port"`` or ``"local:N"``: who runs them, see :mod:`backtest.sweep.cluster`. The
        numbers do not depend on it.
    progress : callable, optional
        Called with sets done and sets in all; with ``full`` twice over.

    Returns
    -------
    Sweep
        After Ctrl-C with what was done before.

    Raises
    ------
    ParameterError
        If an argument or a set is not allowed; all defects of the sets at once.
    BacktestError
        If every set fails: why the first did.
    """
    check_arguments(market, policy, venue, account, metrics)
    given = read_sets(sets, Base(policy, venue, account), space=space, method=method, seed=seed)
    chosen = check_sets(policy, account, venue, given)
    evaluator = Evaluator(
        market,
        policy,
        venue=venue,
        account=account,
        signal=signal,
        sampling=sampling,
        calendar=calendar,
        metrics=metrics,
        threads=threads,
        memory=memory,
        compile=compile,
    )
    first_venue, first_account = build_terms(evaluator.base, evaluator.settings, take(chosen, 0))
    check_settings(market, first_account, first_venue, sampling, calendar)
    warn_of_other_days(market, first_venue)
    warn_of_last_prices(market)
    directions = read_signal(signal, market, 0)
    evaluator.check_causal(chosen)
    with on_cluster(evaluator, cluster) as working:
        table = tabulate(working, chosen, full=full, progress=progress)
    check_winner(evaluator, chosen, table)
    warn_of_unfilled({"turnover": table["turnover"].to_numpy()})
    facts = {
        "signal": describe_signal(signal, directions),
        "metrics": metrics,
        "full": full,
        "drawn": {"method": method, "seed": seed} if is_count(sets) else None,
        "sets": {"asked": count_sets(chosen), "hash": hash_sets(chosen)},
    }
    return Sweep(table, write_manifest(evaluator, tuple(chosen), len(table), facts), evaluator)


def check_winner(evaluator: Evaluator, sets: Sets, table: pd.DataFrame) -> None:
    """Refuse a policy whose columns look ahead in the set with the best Sharpe ratio.

    The ends of its numbers may not: what looks ahead wins.
    """
    metrics = {name: table[name].to_numpy() for name in METRICS if name in table}
    place = int(rank(metrics, "sharpe", None, find_failed(table))[0])
    evaluator.check_set(take(sets, int(table.index[place])))


def find_failed(table: pd.DataFrame) -> BoolArray:
    """Tell which rows of a sweep's table failed."""
    if ERROR not in table:
        return np.zeros(len(table), dtype=np.bool_)
    failed: BoolArray = (table[ERROR] != "").to_numpy(dtype=np.bool_)
    return failed


@dataclass(frozen=True, eq=False, repr=False)
class Sweep:
    """What became of many sets of parameters.

    Attributes
    ----------
    table : DataFrame
        One row per set: its parameters, then its measures (NaN where it failed), then ``error``
        where a set failed. A parameter with the name of a measure is called ``policy.name``.
    manifest : mapping
        Data, venue, account, policy, settings, versions: what made this table.
    evaluator : Evaluator or None
        What replays rows; None in a sweep that was loaded.
    """

    table: pd.DataFrame
    manifest: Mapping[str, Any]
    evaluator: Evaluator | None = None

    @property
    def parameters(self) -> tuple[str, ...]:
        """The columns that hold parameters."""
        return tuple(self.manifest["parameters"])

    @property
    def complete(self) -> bool:
        """Whether every set was run; False after Ctrl-C."""
        return len(self.table) == int(self.manifest["sets"]["asked"])

    @cached_property
    def metrics(self) -> dict[str, FloatArray]:
        """The measures by name, arrays of shape (n_sets,)."""
        return {name: self.table[name].to_numpy() for name in METRICS if name in self.table}

    def rank(
        self, objective: ObjectiveLike = "sharpe", constraints: Mapping[str, str] | None = None
    ) -> IntArray:
        """Return the places of the rows from the best to the worst.

        Rows that keep the constraints come first, then those that do not, then the ruined ones by
        their time to ruin, then the failed ones. See :func:`backtest.measures.ranking.read_objective`.
        """
        return rank(self.metrics, objective, constraints, self._failed)

    def best(
        self, objective: ObjectiveLike = "sharpe", constraints: Mapping[str, str] | None = None
    ) -> pd.Series:
        """Return the best row; its name is its label in the table.

        With a warning where it is ruined or breaks a constraint, as all others then do.
        """
        place = self.rank(objective, constraints)[0]
        row = {name: values[place : place + 1] for name, values in self.metrics.items()}
        broken = [str(each) for each in read_constraints(constraints) if each.violation(row)[0] > 0]
        if broken:
            text = f"no set keeps all constraints, the best breaks {', '.join(broken)}"
            warnings.warn(text, stacklevel=2)
        return self.table.iloc[int(place)]

    def top(
        self,
        n: int = 10,
        objective: ObjectiveLike = "sharpe",
        constraints: Mapping[str, str] | None = None,
    ) -> pd.DataFrame:
        """Return the n best rows, the best first.

        Raises
        ------
        ParameterError
            If n is less than 1, a measure is unknown, or a constraint is no bound.
        """
        Whole(1).check("n", n, where="Sweep.top")
        return self.table.iloc[self.rank(objective, constraints)[:n]]

    def heatmap(self, x: str, y: str, metric: str = "sharpe", reduce: Reduce = "median") -> Any:
        """Return a Plotly figure of a measure over two parameters.

        See :func:`backtest.sweep.heatmap.draw_map`.
        """
        from backtest.sweep.heatmap import draw_map  # noqa: PLC0415 - plotly takes a second to import

        return draw_map(self, x, y, metric, reduce)

    def replay(self, row: int) -> Result:
        """Return the run of a row, by its label, as :func:`backtest.run` returns it."""
        evaluator = self._find_evaluator()
        return evaluator.replay(take(self._find_sets(self._select(row)), 0))

    def detail(self, rows: Labels) -> pd.DataFrame:
        """Return some rows with the measures that need their path, by running them once more.

        Among them ``drawdown_peak``, ``drawdown_trough`` and ``drawdown_recovery``: when the
        deepest drawdown began, was deepest and was over (UTC; NaT where there was none, or it was
        not over by the end).

        Parameters
        ----------
        rows : int, several, or DataFrame
            Labels of the table, or a part of it such as :meth:`top` returns.

        Returns
        -------
        DataFrame
            After Ctrl-C, with a warning, those that were done before.

        Raises
        ------
        ParameterError
            If a row is none of the table's, or the sweep was loaded without its market.
        """
        evaluator = self._find_evaluator()
        table = self._select(rows)
        found = evaluator.evaluate_path(self._find_sets(table))
        done = int(found.done.sum())
        if done == 0:
            raise KeyboardInterrupt
        if done < len(table):
            text = f"interrupted: {len(table) - done:,} of {len(table):,} rows were not run again"
            warnings.warn(text, stacklevel=2)
        measured = put_dates(table.assign(**found.metrics))[found.done]
        return order_columns(measured, self.parameters)

    def _repr_html_(self) -> str:
        from backtest.report.notebook import write_sweep_cell  # noqa: PLC0415 - in notebooks

        return write_sweep_cell(self)

    def report(self, path: str | Path, format: str | None = None) -> Path:  # noqa: A002
        """Write a report to read; see :meth:`backtest.engine.result.Result.report`."""
        from backtest.report.write import write_report  # noqa: PLC0415 - only when asked for

        return write_report(self, path, format)

    def save(self, folder: str | Path = "results") -> Path:
        """Write the sweep into a folder of its own inside ``folder``; return that folder."""
        from backtest.sweep.sweep_files import save_sweep  # noqa: PLC0415 - not always needed

        return save_sweep(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> Sweep:
        """Return a saved sweep; nothing in the folder is executed.

        Raises
        ------
        DataError
            If a file is missing, damaged, or not the one that was written.
        """
        from backtest.sweep.sweep_files import load_sweep  # noqa: PLC0415 - not always needed

        return load_sweep(Path(folder))

    def __repr__(self) -> str:
        best = self.table.iloc[int(self.rank()[0])]
        values = ", ".join(f"{name}={format_value(best[name])}" for name in self.parameters)
        left_out = "" if self.complete else f" of {self.manifest['sets']['asked']:,}"
        return (
            f"<Sweep of {self.manifest['policy']['name']}: {len(self.table):,}{left_out} sets on "
            f"{self.manifest['data']['source']}, best sharpe {best['sharpe']:.2f} with {values}>"
        )

    @property
    def _failed(self) -> BoolArray:
        return find_failed(self.table)

    def _select(self, rows: Labels) -> pd.DataFrame:
        labels = rows.index if isinstance(rows, pd.DataFrame) else pd.Index(list_labels(rows))
        unknown = labels[~labels.isin(self.table.index)].tolist()
        if unknown or not len(labels):
            raise ParameterError(
                f"rows must be labels of the table, was {unknown[0] if unknown else labels!r}",
                where="Sweep, rows",
                cure=f"choose from {self.table.index[0]} to {self.table.index[-1]}",
            )
        return self.table.loc[labels]

    def _find_sets(self, table: pd.DataFrame) -> Sets:
        names = self.manifest["parameters"]
        return from_frame(table[list(names)].set_axis([unlabel(name) for name in names], axis=1))

    def _find_evaluator(self) -> Evaluator:
        if self.evaluator is None:
            raise ParameterError(
                "a row can be run again only with its market, a loaded sweep has none",
                where="Sweep.load",
                cure="sweep again, or backtest.run the policy with the parameters of the row",
            )
        return self.evaluator


def list_labels(rows: object) -> list[Any]:
    """Return labels as a list; what can be none as its text, which no row has."""
    if isinstance(rows, Iterable) and not isinstance(rows, str):
        return list(rows)
    return [rows if isinstance(rows, int | np.integer) else repr(rows)]


# ------------------------------------------------------------------------------------- at the door


def check_arguments(
    market: object, policy: object, venue: object, account: object, metrics: object
) -> None:
    """Refuse arguments of the wrong kind.

    Raises
    ------
    ParameterError
        Naming the first one.
    """
    is_class = isinstance(policy, type) and issubclass(policy, Policy)
    check_kinds(market, Policy() if is_class else policy, venue, account, None)
    Choice("all", "core").check("metrics", metrics, where="bt.sweep, metrics")


def read_sets(
    sets: SetsLike, base: Base, *, space: Mapping[str, Any] | None, method: Method, seed: int
) -> Sets:
    """Return the product, the table or the draws that were asked for.

    Raises
    ------
    ParameterError
        If it is none of these.
    """
    Choice(*get_args(Method)).check("method", method, where="bt.sweep, method")
    Whole(0).check("seed", seed, where="bt.sweep, seed")
    if is_count(sets):
        found = read_space(base.policy, space, account=base.account, venue=base.venue)
        return draw(found, int(sets), method=method, seed=seed)
    if space is not None:
        raise ParameterError(
            "space must come with a number of sets to draw from it, was given with "
            f"{type(sets).__name__}",
            where="bt.sweep, space",
            cure="pass sets=1000, for example, or leave space out",
        )
    if isinstance(sets, pd.DataFrame):
        refuse_measures(sets, read_settings(base))
        return from_frame(sets.rename(columns=lambda name: unlabel(str(name))))
    if isinstance(sets, Mapping):
        return grid(sets)
    raise ParameterError(
        f"sets must be a dict of arrays, a DataFrame or a number of draws, was {sets!r:.60}",
        where="bt.sweep, sets",
        cure="pass {'target': [0.2, 0.4]}, for example, or 1000",
    )


def refuse_measures(frame: pd.DataFrame, known: Mapping[str, object]) -> None:
    """Refuse rows of a sweep's table in place of sets of parameters.

    Raises
    ------
    ParameterError
        If a column is a measure and no parameter.
    """
    measures = [name for name in frame.columns if name in TAKEN and name not in known]
    if measures:
        raise ParameterError(
            f"a table of sets must hold parameters only, has the measure {measures[0]}",
            where="bt.sweep, sets",
            cure="give its parameters: table[list(sweep.parameters)]",
        )


def is_count(sets: SetsLike) -> TypeGuard[int]:
    """Tell whether sets are a number of draws."""
    return isinstance(sets, int | np.integer) and not isinstance(sets, bool)


# ---------------------------------------------------------------------------------- the manifest


def write_manifest(
    evaluator: Evaluator, names: tuple[str, ...], done: int, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Return everything that decides the numbers of a sweep, with an ``id`` made of it."""
    market, (_, venue, account) = evaluator.market, evaluator.base
    cls = evaluator.base.policy_class
    settings = {name: evaluator.settings[name] for name in names}
    held = {name: evaluator.settings[name].value for name in cls.parameters()}
    manifest: dict[str, Any] = to_plain(
        {
            "kind": "sweep",
            "data": describe_data(
                market, account, int(market.time[0]), market.time + market.interval
            ),
            "policy": {
                "name": cls.__name__,
                "settings": {name: value for name, value in held.items() if name not in names},
                "source_hash": hash_source(cls),
            },
            "venue": venue.to_dict(),
            "account": account.to_dict(),
            "sampling": evaluator.sampling,
            "calendar": evaluator.calendar,
            "parameters": {
                label(name): {"unit": setting.unit, "log": getattr(setting.space, "log", False)}
                for name, setting in settings.items()
            },
            **facts,
            "done": done,
            "versions": find_versions(),
        }
    )
    return {"id": identify(manifest), **manifest, "causality": evaluator.causality}


def hash_sets(sets: Sets) -> str:
    """Return a hash of names and values."""
    digest = hashlib.sha256()
    for name, column in sets.items():
        digest.update(f"{name} {column.dtype} ".encode())
        is_plain = column.dtype != object
        digest.update(column.tobytes() if is_plain else json.dumps(column.tolist()).encode())
    return digest.hexdigest()
