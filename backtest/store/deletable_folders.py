"""Decide which folders of a store are its own: nothing else may ever be deleted.

A result is known by its manifest, or the description of a study, with its id; a leftover by the
name that writers give it and by holding nothing but files of a result. A folder of market data, a
web page or notes beside a result were put there by somebody.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from backtest.base.atomic_files import DRAFT_FILE, LOCK, REPLACED
from backtest.base.errors import DataError
from backtest.base.provenance import PROVENANCE
from backtest.base.result_folders import DRAFT, MANIFEST, read_json_file
from backtest.store.kinds import FORMATS, RUN, hash_manifest
from backtest.tune.study_folder import OUTCOME, STUDY, TRIALS

ID = re.compile(r"[0-9a-f]{16}")
HASH = re.compile(r"[0-9a-f]{64}")
FILE = re.compile(r"[a-z_]+\.(parquet|json)")
BATCH = re.compile(rf"{TRIALS}/[0-9]{{6,}}\.parquet")
OF_A_STUDY = (STUDY, OUTCOME, LOCK, PROVENANCE, f"{TRIALS}/")
LISTED = 3


def find_reason_to_keep(folder: Path) -> str:
    """Return why a folder must be kept, since it is not known to be a result; empty if it is.

    Parameters
    ----------
    folder : Path
        A folder of the store; a link to a result is the store's, what it leads to is never deleted.
    """
    try:
        if os.path.ismount(folder):
            return "it is a mount"
        if folder.name.startswith(DRAFT):
            return check_draft(folder)
        if folder.name[0] == "." and not folder.is_symlink():
            return check_deleted(folder)
        return check_result(folder)
    except DataError as error:
        return error.problem
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"


def check_draft(folder: Path) -> str:
    """Return why the draft of a writer must be kept: it holds something else than a result."""
    files = {MANIFEST, PROVENANCE, *(name for _, names in FORMATS.values() for name in names)}
    known = {LOCK, *files}  # earlier versions wrote the files into the draft itself
    for each in folder.iterdir():
        if each.name == REPLACED or ID.fullmatch(each.name.rpartition("-")[2]):
            known |= {f"{each.name}/", *(f"{each.name}/{name}" for name in files)}
    return name_foreign_files(folder, known)


def check_deleted(folder: Path) -> str:
    """Return why the folder of a deletion, or of a replaced result, must be kept."""
    inside = [each for each in folder.iterdir() if each.name != LOCK]
    if len(inside) > 1 or any(each.is_symlink() or not each.is_dir() for each in inside):
        return "it holds more than the result that was to be deleted"
    return check_result(inside[0]) if inside and any(inside[0].iterdir()) else ""


def check_result(folder: Path) -> str:
    """Return why a folder is no run, sweep or comparison; empty if it is, or a study."""
    if (folder / STUDY).is_file():
        return check_study(folder)
    if not (folder / MANIFEST).is_file():
        return f"it holds no {MANIFEST} and no {STUDY} with an id"
    facts = read_facts(folder / MANIFEST)
    kind = facts.get("kind", RUN)
    if not isinstance(kind, str) or kind not in FORMATS or not is_sealed(facts):
        return f"its {MANIFEST} is not that of a result"
    if not names_it(folder, facts["id"]) and not is_its_hash(facts, kind):
        return f"its {MANIFEST} has an id that is neither its own nor in the folder's name"
    return name_foreign_files(folder, {MANIFEST, PROVENANCE, *facts["files"]})


def check_study(folder: Path) -> str:
    """Return why a folder is no study; empty if it is."""
    facts = read_facts(folder / STUDY)
    is_study = has_id(facts) and all(
        isinstance(facts.get(name), Mapping) for name in ("data", "policy", "space")
    )
    if not is_study or not names_it(folder, facts["id"]):
        return f"its {STUDY} is not that of a study"
    return name_foreign_files(folder, {*OF_A_STUDY})


def read_facts(path: Path) -> dict[str, Any]:
    """Return the data of a manifest or of a study; none where they are no object.

    Raises
    ------
    DataError
        If it cannot be read.
    """
    found = read_json_file(path)
    return found if isinstance(found, dict) else {}


def has_id(facts: Mapping[str, Any]) -> bool:
    """Return whether a manifest, or the description of a study, has a format and an id of ours."""
    identity, format_ = facts.get("id"), facts.get("format")
    return isinstance(identity, str) and ID.fullmatch(identity) is not None and type(format_) is int


def is_sealed(facts: Mapping[str, Any]) -> bool:
    """Return whether a manifest of any format has an id and the hashes of its files."""
    files = facts.get("files")
    return (
        has_id(facts)
        and isinstance(files, Mapping)
        and bool(files)
        and all(FILE.fullmatch(name) and HASH.fullmatch(str(files[name])) for name in files)
    )


def names_it(folder: Path, identity: str) -> bool:
    """Return whether the name of a folder, or of what a link leads to, ends with an id."""
    return folder.name.endswith(f"-{identity}") or folder.resolve().name.endswith(f"-{identity}")


def is_its_hash(facts: Mapping[str, Any], kind: str) -> bool:
    """Return whether the id of a manifest is the hash of its content."""
    try:
        return bool(hash_manifest(facts, kind) == facts["id"])
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return False


def name_foreign_files(folder: Path, known: set[str]) -> str:
    """Return what a folder holds besides the files of a result; nothing where that is all."""
    device = folder.stat().st_dev
    found = [name for name in find_foreign_files(folder, "", known, device) if name not in known]
    more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
    named = ", ".join(map(repr, sorted(found)[:LISTED]))
    return f"it holds {named}{more}, which no result has" if found else ""


def find_foreign_files(folder: Path, prefix: str, known: set[str], device: int) -> Iterator[str]:
    """Yield what lies in a folder and is no plain file of a known name, or no folder of trials."""
    with os.scandir(folder) as entries:
        for each in entries:
            facts = each.stat(follow_symlinks=False)
            name = f"{prefix}{each.name}"
            if stat.S_ISDIR(facts.st_mode) and f"{name}/" in known and facts.st_dev == device:
                yield from find_foreign_files(Path(each.path), f"{name}/", known, device)
            elif not stat.S_ISREG(facts.st_mode):
                yield f"{name}/" if stat.S_ISDIR(facts.st_mode) else f"{name} (no plain file)"
            elif not (name in known or is_batch(name, known)):
                yield name


def is_batch(name: str, known: set[str]) -> bool:
    """Return whether a file is one of a study's trials, or the draft of a file of a study."""
    is_draft = name.removeprefix(f"{TRIALS}/").startswith(DRAFT_FILE)
    return f"{TRIALS}/" in known and (is_draft or BATCH.fullmatch(name) is not None)


def describe_removal(folder: Path) -> str:
    r"""Return how a folder is removed by hand, by whoever knows that nobody needs it.

    Examples
    --------
    >>> describe_removal(Path("results/my data"))
    "rm -r 'results/my data'"
    """
    return f"rm -r {shlex.quote(str(folder))}"
