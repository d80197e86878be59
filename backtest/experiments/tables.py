"""The tables of an experiment: their keys, from the signatures of what reads them, and faults."""

from __future__ import annotations

import datetime as dt
import inspect
import re
import sys
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from backtest import core
from backtest.account import Account
from backtest.margin import RateCurve
from backtest.market import Markets
from backtest.venue import Venue

TIME = (str, dt.date)
SAMPLE = "sample"
DEFAULT_VENUE = "binance-usdm:BTCUSDT"


class Key(NamedTuple):
    """A key of a table; ``kinds`` are the types of its value in a file, none if any will do."""

    table: str
    name: str
    kinds: tuple[type, ...]
    text: str = ""
    default: Any = None

    @property
    def place(self) -> str:
        return f"{self.table}.{self.name}"


OWN: dict[str, dict[str, tuple[Any, ...]]] = {
    "data": {
        "path": ((str, list), "Folder or file ('sample'); repeatable."),
        "from": (TIME, "First bar to read, UTC."),
        "to": (TIME, "End of the last bar, UTC."),
        "resample": (str, "Combine bars into longer ones, e.g. 1d."),
        "instrument": ((str, list), "Instrument to read from a folder of several."),
    },
    "policy": {
        "name": (str, "A policy (vol-target), FILE.py:Class or package.module:Class."),
        "settings": (dict, "NAME=VALUE of the policy, or TABLE.KEY=VALUE "
                     "(see `backtest help`); repeatable."),
    },
    "venue": {
        "preset": (
            str,
            "NAME (binance-usdm, with the symbol of the data), NAME:SYMBOL, file:PATH#SYMBOL, or "
            "auto.",
        ),
        "listing": (str, "A file or folder of what the venue lists, in place of a preset."),
        "symbol": (str, "The symbol in the listing (that of the data)."),
        "like": (str, "The preset of the rules that the listing leaves out (binance-usdm)."),
        "date": (TIME, "The day of a listing that names none, or of the table in a folder."),
    },
    "lending": {"utilization": ((), "Share of deposits lent out, or a column of the bars.")},
    "overlay": {
        "name": (str, "A policy that scales all positions of several markets together."),
        "settings": (dict, "Parameters of the overlay."),
    },
    "run": {
        "start": (TIME,),
        "end": (TIME,),
        "signal": ((float, str), "Direction: -1 to 1 (1), a column, or a rule (rsi:14:30:70)."),
        "signal_settings": (dict, "Parameters of the signal's rule, also signal.NAME."),
        "weights": (str, "Several markets: a file of weights by time and instrument (1/n)."),
        "carry_weights": (bool, "Each row of weights holds from its time until the next."),
        "allocate": (str, "Several markets: 'equal', 'inverse-volatility', 'risk-budget'."),
        "allocate_settings": (dict, "Parameters of the weights' rule, also allocate.NAME."),
        "decision_interval": (str, "Bars at whose closes policies decide, such as 4h (all bars)."),
        "detail": (str,),
        "sampling": (str,),
        "calendar": ((str, int),),
        "compile": (bool, "Whether to compile; off for a debugger.", True),
    },
    "options": {
        "contracts": ((str, list, dict),
                      "Listed options, such as BTC-26JUN26-60000-P."),
        "chains": (str, "A file or folder of quotes, to which surfaces are fitted, or 'sample'."),
        "quantities": (str, "A file of signed contracts to hold, by time and option."),
        "settlement": (str, "Settlement of the quotes, 'cash' or 'coin' (known for Deribit's)."),
        "quote_age": (str, "How long a quote is the mark of its option (one bar)."),
        "max_age": (str, "Largest age of the last surface (14d)."),
    },
    "transfer": {
        "rule": (str, "Of several accounts: never, top-up, keep-shares, sweep-profits, or "
                 "FILE.py:Class (never)."),
        "settings": (dict, "Parameters of the rule."),
        "every": (str, "How often the rule is evaluated, such as 1h (1d)."),
        "delay": (str, "Time from leaving to arriving, such as 30min (0s)."),
        "fee": (float, "Fee of a transfer, out of what is sent (0)."),
        "settle": (str, "Currency that counts USD, USDT and USDC as one."),
    },
}  # fmt: skip
"""Keys that are no argument of the function of their table, or are written otherwise.

One without a text is a field of :class:`backtest.Backtest`, which has it.
"""
MODELS: dict[str, Any] = {"venue": Venue, "account": Account, "lending": RateCurve}
"""Tables of a model, which checks its own fields."""
TABLES = tuple(name for name in OWN if name not in MODELS)
"""The other tables that describe a test, and its policies."""
ACCOUNTS = "accounts"
"""The table of several accounts, each with the tables of an experiment."""
OF_ACCOUNT = ("data", "venue", "account", "lending", "policy", "overlay", "run", "options")
"""The tables that an account has; those outside are of all accounts that have none."""
JOBS = (
    "sweep", "compare", "paths", "risk", "stress", "bands", "cascade", "decide", "replay",
    "shadow", "tune", "validate", "sensitivity", "capacity", "timing", "margin", "judge",
)  # fmt: skip
"""Tables of what a command does with a test, which knows their keys."""
OF_LOAD = {"paths", "instruments", "since", "until"}
"""Arguments of ``Markets.load`` that have other names in ``[data]``."""
TEXTS = {
    "currency": "Settlement currency of several markets, if their names differ in it.",
    "interval": "Interval of the bars to read from a folder of several.",
    "timezone": "Time zone of stamps that have none.",
    "mark_gaps": "'last': fill missing mark prices with last prices.",
    "funding_gaps": "'zero': treat missing funding as none.",
    "sessions": "The market closes: bars may be missing.",
    "now": "The present, by which bars after tomorrow are refused (the clock).",
}
"""Texts of arguments of ``Markets.load`` that an experiment writes otherwise than Python."""

ReadKeys = Callable[[str], Mapping[str, "Key"]]

PLAIN: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (float,),
    "bool": (bool,),
    "Sequence[str]": (list,),
    "Sequence[float]": (list,),
    "TimeLike": TIME,
}
"""Types of values in a file by the annotations of arguments."""


@cache
def read_keys(table: str) -> dict[str, Key]:
    """Return the keys of a table that describes a test, or its policies."""
    keys: dict[str, Key] = {}
    for name, (kinds, *text) in OWN.get(table, {}).items():
        if not isinstance(kinds, tuple):
            kinds = (kinds,)  # noqa: PLW2901 - one type is written without its tuple
        keys[name] = Key(table, name, kinds, *text)

    # What a function or a model has beside them comes after, and changes none of them.
    if table == "data":
        for key in read_arguments(table, Markets.load, TEXTS):
            if key.name not in OF_LOAD:
                keys.setdefault(key.name, key)
    if table in MODELS:
        for key in list_fields(MODELS[table], table, ""):
            keys.setdefault(key.name, key)
    return keys


def read_arguments(table: str, function: Any, texts: Mapping[str, str]) -> Iterator[Key]:
    """Yield the arguments of a function as keys of a table, with these texts or its own."""
    documented = read_parameters(inspect.getdoc(function) or "")
    for name, argument in inspect.signature(function).parameters.items():
        text = texts.get(f"{table}.{name}") or texts.get(name, documented.get(name)) or ""
        default = None
        if argument.default is not argument.empty:
            default = argument.default
        yield Key(table, name, read_kinds(str(argument.annotation)), text, default)


def read_kinds(annotation: str) -> tuple[type, ...]:
    """Return the types of values in a file that an annotation allows, none if any will do."""
    kinds: tuple[type, ...] = ()
    for part in annotation.split(" | "):
        if part == "None":
            continue

        if part.startswith("Mapping[str, "):
            kinds += (dict,)
        elif part in PLAIN:
            kinds += PLAIN[part]
        else:
            return ()
    return kinds


STOP = re.compile(r"(?:(?<=[\w)])[.;:]|(?<=\x60)\.) (?![^()]*\))")
"""What ends the first sentence about a parameter; a stop in parentheses does not."""


PARAMETERS = re.compile(r"^(\S[^:\n]*?)(?: :.*)?\n((?:    .*\n?)+)", re.M)
"""Parameters of a docstring: a line of names and perhaps a type, and the indented text below."""
REFERENCE = re.compile(r":\w+:`~?(?:[\w.]+\.)?(\w+)`")
"""A cross reference of a docstring, and the last part of the name in it."""


def read_parameters(text: str) -> dict[str, str]:
    """Return the first sentence about each parameter in a docstring of numpydoc."""
    _, _, from_section = text.partition("Parameters\n----------\n")
    section, _, _ = from_section.partition("\n\n")
    sentences: dict[str, str] = {}
    for names, body in PARAMETERS.findall(section):
        # Up to the first stop, without the marks of cross references and code.
        on_one_line = " ".join(body.split())
        first = STOP.split(on_one_line)[0].rstrip(".:")
        plain = REFERENCE.sub(r"\1", first).replace("``", "")
        sentence = f"{core.capitalize(plain)}."

        for name in names.split(", "):
            sentences[name] = sentence
    return sentences


def list_fields(model: Any, table: str, prefix: str) -> Iterator[Key]:
    """Yield the fields of a model, and those of models in it, with dots between the names."""
    texts = read_parameters(inspect.getdoc(model) or "")
    named = vars(sys.modules[model.__module__])
    hints = typing.get_type_hints(model, include_extras=True)
    for name, field in model.__dataclass_fields__.items():
        # The type of a field is a text, "Fees | None": its first class may be a model.
        class_name, _, _ = str(field.type).partition(" ")
        part = named.get(class_name)
        if isinstance(part, type) and issubclass(part, core.Value):
            yield from list_fields(part, table, f"{prefix}{name}.")
            continue

        default = None
        if isinstance(field.default, (int, float, str)):
            default = field.default
        text = add_options(texts.get(name, ""), hints[name])
        yield Key(table, f"{prefix}{name}", (), text, default)


def add_options(text: str, hint: Any) -> str:
    """Return what a field means, with the values that it may have, if these are a few words.

    A text that names all of them stays as it is. ``hint`` is the type of the field with what
    declares it.
    """
    for declared in getattr(hint, "__metadata__", ()):
        each = getattr(declared, "each", declared)
        words = getattr(each, "options", ())
        if not all(word in text for word in words):
            return f"{text} One of {', '.join(words)}.".lstrip()
    return text


KIND_TEXTS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
    dt.date: "a time",
}
"""What errors call the types of values."""


def has_kind(value: object, kinds: tuple[type, ...]) -> bool:
    """Return whether a value is of one of these types, or a list of such; any is of none."""
    if isinstance(value, list) and list in kinds:
        inner = tuple(kind for kind in kinds if kind is not list)
        return all(has_kind(element, inner) for element in value)

    if not kinds:
        return True
    if isinstance(value, bool):  # an int to Python, and no number of a file
        return bool in kinds
    if float in kinds:
        return isinstance(value, (*kinds, int))
    return isinstance(value, kinds)


def describe_kinds(kinds: tuple[type, ...]) -> str:
    return " or ".join(KIND_TEXTS[kind] for kind in kinds)


def refuse_faults(tables: Mapping[str, Any], read_job: ReadKeys | None = None) -> None:
    """Raise ParameterError with all faults of an experiment's tables, if there are any.

    ``read_job`` gives the keys of a job's table, which is not looked into without it.
    """
    faults = [*list_faults(tables, read_job)]
    if faults:
        raise core.ParameterError("\n".join(dict.fromkeys(faults)))


def list_faults(
    tables: Mapping[str, Any], read_job: ReadKeys | None, lead: str = ""
) -> Iterator[str]:
    """Yield the faults of an experiment's tables, or of those of one of its accounts."""
    owner = "an experiment"
    known = [*TABLES, *JOBS, *MODELS, ACCOUNTS]
    if lead:
        owner = "an account"
        known = [*OF_ACCOUNT]

    for name, table in tables.items():
        place = f"{lead}{name}"
        if name not in known:
            yield f"{place}: {owner} has no such table{suggest(name, known)}"
            continue
        if not isinstance(table, dict):
            yield f"{place}: must be a table, got {table!r:.60}"
            continue

        if name == ACCOUNTS:
            yield from list_account_faults(table, read_job)
        elif name in TABLES:
            yield from list_table_faults(place, table, read_keys(name))
        elif name not in JOBS:
            yield from list_preset_faults(place, table)
        elif read_job is not None:
            yield from list_table_faults(place, table, read_job(name))


def list_preset_faults(place: str, table: Mapping[str, Any]) -> Iterator[str]:
    """Yield the presets of a table, and of the tables in it, that are no texts."""
    parts = {place: table}
    for name, entry in table.items():
        if isinstance(entry, dict):
            parts[f"{place}.{name}"] = entry
    for part, entries in parts.items():
        if not isinstance(entries.get("preset", ""), str):
            yield f"{part}.preset: must be text, got {entries['preset']!r:.60}"


def list_account_faults(accounts: Mapping[str, Any], read_job: ReadKeys | None) -> Iterator[str]:
    """Yield the faults of the tables of several accounts."""
    for name, tables in accounts.items():
        if isinstance(tables, dict):
            yield from list_faults(tables, read_job, lead=f"{ACCOUNTS}.{name}.")
        else:
            yield f"{ACCOUNTS}.{name}: must be a table of tables, got {tables!r:.60}"


def list_table_faults(title: str, table: Any, keys: Mapping[str, Key]) -> Iterator[str]:
    """Yield what is wrong with the entries of a table, by the keys that it may have."""
    is_of_policies = title.rpartition(".")[2] == "policy"
    hint = ""
    if "settings" in keys:
        hint = f"; parameters belong in {title}.settings"

    for name, value in table.items():
        place = f"{title}.{name}"
        if is_of_policies and name not in keys and is_policy(value):
            yield from list_table_faults(place, value, keys)
        elif name not in keys:
            yield f"{place}: no such key{suggest(name, keys)}{hint}"
        elif not has_kind(value, keys[name].kinds):
            rule = describe_kinds(keys[name].kinds)
            if float in keys[name].kinds:
                rule = f"{rule}{core.describe_fraction(value)}"
            yield f"{place}: must be {rule}, got {value!r:.60}"
        elif place == "compare.policies":
            yield from list_compared_faults(place, value)


def list_compared_faults(place: str, policies: Mapping[str, Any]) -> Iterator[str]:
    """Yield the faults of the policies that are compared, by their labels."""
    for label, entry in policies.items():
        if isinstance(entry, dict):
            yield from list_table_faults(f"{place}.{label}", entry, read_keys("policy"))
        else:
            yield f"{place}.{label}: must be a table, got {entry!r:.60}"


def suggest(name: str, known: Collection[str]) -> str:
    return core.did_you_mean(name, known) or f"; known are {', '.join(known)}"


def is_policy(entry: object) -> bool:
    return isinstance(entry, dict) and "name" in entry
