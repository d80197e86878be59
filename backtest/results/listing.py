"""The store: its folders, each read into an entry; entries are selected, verified and pruned."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import pkgutil
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from backtest import core
from backtest.core import provenance
from backtest.core import result_folders as s
from backtest.core.atomic_files import LOCK, REPLACED
from backtest.results.manifest import describe_search
from backtest.results.measure_table import ABOUT
from backtest.results.ranking import Constraint, order_sets
from backtest.results.result import RUN
from backtest.results.run_record import EXTRAPOLATED, count_days_between, shows_growth
from backtest.results.store_index import (
    SMALLEST,
    Row,
    is_settled,
    read_index,
    stamp_folder,
    write_index,
)

SHORTEST = 4
"""The least number of letters that may abbreviate an id."""
MOST_NAMED = 5
LEFTOVER, UNKNOWN = "leftover", "unknown"
KINDS = {
    "run": "backtest.results.result:Result",
    "sweep": "backtest.sweep.sweep_table:Sweep",
    "comparison": "backtest.search.compare:Comparison",
    "study": "backtest.search.study:Study",
    "cross-validation": "backtest.search.cross_validate:CrossValidation",
    "walk-forward": "backtest.search.walk_forward:WalkForward",
    "timing": "backtest.search.timing:TimingTest",
    "liquidation-risk": "backtest.risk.liquidations:LiquidationRisk",
    "passing-probability": "backtest.risk.funded:PassingProbability",
    "max-leverage": "backtest.risk.largest_leverage:MaxLeverage",
    "bounds": "backtest.risk.variations:Bounds",
    "margin-calibration": "backtest.risk.margin_systems:MarginCalibration",
    "margin-comparison": "backtest.risk.margin_systems:MarginComparison",
    "capacity": "backtest.risk.variations:Capacity",
    "sensitivity": "backtest.risk.variations:Sensitivity",
    "stress": "backtest.risk.stress:Stress",
    "bands": "backtest.risk.bands:Bands",
    "cascade": "backtest.risk.cascade:Cascade",
    "parameter-sensitivity": "backtest.risk.variations:ParameterSensitivity",
    "leverage-frontier": "backtest.risk.largest_leverage:LeverageFrontier",
    "frontier": "backtest.search.frontier:Frontier",
    "contagion": "backtest.risk.contagion:Contagion",
    "book": "backtest.accounts.result:AccountsResult",
    "judgement": "backtest.judgement.judgement:Judgement",
}
"""The classes of saved results by their kind, imported when a folder of one is read."""
Saved: TypeAlias = core.SavedResult


def find_kind(kind: str) -> Any:
    """Return the class of a kind of saved results."""
    return pkgutil.resolve_name(KINDS[kind])


def is_begun(folder: Path) -> bool:
    return folder.name.startswith(s.UNFINISHED)


def open_folder(folder: Path) -> tuple[str, dict[str, Any]]:
    """Return the kind and the manifest of a saved result."""
    path = folder / s.MANIFEST
    if not path.exists():
        raise core.DataError(f"{folder}: holds no {s.MANIFEST}")
    manifest = core.read_json_file(path)
    if not isinstance(manifest, dict):
        raise core.DataError(f"{path}: must hold a JSON object, got a {type(manifest).__name__}")
    kind = manifest.get("kind", RUN)
    if not isinstance(kind, str) or kind not in KINDS:
        raise core.DataError(
            f"{path}: must have a known kind, got {kind!r:.40}; read it with the "
            "version that saved it"
        )
    if is_begun(folder):
        try:
            own = f"{s.UNFINISHED}{s.name_result(manifest)}"
            name = own if find_kind(kind).can_be_resumed else ""
        except (KeyError, TypeError, AttributeError):
            name = ""
        if folder.resolve().name != name:
            raise core.DataError(
                f"{folder}: {s.MANIFEST} must describe the result that the folder is named after"
            )
    return kind, manifest


def load_saved(folder: Path) -> Saved:
    if is_begun(folder):
        raise core.DataError(
            f"{folder}: must be finished to be loaded; run it again with resume=True"
        )
    kind, _ = open_folder(folder)
    found: Saved = find_kind(kind).load(folder)
    return found


def name_fault(error: Exception, folder: Path) -> str:
    text = str(error).partition("\n")[0]  # lists of results have a line for each
    return text.removeprefix(f"{folder}: ").removeprefix(f"{folder}{os.sep}")


def list_folders(store: Path) -> list[str]:
    try:
        with os.scandir(store) as inside:
            names = [each.name for each in inside if each.is_dir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise core.DataError(
            f"{store}: cannot read the folder of results: {error.strerror or error}"
        ) from error
    listed = (*s.LEFTOVERS, s.UNFINISHED)
    return sorted(name for name in names if name[0] != "." or name.startswith(listed))


def find_folder(name: str, store: Path) -> Path:
    folders = list_folders(store)
    if name in folders:
        return store / name
    if name and is_result(Path(name)):
        return Path(name)
    known = [each for each in folders if is_result(store / each)]
    is_id = len(name) >= SHORTEST  # else the beginning of a name
    fits = [each for each in folders if (name and each.startswith(name))
            or (is_id and each.rpartition("-")[2].startswith(name))]  # fmt: skip
    if len(fits) == 1:
        return store / fits[0]
    if fits:
        shown = ", ".join(fits[:MOST_NAMED]) + (", ..." if len(fits) > MOST_NAMED else "")
        raise core.ParameterError(
            f"a name must match one result in {store}, {name!r:.60} matches {len(fits)}: {shown}"
        )
    raise core.DataError(
        f"no saved result is called {name!r:.60} in {store}{core.did_you_mean(name, known)}; "
        f"{SHORTEST} or more letters of an id are enough"
    )


def is_result(folder: Path) -> bool:
    return (folder / s.MANIFEST).is_file() and not folder.name.startswith(".")


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
        """Return a measure as lists show it to people: no growth per year of few days."""
        if name in EXTRAPOLATED and self.is_short:
            return None
        return self.metrics.get(name)

    @property
    def shown_metrics(self) -> dict[str, float]:
        """The measures that :meth:`find_shown` returns, by name."""
        hidden = EXTRAPOLATED if self.is_short else ()
        return {name: value for name, value in self.metrics.items() if name not in hidden}

    @property
    def is_short(self) -> bool:
        is_dated = bool(self.start and self.end)
        return is_dated and not shows_growth(count_days_between(self.start, self.end))

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


INDEXED = tuple(each.name for each in dataclasses.fields(StoreEntry) if each.name != "metrics")
"""The fields that the index has in this order, beside the measures."""


def list_results(store: Path) -> list[StoreEntry]:
    """Return an entry for each folder of a store; a large store has an index of them."""
    names = list_folders(store)
    if len(names) < SMALLEST:
        entries = [read_entry(store / name) for name in names]
    else:
        entries = list_indexed(store, names)
    return [each for each in entries if not each.trouble or (store / each.name).is_dir()]


def list_indexed(store: Path, names: Sequence[str]) -> list[StoreEntry]:
    """Return the entries of folders, of those alone read that changed since the index was made."""
    entries: list[StoreEntry] = []
    known, rows = read_index(store), dict[str, Row]()
    is_changed = False
    for name in names:
        stamp = stamp_folder(os.path.join(store, name))  # noqa: PTH118 - of ten thousand folders
        row = known.get(name)
        if stamp is not None and row is not None and row.digest == stamp.digest:
            rows[name] = row
            fields = dict(zip(INDEXED, row.fields, strict=True))
            entries.append(StoreEntry(**fields, metrics=row.metrics))
            continue

        # stamped before it is read: what changes meanwhile is read again the next time
        entry = read_entry(store / name)
        entries.append(entry)
        is_whole = entry.is_finished and not entry.trouble
        is_whole &= all(type(value) is float for value in entry.metrics.values())
        if is_whole and stamp is not None and is_settled(stamp):
            values = [getattr(entry, each) for each in INDEXED]
            rows[name] = Row(stamp.digest, values, entry.metrics)
            is_changed = True
    if is_changed or len(rows) < len(known):
        write_index(store, rows)
    return entries


def read_entry(folder: Path) -> StoreEntry:
    entry = try_entry(folder)
    # what another process was replacing meanwhile is read again
    return try_entry(folder) if entry.trouble and entry.kind != LEFTOVER else entry


def try_entry(folder: Path) -> StoreEntry:
    kind, disk, lock = UNKNOWN, {}, folder / LOCK
    try:
        disk = measure_disk(folder)
        if folder.name.startswith(s.LEFTOVERS):
            busy = core.is_lock_held(lock)
            inner = [each.name for each in folder.glob("*") if each.is_dir()]
            about = f" of {inner[0]}" if len(inner) == 1 else ""
            what = "is being written now" if busy else f"was left by a process that died{about}"
            return StoreEntry(folder.name, LEFTOVER, f"it {what}", **disk, is_busy=busy)
        kind, manifest = open_folder(folder)
        data = manifest["data"]
        facts = {
            "id": manifest["id"],
            "source": str(data.get("source", "")),
            **{name: str(data[name] or "") for name in ("instrument", "interval", "start", "end")},
            "is_synthetic": bool(data.get("synthetic")),
        }
        if is_begun(folder):
            note, busy = find_kind(kind)._read_progress(folder, manifest), core.is_lock_held(lock)
            facts |= {**describe_search(manifest), "note": note, "is_finished": False,
                      "is_busy": busy}  # fmt: skip
        else:
            for name, fault in s.find_faults(folder, manifest, find_kind(kind), with_hashes=False):
                return StoreEntry(folder.name, kind, f"{name}: {fault}; {s.CURE}", **disk)
            facts |= find_kind(kind)._read_line(folder, manifest)
            facts |= summarize_making(core.read_provenance(folder, facts["id"]))
        return StoreEntry(folder.name, kind, **{**disk, **facts})
    except core.BacktestError as error:
        text = name_fault(error, folder)
    except Exception as error:  # a damaged file may raise anything
        text = f"it cannot be read: {type(error).__name__}: {error}"
    return StoreEntry(folder.name, kind, text, **disk)


def measure_disk(folder: Path) -> dict[str, Any]:
    facts = {}
    for each in (*folder.rglob("*"), folder):
        with contextlib.suppress(FileNotFoundError):  # a draft that was renamed since
            facts[each] = each.lstat()
    newest = max((each.st_mtime_ns for each in facts.values()), default=0)
    manifest = facts.get(folder / s.MANIFEST)
    size = sum(each.st_size for path, each in facts.items() if not path.is_dir())
    return {"saved": newest if manifest is None else manifest.st_mtime_ns, "size": size}


def describe_note(entry: StoreEntry) -> str:
    if entry.is_finished:
        return entry.note
    return f"{entry.note}, {'running' if entry.is_busy else 'unfinished'}"


def count_kinds(entries: Iterable[StoreEntry]) -> str:
    counts = Counter(each.kind for each in entries)
    plurals = {name: str(find_kind(name).plural) for name in KINDS}
    plurals[LEFTOVER] = f"{LEFTOVER}s"
    return ", ".join(f"{n:,} {kind if n == 1 else plurals.get(kind, kind)}"
                     for kind, n in counts.items()) or "none"  # fmt: skip


def summarize_making(making: core.Making | None) -> dict[str, Any]:
    if making is None:
        return {}
    commits = {
        name: each.removesuffix(provenance.DIRTY) for name, each in making.code.items() if each
    }
    own = commits.pop(provenance.PACKAGE, "")
    return {
        "seconds": making.seconds,
        "commit": ", ".join(dict.fromkeys(commits.values())),
        "backtest_commit": own,
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


FIELDS = ("saved", "name", "kind", "policy", "size", "seconds")


class Filter(NamedTuple):
    """Conditions that select entries; an entry must satisfy all.

    ``policy`` is a part of the policy, ``text`` one of name, policy, data or note; case is ignored.
    An entry without a measure matches no bound on it. ``since`` and ``before`` are in ns.
    """

    kinds: tuple[str, ...] = ()
    policy: str = ""
    text: str = ""
    bounds: tuple[Constraint, ...] = ()
    since: int | None = None
    before: int | None = None

    def matches(self, entry: StoreEntry) -> bool:
        words = (entry.name, entry.policy, entry.instrument, entry.source, entry.note)
        is_named = not self.policy or normalize_name(self.policy) in normalize_name(entry.policy)
        return (
            not entry.trouble
            and (not self.kinds or entry.kind in self.kinds)
            and is_named
            and any(self.text.casefold() in word.casefold() for word in words)
            and (not self.bounds or self.is_within_bounds(entry))
            and (self.since is None or entry.saved >= self.since)
            and (self.before is None or entry.saved < self.before)
        )

    def is_within_bounds(self, entry: StoreEntry) -> bool:
        named = ("ruined", *(bound.name for bound in self.bounds))
        known = {name: np.array([entry.metrics.get(name, math.nan)]) for name in named}
        return all(bound.violation(known)[0] == 0.0 for bound in self.bounds)


def normalize_name(text: str) -> str:
    return re.sub(r"[\s_-]", "", text).casefold()


def read_kinds(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(core.Choice(*KINDS).check("kind", each) for each in texts)


def read_time_or_age(text: str, now: int, *, where: str) -> int:
    """Return the time of a date, or of an age before ``now`` such as ``"7d"``, in nanoseconds."""
    with contextlib.suppress(core.ParameterError):
        return now - core.parse_duration(text)
    return core.to_nanoseconds(text, where)


def sort_entries(
    entries: Iterable[StoreEntry], by: str = "saved", *, is_reversed: bool = False
) -> list[StoreEntry]:
    if by not in (*FIELDS, *ABOUT):
        raise core.ParameterError(
            f"sort must be a measure (docs/metrics.md) or one of {', '.join(FIELDS)}, got "
            f"{by!r:.40}{core.did_you_mean(by, (*FIELDS, *ABOUT))}"
        )
    named = sorted(entries, key=lambda each: each.name)
    if by not in FIELDS:
        return sort_by_measure(named, by, is_reversed=is_reversed)
    falls = (by in ("saved", "size")) != is_reversed
    known = [each for each in named if getattr(each, by) is not None]
    found = sorted(known, key=lambda each: getattr(each, by), reverse=falls)
    return found + [each for each in named if getattr(each, by) is None]


def sort_by_measure(entries: list[StoreEntry], by: str, *, is_reversed: bool) -> list[StoreEntry]:
    turned = entries[::-1] if is_reversed else entries  # equal ones stay in the order of names
    values, ruined, days = (
        np.array([each.metrics.get(name, math.nan) for each in turned])
        for name in (by, "ruined", "ruin_time")
    )
    better = ABOUT[by].better
    ruined = ruined if better else np.full(len(turned), math.nan)
    failed = np.isnan(values) & np.isnan(ruined)
    scores = -values if better < 0 else values
    order = order_sets(scores, np.zeros(len(turned)), ruined, days, failed)
    ranked, n = [turned[k] for k in order], int(np.sum(~failed))
    return ranked[:n][::-1] + ranked[n:][::-1] if is_reversed else ranked


class Origin(NamedTuple):
    command: str = ""
    remarks: tuple[str, ...] = ()


UNTOLD = Origin()


def describe_origin(manifest: Mapping[str, Any], making: core.Making | None) -> Origin:
    argv = making.argv if making else ()
    if not argv:
        kind = str(manifest.get("kind"))
        one = {"": manifest["policy"]} if "policy" in manifest else {}
        policies = manifest.get("policies") or one
        names = ", ".join(str(each.get("text") or each["name"]) for each in policies.values())
        module = f" of {manifest['policy_module']}" if "policy_module" in manifest else ""
        source = manifest["data"].get("source") or manifest.get("source", "data of no known source")
        parts = [
            find_kind(kind).call if kind in KINDS else "bt.run",
            f"{names}{module}",
            str(source),
        ]
        return Origin("", (f"made in Python: {', '.join(filter(None, parts))}",))
    files = [word for word in argv if Path(word.partition(":")[0]).suffix in (".toml", ".py")]
    remarks = (f"it reads {', '.join(files)} as it is now",) if files else ()
    return Origin(shlex.join(argv), remarks)


@dataclass(frozen=True)
class FolderCheck:
    name: str
    kind: str
    files: int
    faults: tuple[tuple[str, str], ...]
    remarks: tuple[tuple[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        named = {key: [{"file": name, "what": what} for name, what in getattr(self, key)]
                 for key in ("faults", "remarks")}  # fmt: skip
        return {"name": self.name, "kind": self.kind, "files": self.files, **named}


def verify_folder(folder: Path) -> FolderCheck:
    name = folder.name
    if folder.name.startswith(s.LEFTOVERS) or is_begun(folder):
        begun = read_entry(folder)
        note = begun.trouble or "is not finished: continue it with its command and --resume"
        return FolderCheck(name, begun.kind, 0, (), ((".", note),))
    if not (folder / s.MANIFEST).exists() and not (folder / provenance.PROVENANCE).exists():
        return FolderCheck(name, UNKNOWN, 0, (), ((".", "is not a result"),))
    kind, files, remarks = UNKNOWN, 0, []
    try:
        kind, manifest = open_folder(folder)
        files = sum(each.is_file() and each.name != LOCK for each in folder.rglob("*"))
        faults = list(dict.fromkeys(list_faults(folder, kind, manifest)))
        if not faults:
            load_saved(folder)
        if not (folder / provenance.PROVENANCE).is_file():
            remarks = [
                (provenance.PROVENANCE, "is missing: the code that made the result is not known")
            ]
    except core.BacktestError as error:
        faults = [locate_fault(error, folder)]
    except Exception as error:  # a damaged file may raise anything
        faults = [(".", f"cannot be read: {type(error).__name__}: {error}")]
    return FolderCheck(name, kind, files, tuple(faults), tuple(remarks))


def locate_fault(error: core.BacktestError, folder: Path) -> tuple[str, str]:
    """Return the file of a fault, "." for the whole folder, and what is wrong."""
    text = name_fault(error, folder)
    name, colon, what = text.partition(": ")
    is_of_file = bool(colon) and str(error).startswith(f"{folder}{os.sep}")
    return (name, what) if is_of_file else (".", text)


def list_faults(folder: Path, kind: str, manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from s.find_faults(folder, manifest, find_kind(kind))
    try:
        core.read_provenance(folder, str(manifest.get("id")))
    except core.BacktestError as error:
        yield locate_fault(error, folder)
    for inner in find_kind(kind).inner:
        for account in sorted((folder / inner).iterdir()):
            for name, what in verify_folder(account).faults:
                yield f"{inner}/{account.name}/{name}".removesuffix("/."), what
    yield from ((name, "is not part of the result") for name in list_foreign(folder, kind))


def list_foreign(folder: Path, kind: str) -> list[str]:
    saved = find_kind(kind)
    own = (*saved.files(), *saved.inner, s.MANIFEST, provenance.PROVENANCE, LOCK)
    return sorted(each.name for each in folder.iterdir() if each.name not in own)


ID = re.compile(r"[0-9a-f]{16}")


class KeptFolder(NamedTuple):
    name: str
    why: str


def choose_deletions(
    store: Path,
    wanted: Filter | None,
    *,
    keep: int = 0,
    with_unfinished: bool = False,
    with_damaged: bool = False,
) -> tuple[list[StoreEntry], list[KeptFolder]]:
    """Return the results to delete, and the folders that are not known to be results.

    Without a filter only those that ``with_unfinished`` and ``with_damaged`` name are chosen.
    """
    entries = [each for each in list_results(store) if not each.is_busy]
    matches = Filter().matches if wanted is None else wanted.matches
    meant = sort_entries(
        each for each in entries if matches(each) and not (wanted is None and each.is_finished)
    )
    chosen = [each for each in meant[keep:] if each.is_finished or with_unfinished]
    troubled = [each for each in entries if each.trouble]
    chosen += [each for each in troubled if with_damaged  # or the remains of a replacement
               or (each.name.startswith(s.LEFTOVERS)
                   and not (store / each.name / REPLACED).exists())]  # fmt: skip
    reasons = [(each, find_reason_to_keep(store / each.name)) for each in chosen]
    kept = [KeptFolder(each.name, why) for each, why in reasons if why]
    return [each for each, why in reasons if not why], kept


def delete_chosen(store: Path, chosen: Sequence[StoreEntry]) -> tuple[list[str], list[str]]:
    """Return the names of what was deleted, and of what is in use now or cannot be deleted."""
    for entry in chosen:
        folder = store / entry.name
        if not core.is_lock_held(folder / LOCK) and not find_reason_to_keep(folder):
            core.discard_folder(folder)
    left = [each.name for each in chosen if os.path.lexists(store / each.name)]
    return [each.name for each in chosen if each.name not in left], left


def find_reason_to_keep(folder: Path) -> str:
    """Return why a folder is not known to be a result; only its manifest makes it one."""
    try:
        if folder.is_symlink():
            return "it is a link"
        linked = next((each.name for each in folder.rglob("*") if each.is_symlink()), "")
        if linked:
            return f"it holds the link {linked!r}"
        if folder.name.startswith(s.LEFTOVERS):
            moved = all(
                each.name == LOCK
                or (each.is_dir() and bool(each.name == REPLACED
                                           or ID.fullmatch(each.name.rpartition("-")[2])))
                for each in folder.iterdir()
            )  # fmt: skip
            return "" if moved else "it holds other files"
        if is_begun(folder) and not any(folder.iterdir()):
            return ""
        kind, manifest = open_folder(folder)
        files = {*find_kind(kind).files()}
        is_known = is_begun(folder) or {*manifest.get("files", ())} == files
        if not is_known or not ID.fullmatch(str(manifest.get("id"))):
            return f"its {s.MANIFEST} does not describe a result"
        foreign = [] if is_begun(folder) else list_foreign(folder, kind)
        return f"it holds {foreign[0]!r}, which no result has" if foreign else ""
    except core.BacktestError as error:
        return name_fault(error, folder)
    except (OSError, TypeError) as error:
        return f"it cannot be read: {error}"
