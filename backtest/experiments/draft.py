"""An experiment as it is written: its file is read, checked, and its paths are found."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from backtest import core
from backtest.experiments.tables import ACCOUNTS, SAMPLE, ReadKeys, is_policy, refuse_faults
from backtest.policies.parameters import QuotedText

Tables = dict[str, dict[str, Any]]
PATHS = ("data.path", "run.weights", "run.detail", "options.chains", "options.quantities",
         "decide.snapshot", "replay.fills", "replay.begin", "replay.ledger", "shadow.fills",
         "shadow.snapshot", "shadow.flows")  # fmt: skip
"""Keys that are paths, from the folder of the experiment."""

POLICY_FILE = re.compile(r"[^\s(),=]+\.py\b")
"""A file of policies, in the text that names one."""


class Draft(NamedTuple):
    """The tables of an experiment, the flags that changed them, and the file they are from."""

    tables: Tables
    flags: tuple[str, ...] = ()
    file: Path | None = None

    def table(self, name: str) -> dict[str, Any]:
        """Return a table, empty if it is not there."""
        return self.tables.get(name, {})

    def read_entries(self, table: str, key: str, read: Callable[..., Any]) -> dict[str, Any]:
        """Return what ``read`` makes of each entry of a table inside a table, by dotted name."""
        entries = flatten(self.table(table).get(key, {}))
        return {name: read(entry, name=f"{table}.{key}.{name}") for name, entry in entries.items()}


def put(tables: dict[str, Any], names: list[str], value: Any) -> None:
    """Write a value into nested tables, at the place that the names lead to.

    What stands on the way and is no table is replaced by one; a list whose element is named by its
    number becomes a table by number.
    """
    *parents, last = names
    table = tables
    for parent in parents:
        entry = table.get(parent)
        if isinstance(entry, list) and last.isdecimal():
            table[parent] = {str(number): element for number, element in enumerate(entry)}
        elif not isinstance(entry, dict):
            table[parent] = {}
        table = table[parent]

    table[last] = value


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of a table and of those in it, by names with dots."""
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
        raise refuse_file(file)
    try:
        tables = tomllib.loads(core.decode_text(core.read_small(file)))
    except (ValueError, RecursionError) as error:
        raise core.ParameterError(f"{file} must be TOML: {error!s:.200}") from error
    check_values(tables)
    refuse_faults(tables, read_job)
    tables = mark_quoted(tables)

    accounts = tables.pop(ACCOUNTS, {})
    complete = complete_tables(tables, file.parent)
    if accounts:
        complete[ACCOUNTS] = {}
        for name, account in accounts.items():
            complete[ACCOUNTS][name] = complete_tables(account, file.parent)
    return complete


def refuse_file(file: Path) -> core.ParameterError:
    """Return the error of a path that is no experiment, with the nearest name beside it."""
    if file.exists():
        fault = "is not one"
    else:
        near = core.did_you_mean(file.stem, (other.stem for other in file.parent.glob("*.toml")))
        fault = f"does not exist{near}"
    return core.ParameterError(
        f"an experiment must be a TOML file, {str(file)!r} {fault}; use --data for "
        "data and --policy for a policy"
    )


def check_values(tables: Tables) -> None:
    """Raise a ParameterError for a number or a text that no part of a test can hold."""
    for name, value in flatten(tables).items():
        if type(value) is int and not -(2**63) <= value < 2**63:
            raise core.ParameterError(f"{name:.60}: a whole number must fit into 64 bits")
        if isinstance(value, str) and "\0" in value:
            raise core.ParameterError(f"{name:.60}: a text must hold no NUL")


def mark_quoted(value: Any, *, is_setting: bool = False) -> Any:
    """Return an entry of a file whose settings of policies and rules know that they are texts.

    At the command line every setting is a text, so there "2" is a number; in a file it is none.
    """
    if isinstance(value, dict):
        return {
            key: mark_quoted(entry, is_setting=is_setting or key.endswith("settings"))
            for key, entry in value.items()
        }
    if is_setting and isinstance(value, list):
        return [mark_quoted(element, is_setting=True) for element in value]
    if is_setting and isinstance(value, str):
        return QuotedText(value)
    return value


def complete_tables(tables: Tables, folder: Path) -> Tables:
    """Return tables with paths from the folder of their file; raise where a policy has no name."""
    for name in ("policy", "overlay"):
        table = tables.get(name, {"name": ""})
        if "name" not in table and not any(map(is_policy, table.values())):
            raise core.ParameterError(f"{name}.name: is needed")

    # A venue that is written whole has no preset under it.
    venue = tables.get("venue", {})
    for entries in [venue, *venue.values()]:
        if isinstance(entries, dict) and "contract" in entries:
            entries.setdefault("preset", "")

    anchored: Tables = anchor(tables, folder)
    return anchored


def anchor(value: Any, folder: Path, name: str = "") -> Any:
    """Return an entry whose paths begin at the folder of the experiment, and not where we are.

    ``name`` is the place of the entry, ``venue.preset`` for example.
    """
    if isinstance(value, dict):
        start = f"{name}." if name else ""
        return {key: anchor(entry, folder, start + key) for key, entry in value.items()}
    if isinstance(value, list):
        return [anchor(element, folder, name) for element in value]
    if not isinstance(value, str) or value.partition(":")[0] == SAMPLE:
        return value

    # A policy, or the rule of transfers, may be a class in a file: FILE.py:Class.
    table, _, key = name.partition(".")
    is_policy_name = table in ("policy", "overlay", "compare") and key.endswith("name")
    if is_policy_name or name == "transfer.rule":
        return POLICY_FILE.sub(lambda match: anchor_policy(match[0], folder), value)
    if table == "venue":
        return anchor_venue(value, folder, key)
    if name in PATHS:
        return str(folder / value)
    return value


def anchor_policy(path: str, folder: Path) -> str:
    """Return the file of a policy: beside the experiment, or else in the working directory."""
    beside = folder / path
    if Path(path).exists() and not beside.exists():
        return path
    return str(beside)


def anchor_venue(value: str, folder: Path, key: str) -> str:
    """Return an entry of ``[venue]``, or of an instrument in it, with the path that it names."""
    _, _, last = key.rpartition(".")
    if last == "preset" and value.startswith("file:"):
        return f"file:{folder / value.removeprefix('file:')}"
    if last == "listing":
        return str(folder / value)

    # An instrument of a file of presets, FILE.toml:SYMBOL.
    if key.endswith("preset") and re.search(r"\.(json|toml):", value):  # FILE.toml:SYMBOL
        return str(folder / value)
    return value
