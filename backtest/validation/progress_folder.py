"""The hidden folder of an unfinished validation, from which it can be resumed.

``manifest.json`` says what is validated, ``lock`` is held by the process that works on it, and what
was evaluated lies in ``fold-00000/`` (``schedule-000/fold-00000/``) or ``sets-00000.parquet``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from backtest.base import (
    Argument,
    Either,
    ParameterError,
    Phrase,
    Place,
    PolicyError,
    discard_folder,
    name_folder,
    repr_plain,
)
from backtest.base.result_folders import MANIFEST
from backtest.tune import clear_drafts, hold_lock, write_json

UNFINISHED = ".unfinished-"
"""Prefix of the name of the folder."""
FORMAT = 1
ANEW = Either("pass resume=False", Phrase("leave out {}", Argument("resume")))


def name_result(manifest: Mapping[str, Any]) -> str:
    """Return the name of the folder of a finished validation."""
    return name_folder(f"{manifest['policy']['name']} {manifest['kind']}", manifest["id"])


def read_store(store: object) -> Path:
    """Return the folder of results that a validation was given."""
    if not isinstance(store, str | Path):
        raise ParameterError(
            f"store must be a folder, got {repr_plain(store):.60}",
            where=Place("store"),
            cure="give the folder of saved results, or leave it out",
        )
    return Path(store)


def find_finished(
    store: str | Path | None, manifest: Mapping[str, Any], *, resume: bool | None
) -> Path | None:
    """Return the folder of the result that ``resume=True`` gives back; None if there is work."""
    if not resume or store is None:
        return None
    folder = read_store(store)
    finished, begun = (folder / f"{k}{name_result(manifest)}" for k in ("", UNFINISHED))
    return finished if (finished / MANIFEST).is_file() and not begun.is_dir() else None


@contextlib.contextmanager
def open_progress(
    store: str | Path | None, manifest: Mapping[str, Any], *, resume: bool | None
) -> Iterator[Path | None]:
    """Yield the locked folder for the batches of a validation; None without a store.

    It is deleted at the end of the block, and stays after Ctrl-C or a crash. With None for
    ``resume``, what was begun goes on.

    Raises
    ------
    ParameterError
        If the same validation was begun and ``resume`` is False, or if there is none to resume.
    DataError
        If another process works on it.
    """
    where = Place("resume", of=f"bt.{str(manifest['kind']).replace('-', '_')}")
    if store is None:
        if resume:
            raise ParameterError(
                "a validation must have a store to be resumed, got store=None",
                where=where,
                cure=Phrase(
                    "pass the store that it was started in, {}", Argument("store", "results")
                ),
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
    """Write the description of the validation, once, for lists of results."""
    if not path.is_file():
        write_json(path, {"format": FORMAT, **manifest})


def check_begun(folder: Path, *, resume: bool | None) -> None:
    """Raise if a validation to start exists already, or one to resume does not."""
    if resume and not folder.is_dir():
        raise ParameterError(
            "there is no validation of these data, policy source and settings to resume",
            where=str(folder.parent),
            cure=Phrase("{}, or give the store and the arguments that it was started with", ANEW),
        )
    if folder.is_dir() and resume is False:
        raise ParameterError(
            "this validation was already started",
            where=str(folder),
            cure=Phrase("pass {} to continue it, or delete that folder", Argument("resume", True)),
        )
