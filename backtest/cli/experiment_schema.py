"""The schema of an experiment: read a TOML file, and check its keys and types."""

from __future__ import annotations

import datetime as dt
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from backtest.base import Choice, ParameterError, did_you_mean, read_small
from backtest.cli.experiment_draft import Tables
from backtest.cli.experiment_keys import TABLES, Key, list_keys

KIND_TEXTS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
    dt.date: "a time",
}


def read_experiment(file: Path) -> Tables:
    if file.suffix == ".py":
        raise ParameterError(f"an experiment must be TOML, got {file}; a policy goes to --policy")
    tables = read_toml(file, noun="an experiment")
    if "balance" in tables:
        raise ParameterError(f"{file} is no experiment but a book: backtest liq --book {file}")
    defects = dict.fromkeys(find_defects(tables))
    if defects:
        raise ParameterError("\n".join(defects))
    return tables


def find_defects(tables: Mapping[str, Any]) -> Iterator[str]:
    known = list_keys("")
    for name, table in tables.items():
        if name not in known:
            yield f"{name}: an experiment has no such table{suggest(name, known)}"
        elif not isinstance(table, dict):
            yield f"{name}: must be a table, got {table!r:.60}"
        elif name in TABLES:
            yield from find_table_defects(name, table, TABLES[name])
            if name == "compare":
                yield from find_policy_defects(table.get("policies"))
        elif not isinstance(table.get("preset", ""), str):
            yield f"{name}.preset: must be text, got {table['preset']!r:.60}"


def suggest(name: str, known: Collection[str]) -> str:
    return did_you_mean(name, known) or f"; known are {', '.join(known)}"


def find_policy_defects(policies: object) -> Iterator[str]:
    for label, policy in policies.items() if isinstance(policies, dict) else ():
        if isinstance(policy, dict):
            yield from find_table_defects(f"compare.policies.{label}", policy, TABLES["policy"])
        else:
            yield f"compare.policies.{label}: must be a table, got {policy!r:.60}"


def find_table_defects(
    title: str, table: Mapping[str, Any], keys: Mapping[str, Key]
) -> Iterator[str]:
    is_policy = keys in (TABLES["policy"], TABLES["overlay"])
    single = find_single(table) if keys is TABLES["policy"] else {}
    for name, value in table.items():
        if name in single:
            yield from find_table_defects(f"{title}.{name}", value, TABLES["overlay"])
        elif name not in keys:
            own = f"; parameters stand in {title}.settings" if is_policy else ""
            yield f"{title}.{name}: no such key{suggest(name, keys)}{own}"
        else:
            yield from find_kind_defects(f"{title}.{name}", value, keys[name].kind)
    if is_policy and "name" not in table and not single:
        yield f"{title}.name: is needed"


def find_kind_defects(title: str, value: object, kind: Any) -> Iterator[str]:
    if get_origin(kind) is dict and isinstance(value, dict):
        for name, each in value.items():
            yield from find_kind_defects(f"{title}.{name}", each, get_args(kind)[1])
    elif not has_kind(value, kind):
        yield f"{title}: must be {describe_kind(kind)}, got {value!r:.60}"


def find_single(table: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in table.items()
        if name not in TABLES["policy"] and isinstance(value, dict) and "name" in value
    }


def has_kind(value: object, kind: Any) -> bool:
    if isinstance(kind, Choice):
        return value in kind.options
    if get_origin(kind) in (UnionType, Union):
        return any(has_kind(value, each) for each in get_args(kind))
    if get_origin(kind) is list:
        return isinstance(value, list) and all(has_kind(each, get_args(kind)[0]) for each in value)
    if get_origin(kind) is dict:
        inner = get_args(kind)[1]
        return isinstance(value, dict) and all(has_kind(each, inner) for each in value.values())
    if kind is Any or isinstance(value, bool):
        return kind in (Any, bool)
    return isinstance(value, int | float if kind is float else kind)


def describe_kind(kind: Any) -> str:
    if isinstance(kind, Choice):
        return " or ".join(map(repr, kind.options))
    if get_origin(kind) in (UnionType, Union):
        kinds = [each for each in get_args(kind) if each is not dt.datetime]
        return " or ".join(dict.fromkeys(map(describe_kind, kinds)))
    return KIND_TEXTS[get_origin(kind) or kind]


def read_toml(file: Path, *, noun: str) -> dict[str, Any]:
    if file.is_dir():
        raise ParameterError(
            f"{noun} must be a TOML file, {str(file)!r} is a folder; data go to --data"
        )
    if not file.is_file():
        near = did_you_mean(file.stem, (each.stem for each in file.parent.glob("*.toml")))
        raise ParameterError(f"{noun} must be a TOML file, {str(file)!r} does not exist{near}")
    try:
        tables = tomllib.loads(read_small(file).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ParameterError(f"{file} must be TOML: {describe_toml(error):.200}") from error
    check_values(tables)
    return tables


def describe_toml(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, tomllib.TOMLDecodeError | UnicodeDecodeError):
        return str(error)
    return "a number has too many digits"


def check_values(raw: Mapping[str, Any]) -> None:
    for key, value in walk_values(raw):
        is_huge = type(value) is int and not -(2**63) <= value < 2**63
        if is_huge or (isinstance(value, str) and "\0" in value):
            rule = "a whole number must fit into 64 bits" if is_huge else "a text must hold no NUL"
            shown = f"one of {value.bit_length():,} bits" if is_huge else f"{value!r:.60}"
            raise ParameterError(f"{key:.60}: {rule}, got {shown}")


def walk_values(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield key, name
            yield from walk_values(each, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for each in value:
            yield from walk_values(each, key)
    else:
        yield key, value
