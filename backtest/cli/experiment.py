"""An experiment: the tables of its file, with the entries that flags set."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Union, get_args, get_origin

from backtest.base import ParameterError, did_you_mean, read_small
from backtest.cli.keys import MODELS, RULE_TABLES, TABLES, Key, find_faults, read_keys
from backtest.cli.typed_values import parse_typed, read_bound, read_objective, split_pair

Tables = dict[str, dict[str, Any]]
Entry = tuple[str, Any]
"""The dotted name of a key, such as ``account.band``, and its value."""
SAMPLE = "sample"
DEFAULT_VENUE = "binance-usdm:BTCUSDT"
PATHS = ("data.path", "run.weights", "run.detail", "options.chains", "options.quantities",
         "decide.snapshot", "replay.fills", "replay.begin", "replay.ledger")  # fmt: skip
RAW = ("settings", "policies", "space", "values", "ladder", "constraints")
"""Tables in tables whose entries stay text: what takes them reads ranges, bounds and settings."""


class Draft(NamedTuple):
    tables: Tables
    flags: tuple[str, ...] = ()
    file: Path | None = None

    def table(self, name: str) -> dict[str, Any]:
        return self.tables.get(name, {})

    def read_entries(self, table: str, key: str, read: Callable[..., Any]) -> dict[str, Any]:
        entries = flatten(self.table(table).get(key, {}))
        return {name: read(entry, name=f"{table}.{key}.{name}") for name, entry in entries.items()}


def draft_experiment(file: Path | None, entries: Iterable[Entry] = ()) -> Draft:
    """Read an experiment file, and set entries over it.

    An entry that replaces the policy, the venue, the signal or the sets of the file also drops
    their settings.
    """
    tables = {} if file is None else read_experiment(file)
    given = list(entries)
    for name, value in given:
        drop_replaced(tables, name, value)
    for name, value in given:
        put(tables, name.split("."), value)
    refuse_faults(tables)
    return Draft(tables, tuple(name for name, _ in given), file)


def drop_replaced(tables: Tables, name: str, value: object) -> None:
    table, _, key = name.partition(".")
    if name == "venue.preset" or (
        name == "policy.name" and tables.get(table, {key: 0})[key] != value
    ):
        tables.pop(table, None)
    if table == "run" and key in RULE_TABLES:
        tables.get(table, {}).pop(f"{key}_settings", None)
    if table == "sweep" and key.partition(".")[0] in ("values", "draws"):
        for other in ("values",) if key == "draws" else ("draws", "method", "seed"):
            tables.get(table, {}).pop(other, None)


def put(tables: dict[str, Any], names: list[str], value: Any) -> None:
    for each in names[:-1]:
        if not isinstance(tables.get(each), dict):
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


def overlay(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        is_table = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[key] = overlay(below, value) if is_table else value  # type: ignore[arg-type]
    return merged


# ----------------------------------------------------------------------------- what a flag says


def read_flags(key: Key, texts: list[str]) -> Iterator[Entry]:
    seen: set[str] = set()
    for place, value in list_entries(key, texts):
        if place in seen and key.place != "policy.settings":
            raise ParameterError(f"{key.flag} must have each entry once, {place} was given twice")
        seen.add(place)
        yield place, value


def list_entries(key: Key, texts: list[str]) -> Iterator[Entry]:
    if key.name in ("path", "instrument") and len(texts) > 1:
        yield key.place, [read_entry(key.place, text)[1] for text in texts]
        return
    for text in texts:
        if key.place == "policy.settings":
            yield read_setting(text)
        elif key.name == "constraints":
            measure, bound = read_bound(text)
            yield f"{key.place}.{measure}", bound
        elif key.is_table:
            name, value = split_pair(key.flag, text, key.example)
            yield read_entry(f"{key.place}.{name}", value)
        else:
            yield read_entry(key.place, text)


def read_setting(text: str) -> Entry:
    """Read ``--set``: the key of a table, or else a parameter of the policy."""
    return read_entry(*split_pair("--set", text, "target=0.4"))


def read_entry(name: str, text: str) -> Entry:
    table, _, key = name.partition(".")
    first, dot, _ = key.partition(".")
    if key and table in RULE_TABLES:
        return f"run.{table}_settings.{key}", parse_typed(text)
    if key and table in MODELS:
        return name, parse_typed(text)
    if not key or table not in TABLES:
        return f"policy.settings.{name}", text
    known = read_keys(table).get(first)
    if known is None:
        is_policy = table in ("policy", "overlay")
        return (f"{table}.settings.{key}" if is_policy else name), text
    if first == "objective":
        return name, read_objective(text)
    if dot:
        return name, text if first in RAW else parse_typed(text)
    return name, read_text(name, text, known.kind)


def read_text(name: str, text: str, kind: Any) -> Any:
    several = get_args(kind) if get_origin(kind) is Union else (kind,)
    if kind in (list[str], list[float]):
        words = [each.strip() for each in text.split(",")]
        return words if kind == list[str] else [*map(parse_typed, words)]
    if "=" in text and any(get_origin(each) is dict for each in several):
        pairs = (split_pair(name, pair, "BTCUSDT=30000") for pair in text.split(","))
        return {entry: parse_typed(number) for entry, number in pairs}
    if str in several and float not in several and int not in several:
        return text
    value = parse_typed(text)
    return text if value is None and str in several else value


# ------------------------------------------------------------------------------- what a file says


def read_experiment(file: Path) -> Tables:
    if file.suffix == ".py":
        raise ParameterError(f"an experiment must be TOML, got {file}; a policy goes to --policy")
    tables = read_toml(file)
    refuse_faults(tables)
    for name in ("policy", "overlay"):
        table = tables.get(name, {"name": ""})
        if "name" not in table and not find_single(table):
            raise ParameterError(f"{name}.name: is needed")
    venue = tables.get("venue", {})
    for each in [venue, *venue.values()]:  # a venue given whole has no preset under it
        if isinstance(each, dict) and "contract" in each:
            each.setdefault("preset", "")
    anchored: Tables = anchor(tables, file.parent)
    return anchored


def anchor(value: Any, folder: Path, name: str = "") -> Any:
    """Return an entry with its paths, which are relative to the folder of the experiment."""
    if isinstance(value, dict):
        return {
            key: anchor(each, folder, f"{name}.{key}" if name else key)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [anchor(each, folder, name) for each in value]
    if not isinstance(value, str) or value.partition(":")[0] == SAMPLE:
        return value
    table, _, key = name.partition(".")
    if name in PATHS:
        return str(folder / value)
    if table in ("policy", "overlay", "compare") and key.endswith("name"):
        return re.sub(r"[^\s(),=]+\.py\b", lambda found: find_beside(folder, found[0]), value)
    if table == "venue" and key.endswith("preset") and re.search(r"\.(json|toml):", value):
        return str(folder / value)
    return value


def find_beside(folder: Path, path: str) -> str:
    """Return the path of a policy beside the experiment, or else from the working directory."""
    return path if Path(path).exists() and not (folder / path).exists() else str(folder / path)


def refuse_faults(tables: Mapping[str, Any]) -> None:
    if faults := dict.fromkeys(list_faults(tables)):
        raise ParameterError("\n".join(faults))


def list_faults(tables: Mapping[str, Any]) -> Iterator[str]:
    known = [*TABLES, *MODELS]
    for name, table in tables.items():
        if name not in known:
            yield f"{name}: an experiment has no such table{suggest(name, known)}"
        elif not isinstance(table, dict):
            yield f"{name}: must be a table, got {table!r:.60}"
        elif name in TABLES:
            yield from list_table_faults(name, table, read_keys(name))
        elif not isinstance(table.get("preset", ""), str):
            yield f"{name}.preset: must be text, got {table['preset']!r:.60}"
    compared = tables.get("compare")
    policies = compared.get("policies") if isinstance(compared, dict) else None
    for label, policy in policies.items() if isinstance(policies, dict) else ():
        title = f"compare.policies.{label}"
        if isinstance(policy, dict):
            yield from list_table_faults(title, policy, read_keys("policy"))
        else:
            yield f"{title}: must be a table, got {policy!r:.60}"


def list_table_faults(
    title: str, table: Mapping[str, Any], keys: Mapping[str, Key]
) -> Iterator[str]:
    single = find_single(table) if title == "policy" else {}
    for name, value in table.items():
        if name in single:
            yield from list_table_faults(f"{title}.{name}", value, keys)
        elif name not in keys:
            own = f"; parameters stand in {title}.settings" if "settings" in keys else ""
            yield f"{title}.{name}: no such key{suggest(name, keys)}{own}"
        else:
            yield from find_faults(f"{title}.{name}", value, keys[name].kind)


def suggest(name: str, known: Collection[str]) -> str:
    return did_you_mean(name, known) or f"; known are {', '.join(known)}"


def find_single(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tables of instruments in that of the policy."""
    return {
        name: value
        for name, value in table.items()
        if name not in ("name", "settings") and isinstance(value, dict) and "name" in value
    }


def read_toml(file: Path) -> dict[str, Any]:
    if file.is_dir():
        raise ParameterError(
            f"an experiment must be a TOML file, {str(file)!r} is a folder; data go to --data"
        )
    if not file.is_file():
        near = did_you_mean(file.stem, (each.stem for each in file.parent.glob("*.toml")))
        raise ParameterError(
            f"an experiment must be a TOML file, {str(file)!r} does not exist{near}"
        )
    try:
        tables = tomllib.loads(read_small(file).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ParameterError(f"{file} must be TOML: {error!s:.200}") from error
    for name, value in flatten(tables).items():
        if type(value) is int and not -(2**63) <= value < 2**63:
            raise ParameterError(f"{name:.60}: a whole number must fit into 64 bits")
        if isinstance(value, str) and "\0" in value:
            raise ParameterError(f"{name:.60}: a text must hold no NUL")
    return tables
