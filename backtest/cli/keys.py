"""The tables and keys of an experiment, from the signatures of the functions that take them."""

from __future__ import annotations

import datetime as dt
import inspect
import re
from collections.abc import Iterator
from functools import cache
from types import UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin

import backtest
from backtest.base import Choice, Value
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
    "method": "How to draw: sobol, lhs or uniform.",
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
