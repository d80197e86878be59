"""An experiment: the tables of its file, their keys, and what flags and entries say.

The keys come from the signatures of the functions that take them.
"""

from __future__ import annotations

import datetime as dt
import inspect
import re
import shlex
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin

import numpy as np

import backtest
from backtest.base import (
    Choice,
    ParameterError,
    Value,
    did_you_mean,
    read_range,
    read_small,
    repr_given,
)
from backtest.venue import RateCurve

Time = dt.datetime | dt.date | str
Entries = dict[str, float | str | bool]
RULE_TABLES = ("signal", "allocate")
ALLOCATIONS = ("equal", "inverse-volatility")


class Key(NamedTuple):
    table: str
    name: str
    kind: Any
    text: str
    default: Any = None

    @property
    def place(self) -> str:
        return f"{self.table}.{self.name}"

    @property
    def flag(self) -> str:
        return FLAGS.get(self.place, f"--{self.name.replace('_', '-')}")

    @property
    def parameter(self) -> str:
        return f"{self.table}_{self.name}"

    @property
    def example(self) -> str:
        examples = {"shocks": "price=-0.3", "ladder": "price=-0.5:0.5:41"}
        return examples.get(self.name, "target=0.1:1")

    @property
    def is_table(self) -> bool:
        return get_origin(self.kind) is dict


FLAGS = {
    "data.path": "--data",
    "policy.name": "--policy",
    "policy.settings": "--set",
    "venue.preset": "--venue",
    "sweep.values": "--vary",
    "stress.shocks": "--shock",
    "stress.scenarios": "--scenario",
    **{f"{table}.constraints": "--constraint" for table in ("sweep", "tune", "validate")},
}
"""Flags that are called otherwise than their key."""

OWN: dict[str, dict[str, tuple[Any, str]]] = {
    "data": {
        "path": (str | list[str], "Folder or file ('sample'); may be repeated."),
        "from": (Time, "First bar to read, UTC."),
        "to": (Time, "End of the last bar, UTC."),
        "resample": (str, "Combine bars into longer ones, e.g. 1d."),
        "instrument": (str | list[str], "Instrument of a folder of several."),
    },
    "policy": {
        "name": (str, "A policy (vol-target), or FILE.py:ClassName."),
        "settings": (Entries, "NAME=VALUE of the policy, or TABLE.KEY=VALUE "
                     "(see `backtest help`); repeatable."),
    },
    "overlay": {
        "name": (str, "A policy that scales all positions of several markets together."),
        "settings": (Entries, "Parameters of the overlay."),
    },
    "run": {
        "start": (Time, "Start of the account; earlier bars warm up."),
        "end": (Time, "When the account ends, UTC, exclusive."),
        "signal": (float | str, "From -1 to 1 (1), a column, or rsi:14:30:70."),
        "signal_settings": (Entries, "Parameters of the signal's rule, also signal.NAME."),
        "weights": (str, "Several markets: a file of weights by time and instrument (1/n)."),
        "carry_weights": (bool, "Each row of weights holds from its time until the next."),
        "allocate": (Choice(*ALLOCATIONS), "Several markets: weights computed from returns."),
        "allocate_settings": (Entries, "Parameters of the weights' rule, also allocate.NAME."),
        "decide": (str, "Length of the bars at whose closes policies decide: 1h, 4h, 1d."),
        "detail": (str, "Folder of shorter bars, which the account lives where they are known."),
        "sampling": (str, "Period of returns (1d)."),
        "calendar": (str, "Days a year: 365 (default) or 252."),
        "compile": (bool, "Whether to compile; off for a debugger."),
    },
    "options": {
        "contracts": (str | list[str] | list[dict[str, Any]],
                      "Listed options, such as BTC-26JUN26-60000-P."),
        "chains": (str, "A file or folder of quotes, to which surfaces are fitted, or 'sample'."),
        "quantities": (str, "A file of signed contracts to hold, by time and option."),
        "settlement": (Choice("cash", "coin"), "Settlement of the quotes; Deribit's say it."),
        "quote_age": (str, "How long a quote is the mark of its option (one bar)."),
        "max_age": (str, "Largest age of the last surface (14d)."),
    },
    "sweep": {
        "values": (dict[str, Any], "NAME=24,72 or NAME=0.1:1:64 or NAME=log:10:500:16; repeat."),
        "draws": (int, "Draw this many sets instead (1024, if nothing varies)."),
        "objective": (Any, "A measure (sharpe) or sharpe=1,turnover=-0.1."),
        "constraints": (dict[str, str], "A bound: 'max_drawdown<=0.4'; repeatable."),
    },
    "compare": {"policies": (dict[str, Any], "Policies by label, each as [policy].")},
    "paths": {"funding": (float | str, "'fitted' to the data (default), a rate per settlement, or "
                          "'none'.")},
    "risk": {"find_leverage": (float, "Find the highest leverage (with --policy: factor) of at "
                               "most this risk.")},
    "stress": {
        "scenarios": (list[str], "Historical episodes, such as 2020-03-12,2021-05-19 (all)."),
        "shocks": (dict[str, Any], "A shock by field: price=-0.3, over=2h, spread=20; repeat."),
        "ladder": (dict[str, Any], "Axis of a grid of shocks: price=-0.5:0.5:41; repeat."),
    },
    "cascade": {
        "impact": (str, "Impact of sales: sqrt:COEFFICIENT[:VOLATILITY] or linear:COEFFICIENT."),
    },
    "decide": {"snapshot": (str, "The account: JSON, or a CSV of field, instrument, value.")},
    "replay": {
        "fills": (str, "The fills: a CSV table, or the JSON of ccxt."),
        "begin": (str, "The account at the start, as --snapshot of `backtest decide` (flat)."),
        "ledger": (str, "A CSV of the venue's ledger, or of the equity, to compare with."),
    },
}  # fmt: skip
"""Keys that are no argument of the function of their table, or are written otherwise."""

FUNCTIONS = {
    "data": ("Markets.load",),
    "sweep": ("sweep",),
    "tune": ("tune",),
    "validate": ("walk_forward", "cross_validate"),
    "compare": ("compare",),
    "paths": ("simulate_paths",),
    "risk": ("liquidation_risk",),
    "stress": ("stress",),
    "sensitivity": ("sensitivity",),
    "capacity": ("capacity",),
    "cascade": ("cascade", "Crowd.from_leverage"),
    "decide": ("decide",),
    "replay": ("replay",),
}
"""The functions whose arguments a table holds."""
TAKEN = {
    *("market", "policy", "venue", "account", "signal", "overlay", "sampling", "calendar"),
    *("compile", "decide", "detail", "start", "sets", "results", "result", "store", "progress"),
    *("benchmark", "folds", "data", "settings", "crowd", "me", "entries", "contract", "state"),
    *("rules", "top_ups", "price", "between", "instruments"),
}  # fmt: skip
"""Arguments that the other tables give, or that are objects."""
KEPT = {("stress", "rules"), ("cascade", "price")}

TABLES = tuple(dict.fromkeys([*OWN, *FUNCTIONS]))
MODELS: dict[str, Any] = {
    "venue": backtest.Venue,
    "account": backtest.Account,
    "lending": RateCurve,
}
"""Tables of a model, which checks its own fields."""

MODEL_KEYS = (
    Key("venue", "preset", str, "NAME:SYMBOL, such as binance-usdm:BTCUSDT."),
    Key("lending", "utilization", Any, "Share of deposits lent out, or a column of the bars."),
    Key("account", "capital", float, "Money at the start (10000)."),
    Key("account", "margin", str, "'cross' (default) or 'isolated'."),
    Key("account", "max_leverage", Any, "Highest leverage the policy may ask for."),
)
"""Keys of models that are flags, or no fields."""

TEXTS = {
    "currency": "Settlement currency of several markets, if their names differ in it.",
    "interval": "Interval of the bars to read from a folder of several.",
    "timezone": "Time zone of stamps that have none.",
    "mark_gaps": "'last': fill missing mark prices with last prices.",
    "funding_gaps": "'zero': treat missing funding as none.",
    "sessions": "The market closes: bars may be missing.",
    "cascade.accounts": "Number of accounts.",
    "cascade.seed": "Seed of the accounts.",
    "cascade.leverage": "Leverage of accounts: loguniform:1:50, uniform:1:20 or constant:10.",
    "factors": "rates, funding, funding shift, fees, slippage, margin, volatility (all).",
    "horizons": "Horizons (1d,7d,30d).",
    "capitals": "Capitals to try: 1e4,1e6,1e8.",
    "metrics": "'all', or 'core', which is faster.",
    "rules": "Margin tables: 'run', 'today' or 'then'.",
    "groups": "Number of groups of time.",
    "test_groups": "Number of groups in each test.",
    "train": "Train spans.",
    "test": "Test spans.",
    "decide.funding": "Rate of a settlement at the next open (none).",
    "seconds": "Most time to search.",
    "trials": "Most sets to evaluate.",
    "equal_risk": "Scale all policies to the volatility of the calmest, and run again.",
    "compare.draws": "Number of resampled histories.",
    "confidence": "Confidence of the intervals.",
    "accounts": "Several markets: one 'shared' account, or 'separate' ones, pooled.",
    "pool": "Separate accounts: how their measures become one: mean, median or worst.",
    "objective": "A measure (sharpe) or sharpe=1,turnover=-0.1.",
    "constraints": "A bound: 'max_drawdown<=0.4'; repeatable.",
    "space": "NAME=0.1:1, NAME=log:10:500 or NAME=a,b.",
    "fix": "NAME=VALUE to keep fixed; repeatable.",
    "sampler": "auto, gp, sobol, random or grid.",
    "robust": "Whether neighbors must be good too.",
    "seed": "Seed of all random numbers.",
    "threads": "Number of threads (all cores).",
    "memory": "Memory for the columns of policies.",
    "cluster": "Dask workers: tcp://HOST:PORT, tls://HOST:PORT or local:N.",
    "holdout": "Unseen last part: 25%, 90d or none.",
    "resume": "Continue what these arguments began.",
    "anchored": "Every train span begins with the data.",
    "embargo": "Bars, or a duration, left out of training after a test group.",
    "adl": "Auto-deleveraging: 'queue', 'pro-rata' or 'none'.",
    "at": "Price of the order: 30000, or BTCUSDT=30000,ETHUSDT=2000 (the last close).",
    "now": "The present, UTC (the clock).",
    "paths.paths": "Number of paths.",
    "model": "filtered, stationary, gbm, merton or garch.",
}
"""Texts of arguments that the command line writes otherwise than Python."""

PLAIN: dict[str, Any] = {
    "str": str, "int": int, "float": float, "bool": bool, "Sequence[str]": list[str],
    "Sequence[float]": list[float], "TimeLike": Time,
}  # fmt: skip


@cache
def read_keys(table: str) -> dict[str, Key]:
    found = {name: Key(table, name, *own) for name, own in OWN.get(table, {}).items()}
    if table == "run":
        found["compile"] = found["compile"]._replace(default=True)
    for function in FUNCTIONS.get(table, ()):
        for key in list_arguments(table, function):
            found.setdefault(key.name, key)
    return found


def list_arguments(table: str, function: str) -> Iterator[Key]:
    target: Any = backtest
    for name in function.split("."):
        target = getattr(target, name)
    texts = read_parameters(inspect.getdoc(target) or "")
    for each in inspect.signature(target).parameters.values():
        taken = each.name in TAKEN or (each.name == "paths" and table != "paths")
        if not taken or (table, each.name) in KEPT:
            text = TEXTS.get(f"{table}.{each.name}") or TEXTS.get(each.name, texts.get(each.name))
            default = None if each.default is each.empty else each.default
            yield Key(table, each.name, read_kind(str(each.annotation)), text or "", default)


def read_kind(annotation: str) -> Any:
    """Return the type of a value in a file, as far as the annotation of an argument says it."""
    kinds: list[Any] = []
    for each in annotation.split(" | "):
        inner = re.fullmatch(r"Mapping\[str, (\w+)\]", each)
        if inner is not None:
            kinds.append(dict[str, str] if inner[1] == "str" else dict[str, Any])
        elif each != "None":
            kinds.append(PLAIN.get(each, Any))
    return Union[tuple(kinds)] if kinds and Any not in kinds else Any  # noqa: UP007 - at run time


def read_parameters(text: str) -> dict[str, str]:
    """Return the first sentence about each parameter in a docstring of numpydoc."""
    section = text.partition("Parameters\n----------\n")[2].partition("\n\n")[0]
    found = {}
    for names, body in re.findall(r"^(\S[^:\n]*?)(?: :.*)?\n((?:    .*\n?)+)", section, re.M):
        sentence = re.split(r"(?<=[\w)])[.;:] ", " ".join(body.split()))[0].rstrip(".:")
        plain = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"\1", sentence).replace("``", "")
        found.update(dict.fromkeys(names.split(", "), f"{plain[:1].upper()}{plain[1:]}."))
    return found


def describe_keys(table: str) -> Iterator[tuple[str, str, str]]:
    for key in list_model_keys(table) if table in MODELS else read_keys(table).values():
        kind = "" if key.kind is Any else describe_kind(key.kind)
        yield key.name, kind if key.default is None else str(key.default), key.text


def list_model_keys(table: str) -> Iterator[Key]:
    fields = list(list_fields(MODELS[table], table, ""))
    known = {each.name for each in fields}
    yield from (key for key in MODEL_KEYS if key.table == table and key.name not in known)
    yield from fields


def list_fields(model: Any, table: str, prefix: str) -> Iterator[Key]:
    texts = read_parameters(inspect.getdoc(model) or "")
    for name, field in model.__dataclass_fields__.items():
        part = getattr(backtest, str(field.type).partition(" ")[0], None)
        if isinstance(part, type) and issubclass(part, Value):
            yield from list_fields(part, table, f"{prefix}{name}.")
        else:
            default = field.default if isinstance(field.default, (int, float, str)) else None
            yield Key(table, f"{prefix}{name}", Any, texts.get(name, ""), default)


def find_key(name: str) -> Key:
    table, _, key = name.partition(".")
    models = {f"{each.table}.{each.name}": each for each in MODEL_KEYS}
    return models[name] if name in models else read_keys(table)[key]


KIND_TEXTS = {str: "text", int: "a whole number", float: "a number", bool: "true or false",
              list: "a list", dict: "a table", dt.date: "a time"}  # fmt: skip


def find_faults(name: str, value: object, kind: Any) -> Iterator[str]:
    """Yield what is wrong with a value of a file."""
    if get_origin(kind) is dict and isinstance(value, dict):
        for key, each in value.items():
            inner = kind if kind == Entries and isinstance(each, dict) else get_args(kind)[1]
            yield from find_faults(f"{name}.{key}", each, inner)
    elif not has_kind(value, kind):
        yield f"{name}: must be {describe_kind(kind)}, got {value!r:.60}"


def has_kind(value: object, kind: Any) -> bool:
    if isinstance(kind, Choice):
        return value in kind.options
    if get_origin(kind) in (UnionType, Union):
        return any(has_kind(value, each) for each in get_args(kind))
    if get_origin(kind) is list:
        return isinstance(value, list) and all(has_kind(each, get_args(kind)[0]) for each in value)
    if get_origin(kind) is dict:
        return isinstance(value, dict)
    if kind is Any or isinstance(value, bool):
        return kind in (Any, bool)
    return isinstance(value, int | float if kind is float else kind)


def describe_kind(kind: Any) -> str:
    if isinstance(kind, Choice):
        return " or ".join(map(repr, kind.options))
    if get_origin(kind) in (UnionType, Union):
        return " or ".join(
            dict.fromkeys(describe_kind(each) for each in get_args(kind) if each is not dt.datetime)
        )
    return KIND_TEXTS.get(get_origin(kind) or kind, "a value")


# ------------------------------------------------------------------------------------ typed values

WORDS: Mapping[str, Any] = {"none": None, "true": True, "false": False}
MOST_VALUES = 1_000_000


def split_pair(name: str, text: str, example: str) -> tuple[str, str]:
    key, equals, value = (part.strip() for part in text.partition("="))
    if not (key and equals and value):
        raise ParameterError(
            f"{name} takes NAME=VALUE, {shlex.quote(example)} for example, got {text!r}"
        )
    return key, value


def parse_typed(text: str) -> Any:
    text = text.strip()
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def parse_entries(given: Any) -> Any:
    if isinstance(given, Mapping):
        return {name: parse_entries(each) for name, each in given.items()}
    return parse_typed(given) if isinstance(given, str) else given


def format_typed(value: object) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return repr_given(value) if isinstance(value, float) else str(value)


def read_values(given: Any, *, name: str) -> list[Any]:
    """Read values: a list, ``24,72``, ``LOW:HIGH:COUNT`` or ``log:LOW:HIGH:COUNT``."""
    if not isinstance(given, str):
        return list(given) if isinstance(given, list) else [given]
    if ":" not in given:
        return read_list(given, name=name)
    low, high, count, is_log = read_numbers(given, 3, name=name)
    if count != round(count) or not 1 <= count <= MOST_VALUES or (is_log and min(low, high) <= 0):
        raise range_error(given, 3, name=name)
    space = np.geomspace if is_log else np.linspace
    values: list[Any] = space(low, high, int(count)).tolist()
    return values


def read_bounds(given: Any, *, name: str) -> Any:
    """Read what a search may choose from: a list, ``LOW:HIGH`` or ``log:LOW:HIGH``."""
    if not isinstance(given, str):
        return given if isinstance(given, list) else [given]
    if ":" not in given:
        return read_list(given, name=name)
    low, high, is_log = read_numbers(given, 2, name=name)
    between = read_range(name, low, high, is_log=bool(is_log))
    return between if is_log else (low, high)


def read_list(text: str, *, name: str) -> list[Any]:
    words = text.split(",")
    if not all(word.strip() for word in words):
        raise ParameterError(f"{name} must be values between commas, got {text!r}")
    return [parse_typed(word) for word in words]


def read_numbers(text: str, n: int, *, name: str) -> Sequence[float]:
    """Return the ``n`` numbers between colons, and whether they are of a logarithmic scale."""
    parts = text.split(":")
    is_log = parts[0].strip().lower() == "log"
    numbers = [parse_typed(part) for part in parts[is_log:]]
    is_number = [isinstance(each, int | float) and abs(each) < np.inf for each in numbers]
    if len(numbers) != n or not all(is_number):
        raise range_error(text, n, name=name)
    return [*map(float, numbers), is_log]


def range_error(text: str, n: int, *, name: str) -> ParameterError:
    form = "LOW:HIGH:COUNT" if n == 3 else "LOW:HIGH"
    return ParameterError(f"{name} must be {form}, or log:{form} above 0, got {text!r}")


def read_objective(text: str) -> str | dict[str, float]:
    if "=" not in text:
        return text
    weights = {}
    for part in text.split(","):
        name, weight = split_pair("--objective", part, "sharpe=1,turnover=-0.01")
        number = parse_typed(weight)
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ParameterError(
                f"a weight of an objective must be a number, got {weight!r} for {name}"
            )
        weights[name] = float(number)
    return weights


def read_bound(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"\s*(\w+)\s*((?:<=|>=|==|<|>).*)", text)
    if match is None:
        raise ParameterError(
            "a constraint is one bound for a measure, 'max_drawdown<=0.4' for example, got "
            f"{text!r}"
        )
    return match[1], match[2].strip()


# ---------------------------------------------------------------------------------------- the draft

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
        for other in ("values",) if key == "draws" else ("draws", "seed"):
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
