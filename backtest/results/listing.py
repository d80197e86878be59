"""The store: its folders, each opened by its manifest, and read into an entry for lists.

From top to bottom: the kinds of saved results, opening and finding a folder, entries and how they
are read, with or without the index, and how the origin of a result is described. Which entries a
list shows is in ``selection.py``; what is checked and deleted is in ``upkeep.py``.

=============  ==========================================================================
word           what it is
=============  ==========================================================================
store          a folder of saved results, ``results/`` by default
folder         one in it: a result, one that is not finished, or a leftover
kind           what a result is: "run", "sweep", "study"; :data:`KINDS` has its class
manifest       the JSON file that makes a folder a result: what decides its numbers
begun          not finished: a hidden folder of batches, named after its result
leftover       what a process left that died while it wrote or replaced a result
entry          a folder as a list shows it
trouble        one sentence that says why a folder cannot be used
busy           another process has the lock of the folder
fault          a file of a result that is missing, damaged or changed, and what is wrong
making         who made a result: the command, the commits and the seconds
=============  ==========================================================================
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pkgutil
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from backtest import core
from backtest.core import provenance, result_folders
from backtest.core.atomic_files import LOCK
from backtest.results.manifest import describe_search, phrase_source
from backtest.results.result import RUN
from backtest.results.run_record import (
    EXTRAPOLATED,
    OF_RUINED,
    count_days_between,
    shows_growth,
)
from backtest.results.store_index import (
    SMALLEST,
    Row,
    Stamp,
    is_settled,
    read_index,
    stamp_folder,
    write_index,
)

SHORTEST = 4
"""The least number of letters that may abbreviate an id."""
MOST_NAMED = 5
"""Most results that an error names."""
LEDGER_FOLDER = "shadow"
"""The folder of a store with the ledger of ``backtest shadow``."""
LEFTOVER = "leftover"
UNKNOWN = "unknown"
KINDS = {
    "run": "backtest.results.result:Result",
    "sweep": "backtest.sweep.sweep_table:Sweep",
    "comparison": "backtest.search.comparison:Comparison",
    "study": "backtest.search.study:Study",
    "cross-validation": "backtest.search.cross_validate:CrossValidation",
    "walk-forward": "backtest.search.walk_forward:WalkForward",
    "timing": "backtest.search.timing:TimingTest",
    "liquidation-risk": "backtest.risk.liquidations:LiquidationRisk",
    "passing-probability": "backtest.risk.funded:PassingProbability",
    "max-leverage": "backtest.risk.largest_leverage:MaxLeverage",
    "bounds": "backtest.risk.intrabar_bounds:Bounds",
    "margin-calibration": "backtest.risk.margin_calibration:MarginCalibration",
    "margin-comparison": "backtest.risk.margin_systems:MarginComparison",
    "capacity": "backtest.risk.capital_capacity:Capacity",
    "sensitivity": "backtest.risk.factor_sensitivity:Sensitivity",
    "stress": "backtest.risk.stress:Stress",
    "bands": "backtest.risk.bands:Bands",
    "cascade": "backtest.risk.cascade:Cascade",
    "parameter-sensitivity": "backtest.risk.parameter_steps:ParameterSensitivity",
    "leverage-frontier": "backtest.risk.growth_frontier:LeverageFrontier",
    "frontier": "backtest.search.frontier:Frontier",
    "contagion": "backtest.risk.contagion:Contagion",
    "book": "backtest.accounts.result:AccountsResult",
    "judgement": "backtest.judgement.judgement:Judgement",
}
"""The classes of saved results by their kind, imported when a folder of one is read."""
Saved: TypeAlias = core.SavedResult


HYPHENED = ("walk-forward", "cross-validation")
"""Kinds that are written with a hyphen."""


def name_kind(kind: str) -> str:
    """Return a kind as people write it, ``"passing probability"``."""
    if kind in HYPHENED:
        return kind
    return kind.replace("-", " ")


def find_kind(kind: str) -> Any:
    """Return the class of a kind of saved results."""
    return pkgutil.resolve_name(KINDS[kind])


def is_begun(folder: Path) -> bool:
    """Return whether a folder is that of a result that is not finished."""
    return folder.name.startswith(result_folders.UNFINISHED)


def is_leftover(folder: Path) -> bool:
    return folder.name.startswith(result_folders.LEFTOVERS)


def is_result(folder: Path) -> bool:
    return (folder / result_folders.MANIFEST).is_file() and not folder.name.startswith(".")


def is_ledger(folder: Path) -> bool:
    """Return whether a folder is that of the ledger of shadows, which is no result."""
    return folder.name == LEDGER_FOLDER and not (folder / result_folders.MANIFEST).exists()


def open_folder(folder: Path) -> tuple[str, dict[str, Any]]:
    """Return the kind and the manifest of a saved result."""
    path = folder / result_folders.MANIFEST
    if not path.exists():
        raise core.DataError(f"{folder}: holds no {result_folders.MANIFEST}")
    manifest = core.read_json_file(path)
    if not isinstance(manifest, dict):
        raise core.DataError(f"{path}: must hold a JSON object, got a {type(manifest).__name__}")

    kind = manifest.get("kind", RUN)
    if not isinstance(kind, str) or kind not in KINDS:
        raise core.DataError(
            f"{path}: must have a known kind, got {kind!r:.40}; read it with the "
            "version that saved it"
        )
    if is_begun(folder) and folder.resolve().name != name_begun(kind, manifest):
        raise core.DataError(
            f"{folder}: {result_folders.MANIFEST} must describe the result that the folder is "
            "named after"
        )
    return kind, manifest


def name_begun(kind: str, manifest: Mapping[str, Any]) -> str:
    """Return the name of the folder of a result that is not finished; empty if it has none."""
    try:
        if find_kind(kind).can_be_resumed:
            return f"{result_folders.UNFINISHED}{result_folders.name_result(manifest)}"
    except (KeyError, TypeError, AttributeError):  # a damaged manifest
        pass
    return ""


def load_saved(folder: Path) -> Saved:
    """Load a saved result of any kind."""
    if is_begun(folder):
        raise core.DataError(
            f"{folder}: must be finished to be loaded; run it again with resume=True"
        )
    kind, _ = open_folder(folder)
    saved: Saved = find_kind(kind).load(folder)
    return saved


def name_fault(error: Exception, folder: Path) -> str:
    """Return what an error says of a folder, without the path of the folder."""
    text = str(error).partition("\n")[0]  # lists of results have a line for each
    return text.removeprefix(f"{folder}: ").removeprefix(f"{folder}{os.sep}")


def list_folders(store: Path) -> list[str]:
    """Return the names of the folders of a store, of hidden ones those that results leave."""
    try:
        with os.scandir(store) as inside:
            names = [item.name for item in inside if item.is_dir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise core.DataError(
            f"{store}: cannot read the folder of results: {error.strerror or error}"
        ) from error

    of_results = (*result_folders.LEFTOVERS, result_folders.UNFINISHED)
    shown = []
    for name in names:
        is_foreign = name.startswith(".") and not name.startswith(of_results)
        if not is_foreign and not is_ledger(store / name):
            shown.append(name)
    return sorted(shown)


def find_folder(name: str, store: Path) -> Path:
    """Return the folder of a name, of a path, or of the beginning of a name or an id."""
    folders = list_folders(store)
    if name in folders:
        return store / name
    if name and is_result(Path(name)):
        return Path(name)

    fitting = [folder for folder in folders if fits_beginning(folder, name)]
    if len(fitting) == 1:
        return store / fitting[0]
    if fitting:
        shown = ", ".join(fitting[:MOST_NAMED])
        if len(fitting) > MOST_NAMED:
            shown = f"{shown}, ..."
        raise core.ParameterError(
            f"a name must match one result in {store}, {name!r:.60} matches {len(fitting)}: {shown}"
        )

    # The accounts of a result of several have results of their own inside it.
    inner = find_inner_folders(folders, store, name)
    if len(inner) == 1:
        return inner[0]

    known = [folder for folder in folders if is_result(store / folder)]
    raise core.DataError(
        f"no saved result is called {name!r:.60} in {store}{core.did_you_mean(name, known)}; "
        f"{SHORTEST} or more letters of an id are enough"
    )


def find_inner_folders(
    folders: Sequence[str],
    store: Path,
    name: str,
) -> list[Path]:
    """Return the folders inside those of other results whose name or id begins so."""
    inner_names = set[str]()
    for kind in KINDS:
        inner_names.update(find_kind(kind).inner)

    fitting = []
    for folder in folders:
        for inner in inner_names:
            places = (store / folder / inner).glob("*/*")
            fitting += [x for x in places if fits_beginning(x.name, name) and is_result(x)]
    return fitting


def fits_beginning(folder: str, beginning: str) -> bool:
    """Return whether the name of a folder, or the id at its end, begins so."""
    if beginning and folder.startswith(beginning):
        return True
    identity = folder.rpartition("-")[2]
    return len(beginning) >= SHORTEST and identity.startswith(beginning)


@dataclass(frozen=True)
class StoreEntry:
    """A folder of the store, as lists show it.

    ``trouble`` says in one sentence why it cannot be used. ``title`` is the policy with its
    settings, or with what varied. ``saved`` is the time of its manifest, in ns since 1970, ``size``
    bytes on the disk. ``metrics`` are the measures of the run, of the set with the highest Sharpe
    ratio (sweep), of the chosen set (study), or of the policy with the highest log growth
    (comparison). ``commit`` and ``backtest_commit`` are those of the checkouts of its policy and of
    this package; ``is_dirty`` is None if there was none.
    """

    name: str
    kind: str
    trouble: str = ""
    id: str = ""
    policy: str = ""
    title: str = ""
    instrument: str = ""
    interval: str = ""
    start: str = ""
    end: str = ""
    source: str = ""
    is_synthetic: bool = False
    saved: int = 0
    size: int = 0
    note: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    is_busy: bool = False
    is_finished: bool = True
    seconds: float | None = None
    commit: str = ""
    backtest_commit: str = ""
    is_dirty: bool | None = None

    def find_shown(self, name: str) -> float | None:
        """Return a measure as lists show it to people, None if it is hidden or not known.

        Hidden are growth per year of few days, and the Sharpe ratio of a ruined account.
        """
        return self.shown_metrics.get(name)

    @property
    def shown_metrics(self) -> dict[str, float]:
        """The measures that :meth:`find_shown` returns, by name."""
        hidden: tuple[str, ...] = ()
        if self.is_short:
            hidden += EXTRAPOLATED
        if self.metrics.get("ruined"):
            hidden += OF_RUINED
        return {name: value for name, value in self.metrics.items() if name not in hidden}

    @property
    def is_short(self) -> bool:
        if not (self.start and self.end):
            return False
        return not shows_growth(count_days_between(self.start, self.end))

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


INDEXED = tuple(item.name for item in dataclasses.fields(StoreEntry) if item.name != "metrics")
"""The fields that the index has in this order, beside the measures."""


def list_results(store: Path) -> list[StoreEntry]:
    """Return an entry for each folder of a store; a large store has an index of them."""
    names = list_folders(store)
    if len(names) < SMALLEST:
        entries = [read_entry(store / name) for name in names]
    else:
        entries = list_indexed(store, names)
    # A folder that was deleted meanwhile is no trouble.
    return [entry for entry in entries if not entry.trouble or (store / entry.name).is_dir()]


def list_indexed(store: Path, names: Sequence[str]) -> list[StoreEntry]:
    """Return the entries of folders, of those alone read that changed since the index was made.

    Writes the index of the store anew if that has changed.
    """
    known = read_index(store)
    entries: list[StoreEntry] = []
    rows: dict[str, Row] = {}
    is_changed = False
    for name in names:
        # Stamped before it is read: what changes meanwhile is read again the next time.
        stamp = stamp_folder(os.path.join(store, name))  # noqa: PTH118 - of ten thousand folders
        row = known.get(name)
        if stamp is not None and row is not None and row.digest == stamp.digest:
            rows[name] = row
            fields = dict(zip(INDEXED, row.fields, strict=True))
            entries.append(StoreEntry(**fields, metrics=row.metrics))
            continue

        entry = read_entry(store / name)
        entries.append(entry)
        if stamp is not None and can_be_indexed(entry, stamp):
            values = [getattr(entry, indexed) for indexed in INDEXED]
            rows[name] = Row(stamp.digest, values, entry.metrics)
            is_changed = True

    if is_changed or len(rows) < len(known):
        write_index(store, rows)
    return entries


def can_be_indexed(entry: StoreEntry, stamp: Stamp) -> bool:
    """Return whether an entry stays the same until a file of its folder changes."""
    if entry.trouble or not entry.is_finished:
        return False
    has_floats = all(type(value) is float for value in entry.metrics.values())
    return has_floats and is_settled(stamp)


def read_entry(folder: Path) -> StoreEntry:
    """Return the entry of a folder; what is wrong with it is its trouble."""
    entry = try_entry(folder)
    if entry.trouble and entry.kind != LEFTOVER:
        # What another process was replacing meanwhile is read again.
        return try_entry(folder)
    return entry


def try_entry(folder: Path) -> StoreEntry:
    """Return the entry of a folder; what is wrong with it is the entry's trouble."""
    kind = UNKNOWN
    disk: dict[str, Any] = {}
    try:
        disk = measure_disk(folder)
        if is_leftover(folder):
            return read_leftover(folder, disk)

        kind, manifest = open_folder(folder)
        facts = read_facts(manifest)
        if is_begun(folder):
            facts |= read_progress(folder, kind, manifest)
            return StoreEntry(folder.name, kind, **{**disk, **facts})

        faults = result_folders.find_faults(
            folder,
            manifest,
            find_kind(kind),
            with_hashes=False,
        )
        for name, what in faults:
            return StoreEntry(
                folder.name,
                kind,
                f"{name}: {what}; {result_folders.CURE}",
                **disk,
            )

        facts |= find_kind(kind)._read_line(folder, manifest)
        facts |= summarize_making(core.read_provenance(folder, facts["id"]))
        return StoreEntry(folder.name, kind, **{**disk, **facts})
    except core.BacktestError as error:
        trouble = name_fault(error, folder)
    except Exception as error:  # a damaged file may raise anything
        trouble = f"it cannot be read: {type(error).__name__}: {error}"
    return StoreEntry(folder.name, kind, trouble, **disk)


def measure_disk(folder: Path) -> dict[str, Any]:
    """Return when a folder was saved, in ns since 1970, and its bytes, by the fields of entries."""
    states = {}
    for path in (*folder.rglob("*"), folder):
        with contextlib.suppress(FileNotFoundError):  # a draft that was renamed since
            states[path] = path.lstat()

    manifest = states.get(folder / result_folders.MANIFEST)
    if manifest is not None:
        saved = manifest.st_mtime_ns
    else:
        saved = max((state.st_mtime_ns for state in states.values()), default=0)
    size = sum(state.st_size for path, state in states.items() if not path.is_dir())
    return {"saved": saved, "size": size}


def read_leftover(folder: Path, disk: Mapping[str, Any]) -> StoreEntry:
    """Return the entry of what a process left, or writes now."""
    is_busy = core.is_lock_held(folder / LOCK)
    results = [path.name for path in folder.glob("*") if path.is_dir()]

    trouble = "it was left by a process that died"
    if is_busy:
        trouble = "it is being written now"
    elif len(results) == 1:
        trouble = f"{trouble} of {results[0]}"
    return StoreEntry(
        folder.name,
        LEFTOVER,
        trouble,
        **disk,
        is_busy=is_busy,
    )


def read_facts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the id and the data of a result, by the fields of entries."""
    data = manifest["data"]
    facts = {
        "id": manifest["id"],
        "source": str(data.get("source", "")),
    }
    for name in ("instrument", "interval", "start", "end"):
        facts[name] = str(data[name] or "")
    facts["is_synthetic"] = bool(data.get("synthetic"))
    return facts


def read_progress(
    folder: Path,
    kind: str,
    manifest: Mapping[str, Any],
) -> dict[str, Any]:
    """Return how far a result is that is not finished, by the fields of entries."""
    note = find_kind(kind)._read_progress(folder, manifest)
    return {
        **describe_search(manifest),
        "note": note,
        "is_finished": False,
        "is_busy": core.is_lock_held(folder / LOCK),
    }


def summarize_making(making: core.Making | None) -> dict[str, Any]:
    """Return the commits and the seconds of a result, by the fields of entries."""
    if making is None:
        return {}

    commits = {}
    for checkout, commit in making.code.items():
        if commit:
            commits[checkout] = commit.removesuffix(provenance.DIRTY)

    backtest_commit = commits.pop(provenance.PACKAGE, "")
    others = dict.fromkeys(commits.values())
    return {
        "seconds": making.seconds,
        "commit": ", ".join(others),
        "backtest_commit": backtest_commit,
        "is_dirty": making.is_dirty,
    }


def read_usable(name: str, folder: Path) -> tuple[Path, StoreEntry]:
    """Return the folder and the entry of a result by name; it must be readable."""
    place = find_folder(name, folder)
    entry = read_entry(place)
    if entry.trouble:
        raise core.DataError(
            f"{place}: cannot read the result: {entry.trouble}; backtest results verify "
            f"{place.name} shows more"
        )
    return place, entry


def describe_note(entry: StoreEntry) -> str:
    if entry.is_finished:
        return entry.note
    state = "running" if entry.is_busy else "unfinished"
    return f"{entry.note}, {state}"


def count_kinds(entries: Iterable[StoreEntry]) -> str:
    """Return how many entries there are of each kind."""
    plurals = {name: str(find_kind(name).plural) for name in KINDS}
    plurals[LEFTOVER] = f"{LEFTOVER}s"

    counts = []
    for kind, n in Counter(entry.kind for entry in entries).items():
        noun = name_kind(kind)
        if n > 1:
            noun = plurals.get(kind, kind)
        counts.append(f"{n:,} {noun}")
    return ", ".join(counts) or "none"


class Origin(NamedTuple):
    """The command that makes a result, and what else to know about it."""

    command: str = ""
    remarks: tuple[str, ...] = ()


UNTOLD = Origin()
"""Of a result that does not say how it was made."""


def describe_origin(manifest: Mapping[str, Any], making: core.Making | None) -> Origin:
    """Return how a result was made: by a command, or in Python."""
    argv = making.argv if making else ()
    if not argv:
        return Origin(remarks=(f"made in Python: {describe_call(manifest)}",))

    # A word may be a class of a file, as policy.py:Name.
    files = []
    for word in argv:
        name, _, _ = word.partition(":")
        if Path(name).suffix in (".toml", ".py"):
            files.append(word)

    remarks: tuple[str, ...] = ()
    if files:
        remarks = (f"it reads {', '.join(files)} as it is now",)
    return Origin(shlex.join(argv), remarks)


def describe_call(manifest: Mapping[str, Any]) -> str:
    """Return the function that makes a result, its policies and the source of its data."""
    kind = str(manifest.get("kind"))
    call = "bt.run"
    if kind in KINDS:
        call = find_kind(kind).call

    policies = manifest.get("policies") or {}
    if not policies and "policy" in manifest:
        policies = {"": manifest["policy"]}
    texts = [str(policy.get("text") or policy["name"]) for policy in policies.values()]
    names = ", ".join(texts)
    if "policy_module" in manifest:
        names = f"{names} of {manifest['policy_module']}"

    source = phrase_source(manifest["data"])
    if not source:
        source = manifest.get("source", "data of no known source")
    parts = [call, names, str(source)]
    return ", ".join(part for part in parts if part)
