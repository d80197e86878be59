"""The schema of an experiment: read a TOML file, and check its keys and types."""

from __future__ import annotations

import datetime as dt
import tomllib
from collections.abc import Iterator, Mapping
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
    cure = "give an experiment, such as examples/btc-vol-target.toml"
    if file.suffix == ".py":
        cure += f"; a policy is given with --policy {file}"
    tables = read_toml(
        file,
        noun="an experiment",
        argument="EXPERIMENT",
        cure=cure,
        of_folder="; data are given with --data",
    )
    if "balance" in tables:
        raise ParameterError(
            "an experiment has no 'balance', which a file of positions has",
            where=str(file),
            cure=f"run backtest liq --book {file}",
        )
    defects = list(dict.fromkeys(find_defects(tables)))
    if defects:
        problems, cures = zip(*defects, strict=True)
        raise ParameterError(
            "\n".join(problems), where=str(file), cure="; ".join(dict.fromkeys(cures))
        )
    return tables


def find_defects(tables: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    known = list_keys("")
    for name, table in tables.items():
        if name not in known:
            near = did_you_mean(name, known)
            yield f"an experiment has no {name!r}{near}", f"use {', '.join(known)}"
        elif not isinstance(table, dict):
            yield f"[{name}] must be a table, got {table!r:.60}", f"correct {name}"
        elif name in TABLES:
            yield from find_table_defects(f"[{name}]", table, TABLES[name])
            if name == "compare":
                yield from find_policy_defects(table.get("policies"))
        elif not isinstance(table.get("preset", ""), str):
            yield f"[{name}] preset must be text, got {table['preset']!r:.60}", "correct preset"


def find_policy_defects(policies: object) -> Iterator[tuple[str, str]]:
    for label, policy in policies.items() if isinstance(policies, dict) else ():
        title = f"[compare.policies.{label}]"
        if isinstance(policy, dict):
            yield from find_table_defects(title, policy, TABLES["policy"])
        else:
            yield f"{title} must be a table, got {policy!r:.60}", f"correct {label}"


def find_table_defects(
    title: str, table: Mapping[str, Any], keys: Mapping[str, Key]
) -> Iterator[tuple[str, str]]:
    is_policy = keys in (TABLES["policy"], TABLES["overlay"])
    single = find_single(table) if keys is TABLES["policy"] else {}
    for name, value in table.items():
        if name in single:
            yield from find_table_defects(f"{title[:-1]}.{name}]", value, TABLES["overlay"])
        elif name not in keys:
            yield f"{title} has no {name!r}{did_you_mean(name, keys)}", f"use {', '.join(keys)}"
        elif not has_kind(value, keys[name].kind):
            rule = describe_kind(keys[name].kind)
            yield f"{title} {name} must be {rule}, got {value!r:.60}", f"correct {name}"
    if is_policy and "name" not in table and not single:
        yield f"{title} must have a name, has none", "add name"


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


def read_toml(
    file: Path, *, noun: str, argument: str, cure: str, of_folder: str = ""
) -> dict[str, Any]:
    if not file.is_file():
        near = did_you_mean(file.stem, (each.stem for each in file.parent.glob("*.toml")))
        found = "is a folder" if file.is_dir() else "does not exist"
        raise ParameterError(
            f"{noun} must be a TOML file, {str(file)!r} {found}"
            + (of_folder if of_folder and file.is_dir() else near),
            where=f"{argument}, searched from {Path.cwd()}",
            cure=cure,
        )
    try:
        tables = tomllib.loads(read_small(file).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ParameterError(
            f"{noun} must be TOML: {describe_toml(error):.200}",
            where=str(file),
            cure="correct that line" if file.suffix == ".toml" else cure,
        ) from error
    check_values(tables, file)
    return tables


def describe_toml(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, tomllib.TOMLDecodeError | UnicodeDecodeError):
        return str(error)
    return "a number has too many digits"


def check_values(raw: Mapping[str, Any], file: Path) -> None:
    for key, value in walk_values(raw):
        is_huge = type(value) is int and not -(2**63) <= value < 2**63
        if is_huge or (isinstance(value, str) and "\0" in value):
            rule = "a whole number must fit into 64 bits" if is_huge else "a text must hold no NUL"
            shown = f"one of {value.bit_length():,} bits" if is_huge else f"{value!r:.60}"
            raise ParameterError(
                f"{rule}, got {shown}", where=f"{file}, {key!r:.60}", cure="correct it"
            )


def walk_values(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield str(name), str(name)
            yield from walk_values(each, str(name))
    elif isinstance(value, list):
        for each in value:
            yield from walk_values(each, key)
    else:
        yield key, value
