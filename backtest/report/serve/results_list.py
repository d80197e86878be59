"""What lies in a folder of results, read from the folders themselves; damaged ones are named."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backtest.base.bounded_reads import parse_json, read_small
from backtest.base.errors import BacktestError, DataError
from backtest.base.json_values import from_plain
from backtest.base.result_folders import MANIFEST
from backtest.engine.result_files import METRICS
from backtest.report.serve.best import check_hash, measure_comparison, measure_study, measure_sweep
from backtest.tune.study_folder import OUTCOME, STUDY, TRIALS

NAMED_BY_ID = re.compile(r"-[0-9a-f]{16}\Z")
RUN, SWEEP, STUDY_KIND, COMPARISON, DAMAGED = "run", "sweep", "study", "comparison", "damaged"
KINDS = (RUN, SWEEP, STUDY_KIND, COMPARISON, DAMAGED)
SHOWN = ("cagr", "volatility", "sharpe", "max_drawdown", "liquidations")
"""Measures that stand in the list."""

LONGEST = 300
"""Letters of what is wrong with a folder."""

Marks = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True)
class Entry:
    """One folder of a store.

    Attributes
    ----------
    name : str
        Of the folder.
    kind : str
        ``"run"``, ``"sweep"``, ``"study"``, ``"comparison"`` or ``"damaged"``.
    mark : str
        Changes whenever a file of the folder does: a hash of the manifest and of the files'
        names, sizes and times.
    made : float
        When it was written, in seconds since 1970: the time of its manifest, or of what a study
        wrote last.
    policy, note : str
        What was run, with its settings; what else tells it from others.
    instrument, start, end : str
        The data.
    metrics : mapping of str to float
        Those of the list: of a sweep those of its best set by Sharpe ratio, of a study those of the
        set it chose, of a comparison those of the policy that grew fastest. None of an unfinished
        study: whoever follows it knows its best so far.
    is_unfinished : bool
        Whether it is a study that has not concluded.
    problem : str
        Why it is damaged; empty where it is not.
    """

    name: str
    kind: str
    mark: str
    made: float
    policy: str = ""
    note: str = ""
    instrument: str = ""
    start: str = ""
    end: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    is_unfinished: bool = False
    problem: str = ""


class Store:
    """A folder of results; a folder in it is read again only when a file of it has changed.

    Parameters
    ----------
    root : Path
        The folder of results.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._known: dict[str, tuple[Marks, Entry]] = {}
        self._lock = threading.Lock()

    def list_entries(self) -> dict[str, Entry]:
        """Return everything saved, by the names of the folders, the newest first.

        Raises
        ------
        DataError
            If the folder cannot be read.
        """
        try:
            with os.scandir(self.root) as found:
                folders = [each for each in found if not each.name.startswith(".")]
        except OSError as error:
            raise DataError(
                f"a store must be a folder that can be read: {error.strerror or error}",
                where=str(self.root),
                cure="give the folder with --results",
            ) from error
        with self._lock:
            self._known = dict(self._read_all(folders))
            entries = [entry for _, entry in self._known.values()]
        entries.sort(key=lambda each: (-each.made, each.name))
        return {each.name: each for each in entries}

    def _read_all(
        self, folders: list[os.DirEntry[str]]
    ) -> Iterator[tuple[str, tuple[Marks, Entry]]]:
        for each in folders:
            if each.is_symlink():
                if NAMED_BY_ID.search(each.name):
                    yield each.name, ((), damaged(each.name, "a link, which is not followed"))
            elif each.is_dir():
                marks = mark_files(Path(each.path))
                known = self._known.get(each.name)
                if known is not None and known[0] == marks:
                    yield each.name, known
                elif (entry := read_entry(Path(each.path), marks)) is not None:
                    yield each.name, (marks, entry)

    def find(self, name: str) -> Entry | None:
        """Return the entry of a folder of this name; None where the list has none.

        The name is looked up among those that are there, never made a path.
        """
        return self.list_entries().get(name)


def mark_files(folder: Path) -> Marks:
    """Return name, type, size and time of what lies in a folder, and in its trials."""
    try:
        return tuple(sorted(_mark(folder, "")))
    except OSError:
        return ()


def _mark(folder: Path, prefix: str) -> Iterator[tuple[str, int, int, int]]:
    with os.scandir(folder) as found:
        for each in found:
            try:
                facts = each.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # a draft that was renamed since
            yield f"{prefix}{each.name}", facts.st_mode, facts.st_size, facts.st_mtime_ns
            if not prefix and each.name == TRIALS and each.is_dir(follow_symlinks=False):
                yield from _mark(folder / TRIALS, f"{TRIALS}/")


# ---------------------------------------------------------------------------------- one folder


def read_entry(folder: Path, marks: Marks) -> Entry | None:
    """Return what a folder holds; None where it holds no result."""
    names = {name for name, *_ in marks}
    if not names and not folder.exists():
        return None  # it was deleted since the store was listed
    if not names & {MANIFEST, STUDY}:
        is_lost = NAMED_BY_ID.search(folder.name) is not None
        return damaged(folder.name, f"{MANIFEST} is missing") if is_lost else None
    made = max(time for _, _, _, time in marks) / 1e9
    try:
        check_name(folder)
        check_files(folder, marks)
        if STUDY in names:
            return read_study(folder, marks)
        return read_saved(folder, marks)
    except BacktestError as error:
        return damaged(folder.name, error.problem, made)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        problem = f"its manifest is not one: {type(error).__name__} {error}"
        return damaged(folder.name, problem[:LONGEST], made)
    except OSError as error:  # it is being deleted, or may not be read
        problem = f"a file of it cannot be read: {error.strerror or error}"
        return damaged(folder.name, problem[:LONGEST], made) if folder.exists() else None


def damaged(name: str, problem: str, made: float = 0.0) -> Entry:
    """Return the entry of a folder that cannot be used."""
    return Entry(name, DAMAGED, "", made, problem=problem)


def check_name(folder: Path) -> None:
    """Refuse a folder whose name is no text: Parquet files in it cannot be opened.

    Raises
    ------
    DataError
        If it is none.
    """
    try:
        folder.name.encode()
    except UnicodeEncodeError as error:
        raise refuse(folder, "the name of the folder is no UTF-8") from error


def check_files(folder: Path, marks: Marks) -> None:
    """Refuse a folder that holds links or anything else that is no file.

    Raises
    ------
    DataError
        Naming it.
    """
    for name, mode, _, _ in marks:
        is_folder = stat.S_ISDIR(mode) and name == TRIALS
        if not (stat.S_ISREG(mode) or is_folder):
            what = "a link, which is not followed" if stat.S_ISLNK(mode) else "no plain file"
            raise refuse(folder / name, f"{name} is {what}")


def refuse(place: Path, problem: str) -> DataError:
    """Return the error of a folder that cannot be used."""
    return DataError(problem, where=str(place), cure="restore it, or delete the folder")


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file.

    Raises
    ------
    DataError
        If it is missing, too large, or none.
    """
    try:
        data = parse_json(read_small(path), path)
    except FileNotFoundError as error:
        raise refuse(path, f"{path.name} is missing") from error
    except OSError as error:
        raise refuse(path, f"{path.name} cannot be read: {error.strerror or error}") from error
    if not isinstance(data, dict):
        raise refuse(path, f"{path.name} holds a {type(data).__name__}, no object")
    return data


def read_saved(folder: Path, marks: Marks) -> Entry:
    """Return the entry of a run, a sweep or a comparison.

    Raises
    ------
    DataError
        If its manifest cannot be read, or a file that it names is missing.
    """
    manifest = read_object(folder / MANIFEST)
    there = {name: size for name, _, size, _ in marks}
    for name in manifest["files"]:
        if name not in there:
            raise refuse(folder, f"{str(name)[:80]} is missing")
        if there[name] == 0:
            raise refuse(folder, f"{str(name)[:80]} is empty")
    kind = manifest.get("kind", RUN)
    if kind not in (RUN, SWEEP, COMPARISON):
        raise refuse(folder / MANIFEST, f"its kind is {str(kind)[:40]!r}, which is none known")
    policy, note = describe(kind, manifest)
    return Entry(
        name=folder.name,
        kind=kind,
        mark=make_mark(manifest, marks),
        made=find_time(marks, MANIFEST),
        policy=policy,
        note=note,
        metrics=choose_metrics(read_measures(folder, kind, manifest)),
        **describe_data(manifest["data"]),
    )


def read_measures(folder: Path, kind: str, manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the measures of a run, or of the best of a sweep or of a comparison.

    Raises
    ------
    DataError
        If the file that holds them was changed.
    """
    if kind == RUN:
        check_hash(folder, manifest, METRICS)
        return read_object(folder / METRICS)
    if kind == SWEEP:
        return measure_sweep(folder, manifest, SHOWN)
    return measure_comparison(folder)


def describe(kind: str, manifest: Mapping[str, Any]) -> tuple[str, str]:
    """Return what was run, and what else tells it from others."""
    if kind == SWEEP:
        names = ", ".join(map(str, manifest["parameters"]))
        return f"{manifest['policy']['name']} over {names}", f"{int(manifest['done']):,} sets"
    if kind == COMPARISON:
        others = [name for name in manifest["policies"] if name != manifest["baseline"]]
        note = "at equal risk" if manifest["equal_risk"] else ""
        return f"{manifest['baseline']} against {', '.join(map(str, others))}", note
    return str(manifest["policy"]["text"]), ""


def read_study(folder: Path, marks: Marks) -> Entry:
    """Return the entry of a study, finished or not.

    Raises
    ------
    DataError
        If its description or its outcome cannot be read.
    """
    facts = read_object(folder / STUDY)
    is_unfinished = all(name != OUTCOME for name, *_ in marks)
    measured: dict[str, Any] = {}
    sets = ""
    if not is_unfinished:
        verdict = from_plain(read_object(folder / OUTCOME)["verdict"])
        measured = measure_study(folder)
        sets = f"{int(verdict['trials']):,} sets, "
    names = ", ".join(str(each["name"]) for each in facts["space"]["dimensions"])
    return Entry(
        name=folder.name,
        kind=STUDY_KIND,
        mark=make_mark(facts, marks),
        made=max(time for _, _, _, time in marks) / 1e9,
        policy=f"{facts['policy']['name']} over {names}",
        note=f"{sets}objective {', '.join(map(str, facts['objectives']))}",
        metrics=choose_metrics(measured),
        is_unfinished=is_unfinished,
        **describe_data(facts["data"]),
    )


def describe_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return instrument and time."""
    name = str(data.get("instrument") or "unnamed")
    words = f"{name}\n(synthetic)" if data.get("synthetic") else name
    return {"instrument": words, "start": str(data["start"]), "end": str(data["end"])}


def choose_metrics(data: Mapping[str, Any]) -> dict[str, float]:
    """Return the measures of the list that are finite numbers.

    Examples
    --------
    >>> choose_metrics({"sharpe": 1, "cagr": None, "volatility": "x", "fees": 3.0})
    {'sharpe': 1.0}
    """
    known = {name: data.get(name) for name in SHOWN}
    numbers = {k: v for k, v in known.items() if isinstance(v, int | float)}
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}


def find_time(marks: Marks, name: str) -> float:
    """Return when a file was written, in seconds since 1970."""
    return next(time for each, _, _, time in marks if each == name) / 1e9


def make_mark(facts: Mapping[str, Any], marks: Marks) -> str:
    """Return a hash of a manifest and of the files beside it."""
    text = json.dumps([facts, marks], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
