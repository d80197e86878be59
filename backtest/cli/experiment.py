"""An experiment: the tables of its file, with the entries that flags set."""

from __future__ import annotations

import datetime as dt
import shlex
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin

from backtest.base import Choice, ParameterError, did_you_mean, read_small
from backtest.cli.experiment_keys import (
    OPEN_TABLES,
    RULE_TABLES,
    TABLES,
    Entries,
    Key,
    list_model_keys,
    read_keys,
)
from backtest.cli.typed_values import (
    format_typed,
    parse_typed,
    read_constraints,
    read_objective,
    split_pair,
)

Tables = dict[str, dict[str, Any]]


class GivenFlag(NamedTuple):
    table: str
    key: str
    value: object

    @property
    def group(self) -> str:
        return self.key.partition(".")[0]


class DraftTable(NamedTuple):
    entries: Mapping[str, Any]
    folder: Path


class Draft(NamedTuple):
    tables: Tables
    file: Path | None
    from_file: Tables
    flags: Sequence[GivenFlag]
    arguments: tuple[str, ...] = ()
    line: tuple[str, ...] = ()

    def table(self, name: str) -> dict[str, Any]:
        return self.tables.get(name, {})

    def section(self, table: str, *, path: str = "") -> DraftTable:
        return DraftTable(self.table(table), self.find_base(table, path))

    def read_entries(self, table: str, key: str, read: Callable[..., Any]) -> dict[str, Any]:
        entries = flatten(self.table(table).get(key, {}))
        return {name: read(entry, name=f"{table}.{key}.{name}") for name, entry in entries.items()}

    def find_base(self, table: str, key: str) -> Path:
        is_flag = any(flag.table == table and flag.key == key for flag in self.flags)
        return Path() if is_flag or self.file is None else self.file.parent

    def find_path(self, table: str, key: str) -> Path:
        return self.find_base(table, key) / Path(self.tables[table][key])


def draft_experiment(
    file: Path | None,
    flags: Sequence[GivenFlag],
    arguments: Sequence[str] = (),
    line: Sequence[str] = (),
) -> Draft:
    """Read an experiment file and apply the flags to it.

    A flag that replaces the policy, the venue, the signal or the allocation of the file also drops
    their settings.
    """
    from_file = {} if file is None else read_experiment(file)
    tables: Tables = {name: dict(content) for name, content in from_file.items()}
    for flag in flags:
        is_policy = (flag.table, flag.key) == ("policy", "name")
        is_other = is_policy and tables.get("policy", {}).get("name") != flag.value
        if is_other or (flag.table, flag.key) == ("venue", "preset"):
            tables[flag.table] = {}
        if flag.table == "run" and flag.key in RULE_TABLES:
            tables.get("run", {}).pop(f"{flag.key}_settings", None)
    for flag in flags:
        tables = overlay(tables, nest(flag))
    refuse_defects(tables)
    return Draft(tables, file, from_file, flags, tuple(arguments), tuple(line))


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def nest(flag: GivenFlag) -> Tables:
    """Return a flag as nested tables, one level for each dot in its key.

    Examples
    --------
    >>> nest(GivenFlag("venue", "fees.taker", 0.0005))
    {'venue': {'fees': {'taker': 0.0005}}}
    """
    value: Any = flag.value
    for key in reversed(flag.key.split(".")):
        value = {key: value}
    return {flag.table: value}


def overlay(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[key] = overlay(below, value)
        else:
            merged[key] = value
    return merged


def build_run_command(draft: Draft, values: Mapping[str, object]) -> str:
    """Return the ``backtest run`` command that runs one set of a sweep or a search again.

    Their accounts begin with their market, so the data are cut at the start of the account.

    Examples
    --------
    >>> draft = draft_experiment(None, [], arguments=["--to", "2023-02-01", "--set", "target=1"])
    >>> build_run_command(draft, {"target": 0.5, "account.band": 0.1})
    'backtest run --to 2023-02-01 --set target=0.5 --set account.band=0.1'
    """
    words = ["backtest", "run"]
    rest = iter(draft.arguments)
    for word in rest:
        given = [word, next(rest)] if word in ("--set", "--data") else [word]
        is_replaced = word == "--set" and given[1].partition("=")[0].strip() in values
        if not is_replaced and not (word in words and word == "--data" and is_separate(draft)):
            words += given
    start = draft.table("run").get("start")
    words += [] if start is None else ["--from", str(start)]
    for name, value in values.items():
        words += ["--set", f"{name}={format_typed(value)}"]
    return shlex.join(words)


def is_separate(draft: Draft) -> bool:
    tables = (draft.table(name) for name in ("sweep", "tune", "validate", "compare"))
    return any(table.get("accounts") == "separate" for table in tables)


def name_where(draft: Draft) -> str:
    return ", in the first market" if is_separate(draft) else ""


# ----------------------------------------------------------------------------- what a flag says


def read_flag(key: Key, given: Any) -> Iterator[GivenFlag]:
    if given is None or given == []:
        return
    texts = given if isinstance(given, list) else [given]
    if (key.table, key.name) == ("policy", "settings"):
        for text in texts:
            yield from read_setting(*split_pair(key.flag, text, "target=0.4"))
    elif key.name == "constraints":
        for measure, bound in read_constraints(texts):
            yield GivenFlag(key.table, f"{key.name}.{measure}", bound)
    elif key.name == "objective":
        wanted = [read_objective(text) for text in texts]
        yield GivenFlag(key.table, key.name, wanted[0] if len(wanted) == 1 else wanted)
    elif key.is_table:
        yield from read_pairs(key, texts)
    elif key.table in OPEN_TABLES or isinstance(given, bool | int | float):
        yield GivenFlag(key.table, key.name, parse_typed(str(given)))
    elif str in get_args(key.kind) and list[str] in get_args(key.kind):
        yield GivenFlag(key.table, key.name, texts[0] if len(texts) == 1 else texts)
    else:
        yield from read_text(key.table, key.name, str(given), key.kind)


def read_pairs(key: Key, texts: Sequence[str]) -> Iterator[GivenFlag]:
    seen = set()
    for text in texts:
        example = {"shocks": "price=-0.3", "ladder": "price=-0.5:0.5:41"}
        name, value = split_pair(key.flag, text, example.get(key.name, "target=0.1:1"))
        if name in seen:
            raise ParameterError(
                f"{key.table}.{key.name} must have each entry once, {name!r} was given twice"
            )
        seen.add(name)
        yield GivenFlag(key.table, f"{key.name}.{name}", read_entry(key.name, value))


def read_entry(name: str, text: str) -> Any:
    """Return an entry of a table as a file has it: ranges stay texts."""
    return text if name in ("space", "values", "ladder", "constraints") else parse_typed(text)


def read_text(table: str, name: str, text: str, kind: Any) -> Iterator[GivenFlag]:
    several = get_args(kind) if get_origin(kind) in (UnionType, Union) else (kind,)
    if kind in (list[str], list[float]):
        words = [each.strip() for each in text.split(",")]
        yield GivenFlag(table, name, words if kind == list[str] else [*map(parse_typed, words)])
    elif "=" in text and any(get_origin(each) is dict for each in several):
        for pair in text.split(","):
            entry, number = split_pair(f"{table}.{name}", pair, "BTCUSDT=30000")
            yield GivenFlag(table, f"{name}.{entry}", parse_typed(number))
    else:
        is_text = str in several and float not in several and int not in several
        value: Any = None if is_text else parse_typed(text)
        is_word = value is None and str in several  # such as none, the word of the argument
        yield GivenFlag(table, name, text if is_text or is_word else value)


def read_setting(name: str, text: str) -> Iterator[GivenFlag]:
    """Yield the entry of one ``--set``: of a table, or else a parameter of the policy."""
    table, dot, field = name.partition(".")
    if dot and table in RULE_TABLES:
        yield GivenFlag("run", f"{table}_settings.{field}", parse_typed(text))
    elif dot and table in OPEN_TABLES:
        yield GivenFlag(table, field, parse_typed(text))
    elif dot and table in ("policy", "overlay") and field.partition(".")[0] not in read_keys(table):
        yield GivenFlag(table, f"settings.{field}", text)
    elif dot and table in ("policy", "overlay"):
        yield GivenFlag(table, field, text)
    elif dot and table in TABLES:
        key = read_keys(table).get(field.partition(".")[0])
        if "." in field or key is None:
            yield GivenFlag(table, field, read_entry(field.partition(".")[0], text))
        elif field == "objective":
            yield GivenFlag(table, field, read_objective(text))
        else:
            yield from read_text(table, field, text, key.kind)
    else:
        yield GivenFlag("policy", f"settings.{name}", text)


# ------------------------------------------------------------------------------- what a file says

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
    refuse_defects(tables)
    for name in ("policy", "overlay"):
        table = tables.get(name, {"name": ""})
        if "name" not in table and not find_single(table):
            raise ParameterError(f"{name}.name: is needed")
    return tables


def refuse_defects(tables: Mapping[str, Any]) -> None:
    defects = dict.fromkeys(find_defects(tables))
    if defects:
        raise ParameterError("\n".join(defects))


def find_defects(tables: Mapping[str, Any]) -> Iterator[str]:
    known = [*TABLES, *OPEN_TABLES]
    for name, table in tables.items():
        if name not in known:
            yield f"{name}: an experiment has no such table{suggest(name, known)}"
        elif not isinstance(table, dict):
            yield f"{name}: must be a table, got {table!r:.60}"
        elif name in TABLES:
            yield from find_table_defects(name, table, read_keys(name))
            if name == "compare":
                yield from find_policy_defects(table.get("policies"))
        elif not isinstance(table.get("preset", ""), str):
            yield f"{name}.preset: must be text, got {table['preset']!r:.60}"


def suggest(name: str, known: Collection[str]) -> str:
    return did_you_mean(name, known) or f"; known are {', '.join(known)}"


def find_policy_defects(policies: object) -> Iterator[str]:
    for label, policy in policies.items() if isinstance(policies, dict) else ():
        if isinstance(policy, dict):
            yield from find_table_defects(f"compare.policies.{label}", policy, read_keys("policy"))
        else:
            yield f"compare.policies.{label}: must be a table, got {policy!r:.60}"


def find_table_defects(
    title: str, table: Mapping[str, Any], keys: Mapping[str, Key]
) -> Iterator[str]:
    is_policy = "settings" in keys and "name" in keys
    single = find_single(table) if title == "policy" else {}
    for name, value in table.items():
        if name in single:
            yield from find_table_defects(f"{title}.{name}", value, keys)
        elif name not in keys:
            own = f"; parameters stand in {title}.settings" if is_policy else ""
            yield f"{title}.{name}: no such key{suggest(name, keys)}{own}"
        else:
            yield from find_kind_defects(f"{title}.{name}", value, keys[name].kind)


def find_kind_defects(title: str, value: object, kind: Any) -> Iterator[str]:
    if get_origin(kind) is dict and isinstance(value, dict):
        for name, each in value.items():
            inner = kind if kind == Entries and isinstance(each, dict) else get_args(kind)[1]
            yield from find_kind_defects(f"{title}.{name}", each, inner)
    elif not has_kind(value, kind):
        yield f"{title}: must be {describe_kind(kind)}, got {value!r:.60}"


def find_single(table: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in table.items()
        if name not in ("name", "settings") and isinstance(value, dict) and "name" in value
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
    return KIND_TEXTS.get(get_origin(kind) or kind, "a value")


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


def describe_keys(table: str) -> Iterator[tuple[str, str, str]]:
    keys = list_model_keys(table) if table in OPEN_TABLES else read_keys(table).values()
    for key in keys:
        kind = "" if key.kind is Any else describe_kind(key.kind)
        yield key.name, kind if key.default is None else str(key.default), key.text
