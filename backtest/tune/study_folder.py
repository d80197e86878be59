"""The files of a study. Each is written completely or not at all, and none is code.

``study.json`` describes the study. ``trials/000000.parquet`` and the following files hold batches
of sets with their results, ``outcome.json`` the conclusion. The process that runs the study holds
``lock``; the operating system releases it when that process ends.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from backtest.base import (
    DataError,
    LockHeldError,
    from_plain,
    hash_file,
    hold_lock_file,
    parse_json,
    read_small,
    to_plain,
    write_file,
)
from backtest.base.atomic_files import DRAFT_FILE, LOCK

FORMAT = 1
STUDY, OUTCOME, TRIALS = "study.json", "outcome.json", "trials"


def write_study_file(path: Path, content: bytes) -> None:
    """Write a file of a study completely, or leave it as it was before."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, content)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> DataError:
    """Return the error for a folder that cannot be written."""
    cure = (
        "free some space or make the folder writable, then use resume=True; the trials in "
        "the folder are kept. Or choose another store"
    )
    if isinstance(error, FileExistsError | NotADirectoryError):
        cure = "a file is in the way: move it, or choose another store"
    return DataError(
        f"cannot write the study: {error.strerror or error}",
        where=str(path),
        cure=cure,
    )


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write data as JSON, completely or not at all."""
    text = json.dumps(to_plain(data), indent=1, allow_nan=False, ensure_ascii=False)
    write_study_file(path, f"{text}\n".encode())


def read_json(path: Path) -> dict[str, Any]:
    """Return what :func:`write_json` wrote, unless it is damaged or has another format."""
    cure = "give the folder of a study (Study.folder), or restore the file"
    try:
        data = parse_json(read_small(path, cure=cure), path, cure=cure)
    except OSError as error:
        raise DataError(
            f"cannot read {path.name} of the study: {error.strerror or error}",
            where=str(path),
            cure=cure,
        ) from error
    found = data.get("format") if isinstance(data, dict) else type(data).__name__
    if found != FORMAT:
        raise DataError(
            f"the format of a study must be {FORMAT}, got {found!r}",
            where=str(path),
            cure="use the version that wrote it, or choose another store",
        )
    plain: dict[str, Any] = from_plain(data)
    return plain


def seal_outcome(folder: Path, outcome: Mapping[str, Any]) -> dict[str, Any]:
    """Return an outcome with the hashes of the files it is based on, and of itself."""
    paths = [folder / STUDY, *sorted((folder / TRIALS).glob("[0-9]*.parquet"))]
    hashes = {path.relative_to(folder).as_posix(): hash_file(path) for path in paths}
    sealed = {**outcome, "files": hashes}
    return {**sealed, "seal": hash_outcome(sealed)}


def hash_outcome(outcome: Mapping[str, Any]) -> str:
    """Return the SHA-256 of an outcome without its seal."""
    plain = to_plain({name: value for name, value in outcome.items() if name != "seal"})
    text = json.dumps(plain, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def find_broken(folder: Path, outcome: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the files of a finished study that have changed, each with what is wrong.

    Outcomes of early versions have no seal to check.
    """
    if "seal" not in outcome:
        return
    if outcome["seal"] != hash_outcome(outcome):
        yield OUTCOME, "changed"
        return
    stored = {f"{TRIALS}/{path.name}" for path in (folder / TRIALS).glob("[0-9]*.parquet")}
    for name in sorted({*outcome["files"], *stored}):
        if not (folder / name).is_file():
            yield name, "missing"
        elif name not in outcome["files"]:
            yield name, "added after the study was finished"
        elif hash_file(folder / name) != outcome["files"][name]:
            yield name, "changed or truncated"


@contextmanager
def hold_lock(folder: Path) -> Iterator[None]:
    """Lock a study, so that no other process works on it, until the process ends at the latest."""
    with ExitStack() as stack:
        try:
            stack.enter_context(hold_lock_file(folder / LOCK))
        except LockHeldError as error:
            raise DataError(
                f"another process ({error.holder}) is already running this study",
                where=str(folder),
                cure="wait for it to end, or end it; another seed is another study",
            ) from error
        except OSError as error:
            raise cannot_write(folder / LOCK, error) from error
        yield


def clear_drafts(folder: Path) -> None:
    """Delete the files that a killed process did not finish; for the holder of the lock only."""
    for path in (*folder.glob(f"{DRAFT_FILE}*"), *(folder / TRIALS).glob(f"{DRAFT_FILE}*")):
        path.unlink(missing_ok=True)
