"""The kinds of saved results: their files and formats, and which kind a folder holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from backtest.base.atomic_files import LOCK
from backtest.base.errors import DataError
from backtest.base.provenance import PROVENANCE
from backtest.base.result_folders import LEFTOVERS, MANIFEST, read_json_file
from backtest.compare import comparison_files as compare_storage
from backtest.crowd import Cascade, Crowding, SimulatedMarket
from backtest.crowd.crowd_record import FORMAT as CROWD_FORMAT
from backtest.engine import compute_id, result_files
from backtest.engine.manifest import PORTFOLIO as OF_SEVERAL
from backtest.paths import LiquidationRisk, MaxLeverage
from backtest.paths.risk_record import FORMAT as RISK_FORMAT
from backtest.pockets import AllocationResult, Runway
from backtest.scenarios import Bounds, Capacity, Sensitivity, Stress
from backtest.sweep import sweep_files
from backtest.tune import OUTCOME, STUDY, TRIALS
from backtest.validation import validation_files as validation_storage

CROWD_CLASSES = {each.kind: each for each in (Cascade, SimulatedMarket, Crowding)}
"""The classes of results of crowds, by kind."""
RISK_CLASSES = {
    each.kind: each
    for each in (
        *(LiquidationRisk, MaxLeverage, Stress, Bounds, Sensitivity),
        *(AllocationResult, Runway, Capacity),
    )
}
"""The classes of results about risk, by kind."""
PORTFOLIO = OF_SEVERAL
RUN, SWEEP, STUDY_KIND, COMPARISON = FIRST_KINDS = ("run", "sweep", "study", "comparison")
WALK, CROSS, SCHEDULES = VALIDATIONS = ("walk-forward", "cross-validation", "schedules")
KINDS = (*FIRST_KINDS, *VALIDATIONS, *CROWD_CLASSES, *RISK_CLASSES, PORTFOLIO)
LEFTOVER, UNKNOWN = "leftover", "unknown"
PLURALS = {
    STUDY_KIND: "studies",
    WALK: "walks forward",
    "max-leverage": "max-leverages",
    "stress": "stress tests",
    "sensitivity": "sensitivities",
    "capacity": "capacities",
    **{kind: kind for kind in (SCHEDULES, "crowding", "bounds")},
}
FORMATS = {
    RUN: (result_files.FORMATS[result_files.RUN], result_files.FILES),
    SWEEP: (sweep_files.FORMAT, (sweep_files.TABLE,)),
    COMPARISON: (compare_storage.FORMAT, compare_storage.FILES),
    PORTFOLIO: (result_files.FORMATS[PORTFOLIO], result_files.FILES_OF[PORTFOLIO]),
    **{kind: (CROWD_FORMAT, each.files()) for kind, each in CROWD_CLASSES.items()},
    **{kind: (RISK_FORMAT, each.files()) for kind, each in RISK_CLASSES.items()},
    **{
        kind: (validation_storage.FORMAT, validation_storage.list_files(tables))
        for kind, tables in validation_storage.TABLES.items()
    },
}
"""The format number and the files of each kind that has a manifest."""
NOT_IN_ID = {
    RUN: ("policy_module", "compiled", "causality", "margin_table", "margin_tables"),
    SWEEP: ("policy_module", "mixed", "causality"),
    COMPARISON: (),
    PORTFOLIO: ("compared_with", "compiled", "causality", "margin_table"),
    **dict.fromkeys((*CROWD_CLASSES, *RISK_CLASSES), ()),
    **dict.fromkeys(VALIDATIONS, ("policy_module",)),
}
"""Manifest entries that the id does not depend on."""


def name_kind(kind: str, n: int) -> str:
    """Return the name of a kind, in the plural unless n is 1.

    Examples
    --------
    >>> name_kind("study", 2), name_kind("run", 1), name_kind("damaged", 3)
    ('studies', 'run', 'damaged')
    """
    if n == 1 or kind not in (*KINDS, LEFTOVER):
        return kind
    return PLURALS.get(kind, f"{kind}s")


def is_foreign_folder(folder: Path) -> bool:
    """Return whether a folder holds no file of a result at all."""
    names = {MANIFEST, PROVENANCE, STUDY, OUTCOME, TRIALS, LOCK}
    names |= {name for _, files in FORMATS.values() for name in files}
    is_left = folder.name.startswith(LEFTOVERS)
    return not is_left and not any((folder / name).exists() for name in names)


def open_folder(folder: Path) -> tuple[str, dict[str, Any]]:
    """Return the kind of a saved result, and its manifest or study description."""
    if (folder / STUDY).exists():
        return STUDY_KIND, read_json_object(folder / STUDY)
    if not (folder / MANIFEST).exists():
        raise DataError(
            f"it holds no {MANIFEST} and no {STUDY}",
            where=str(folder),
            cure="restore the file, or delete the folder",
        )
    manifest = read_json_object(folder / MANIFEST)
    kind = manifest.get("kind", RUN)
    if not isinstance(kind, str) or kind not in FORMATS:
        raise DataError(
            f"{MANIFEST} must have a known kind, got {kind!r:.40}",
            where=str(folder / MANIFEST),
            cure="read it with the version that saved it",
        )
    return kind, manifest


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file."""
    found = read_json_file(path)
    if not isinstance(found, dict):
        raise DataError(
            f"{path.name} must hold a JSON object, got a {type(found).__name__}",
            where=str(path),
            cure="restore the file, or delete the folder",
        )
    return found


def hash_manifest(manifest: Mapping[str, Any], kind: str) -> str:
    """Return the id that the content of a manifest makes."""
    aside = ("format", "files", "id", *NOT_IN_ID[kind])
    return compute_id({name: value for name, value in manifest.items() if name not in aside})


def find_manifest_faults(manifest: Mapping[str, Any], kind: str) -> Iterator[str]:
    """Yield the faults of a manifest: its format, or else its id and its hashes of files."""
    format_, files = FORMATS[kind]
    if manifest.get("format") != format_:
        yield f"is of format {manifest.get('format')!r:.40}, not {format_}"
        return
    if manifest.get("id") != hash_manifest(manifest, kind):
        yield "was changed: its id does not match its content"
    hashes = manifest.get("files")
    if not isinstance(hashes, Mapping) or set(hashes) != {*files}:
        yield f"must have the hashes of {', '.join(files)}"
