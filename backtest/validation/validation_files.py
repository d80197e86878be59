"""Save and load validations: Parquet tables, JSON figures, and the accounts as saved results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from backtest.base.errors import DataError
from backtest.base.json_values import from_plain
from backtest.base.provenance import attach_saved_making, find_making, write_provenance
from backtest.base.result_folders import (
    MANIFEST,
    hash_file,
    read_json_file,
    read_manifest,
    save_folder,
    write_folder_manifest,
    write_json_file,
)
from backtest.base.saved_tables import (
    drop_file_keys,
    list_table_files,
    read_tables,
    write_tables,
)
from backtest.engine import Result
from backtest.validation.progress_folder import name_result

FORMAT = 1
FIGURES = "figures.json"
TABLES = {
    "walk-forward": ("folds", "stability", "trials"),
    "cross-validation": ("splits", "paths", "matrix", "sets", "curves", "trials"),
    "schedules": ("table", "folds", "returns"),
}
"""Tables of each kind of validation."""
ACCOUNTS = "accounts"
"""Folder with the accounts, each a saved result of its own."""
TITLES = ("result", "fixed")
"""Names of the folders of the accounts of a walk."""


class SavedValidation(NamedTuple):
    """Content of the folder of a validation."""

    folder: Path
    manifest: dict[str, Any]
    tables: dict[str, pd.DataFrame]
    figures: dict[str, Any]
    accounts: dict[str, Result]

    def attach(self, made: object) -> None:
        """Attach the saved provenance to the validation made of this."""
        attach_saved_making(made, self.folder, self.manifest["id"])


def list_files(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the files of a validation with these tables."""
    return (*list_table_files(names), FIGURES)


def save_validation(
    made: Any,
    folder: Path,
    tables: Mapping[str, pd.DataFrame],
    accounts: Mapping[str, Result],
) -> Path:
    """Write a validation into a folder of its own; it appears whole or not at all."""
    name = name_result(made.manifest)
    policies = {type(policy) for each in accounts.values() for policy in list_policies(each)}
    making = find_making(made, policies)

    def write(draft: Path) -> None:
        write_tables(tables, draft)
        seals = {}
        for title, account in accounts.items():
            account.save(draft / ACCOUNTS / title).rename(draft / ACCOUNTS / f".{title}")
            (draft / ACCOUNTS / title).rmdir()
            (draft / ACCOUNTS / f".{title}").rename(draft / ACCOUNTS / title)
            seals[title] = hash_file(draft / ACCOUNTS / title / MANIFEST)
        write_json_file({"figures": made.figures, "accounts": seals}, draft / FIGURES)
        write_folder_manifest(draft, made.manifest, list_files(tuple(tables)), FORMAT)
        write_provenance(draft, folder / name, made.manifest["id"], making)

    return save_folder(folder, name, write, what=str(made.manifest["kind"]))


def load_tables(folder: Path, kind: str) -> SavedValidation:
    """Read the folder of a validation, after checking the hashes of all its files."""
    cure, names = "give the folder that save returned", TABLES[kind]
    manifest = read_manifest(folder, list_files(names), FORMAT, what=kind, cure=cure)
    stored = from_plain(read_json_file(folder / FIGURES))
    accounts = {
        title: load_account(folder / ACCOUNTS / title, seal)
        for title, seal in stored["accounts"].items()
    }
    return SavedValidation(
        folder=folder,
        manifest=drop_file_keys(manifest),
        tables=read_tables(folder, names),
        figures=stored["figures"],
        accounts=accounts,
    )


def list_policies(account: Any) -> list[Any]:
    """Return the policies of an account with one position, or with several; none if loaded."""
    return [*account.policies.values()] + ([account.overlay] if account.overlay else [])


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
