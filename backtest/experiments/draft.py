"""An experiment as it is written: its file is read, checked, and its paths are found."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from backtest import core
from backtest.experiments.tables import ACCOUNTS, SAMPLE, ReadKeys, is_policy, refuse_faults

Tables = dict[str, dict[str, Any]]
PATHS = ("data.path", "run.weights", "run.detail", "options.chains", "options.quantities",
         "decide.snapshot", "replay.fills", "replay.begin", "replay.ledger", "shadow.fills",
         "shadow.snapshot", "shadow.flows")  # fmt: skip
"""Keys that are paths, from the folder of the experiment."""


class Draft(NamedTuple):
    tables: Tables
    flags: tuple[str, ...] = ()
    file: Path | None = None

    def table(self, name: str) -> dict[str, Any]:
        return self.tables.get(name, {})

    def read_entries(self, table: str, key: str, read: Callable[..., Any]) -> dict[str, Any]:
        entries = flatten(self.table(table).get(key, {}))
        return {name: read(entry, name=f"{table}.{key}.{name}") for name, entry in entries.items()}


def put(tables: dict[str, Any], names: list[str], value: Any) -> None:
    for each in names[:-1]:
        held = tables.get(each)
        if isinstance(held, list) and names[-1].isdecimal():  # a number of a list
            tables[each] = {str(k): value for k, value in enumerate(held)}
        elif not isinstance(held, dict):
            tables[each] = {}
        tables = tables[each]
    tables[names[-1]] = value


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def read_experiment(file: Path, read_job: ReadKeys | None = None) -> Tables:
    """Return the tables of an experiment file; ``read_job`` gives the keys of a job's table.

    Without it, tables of jobs are left unread. Raises ParameterError with all faults.
    """
    if file.suffix == ".py" or not file.is_file():
        near = core.did_you_mean(file.stem, (each.stem for each in file.parent.glob("*.toml")))
        fault = "is not one" if file.exists() else f"does not exist{near}"
        raise core.ParameterError(
            f"an experiment must be a TOML file, {str(file)!r} {fault}; use --data for "
            "data and --policy for a policy"
        )
    try:
        tables = tomllib.loads(core.decode_text(core.read_small(file)))
    except (ValueError, RecursionError) as error:
        raise core.ParameterError(f"{file} must be TOML: {error!s:.200}") from error
    for name, value in flatten(tables).items():
        if type(value) is int and not -(2**63) <= value < 2**63:
            raise core.ParameterError(f"{name:.60}: a whole number must fit into 64 bits")
        if isinstance(value, str) and "\0" in value:
            raise core.ParameterError(f"{name:.60}: a text must hold no NUL")
    refuse_faults(tables, read_job)
    accounts = tables.pop(ACCOUNTS, {})
    complete = complete_tables(tables, file.parent)
    if accounts:
        complete[ACCOUNTS] = {
            name: complete_tables(own, file.parent) for name, own in accounts.items()
        }
    return complete


def complete_tables(tables: Tables, folder: Path) -> Tables:
    """Return tables with paths from the folder of their file; raise where a policy has no name."""
    for name in ("policy", "overlay"):
        table = tables.get(name, {"name": ""})
        if "name" not in table and not any(map(is_policy, table.values())):
            raise core.ParameterError(f"{name}.name: is needed")
    venue = tables.get("venue", {})
    for each in [venue, *venue.values()]:  # a venue given whole has no preset under it
        if isinstance(each, dict) and "contract" in each:
            each.setdefault("preset", "")
    anchored: Tables = anchor(tables, folder)
    return anchored


def anchor(value: Any, folder: Path, name: str = "") -> Any:
    """Return an entry with its paths, which are relative to the folder of the experiment."""

    def find_policy(found: re.Match[str]) -> str:
        beside = folder / found[0]  # or else from the working directory
        return found[0] if Path(found[0]).exists() and not beside.exists() else str(beside)

    if isinstance(value, dict):
        start = f"{name}." if name else ""
        return {key: anchor(each, folder, start + key) for key, each in value.items()}
    if isinstance(value, list):
        return [anchor(each, folder, name) for each in value]
    if not isinstance(value, str) or value.partition(":")[0] == SAMPLE:
        return value
    table, _, key = name.partition(".")
    is_name = table in ("policy", "overlay", "compare") and key.endswith("name")
    if is_name or name == "transfer.rule":
        return re.sub(r"[^\s(),=]+\.py\b", find_policy, value)
    if table == "venue" and key.rpartition(".")[2] == "preset" and value.startswith("file:"):
        return f"file:{folder / value.removeprefix('file:')}"
    if table == "venue" and key.rpartition(".")[2] == "listing":
        return str(folder / value)
    is_preset = table == "venue" and key.endswith("preset") and re.search(r"\.(json|toml):", value)
    return str(folder / value) if is_preset or name in PATHS else value
