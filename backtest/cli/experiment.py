"""An experiment: the tables of its file, their keys, and the values of flags and entries.

The keys come from the signatures of the functions that use them.
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
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import backtest
from backtest import core
from backtest.margin import RateCurve

TIME = (str, dt.date)
RULE_TABLES = ("signal", "allocate")


class Key(NamedTuple):
    """A key of a table; ``kinds`` are the types of its value in a file, none if any will do."""

    table: str
    name: str
    kinds: tuple[type, ...]
    text: str
    default: Any = None

    @property
    def place(self) -> str:
        return f"{self.table}.{self.name}"

    @property
    def flag(self) -> str:
        return FLAGS.get(self.place, f"--{self.name.replace('_', '-')}")


EXAMPLES = {"shocks": "price=-0.3", "ladder": "price=-0.5:0.5:41"}
FLAGS = {
    "data.path": "--data",
    "policy.name": "--policy",
    "policy.settings": "--set",
    "venue.preset": "--venue",
    "sweep.values": "--vary",
    "stress.shocks": "--shock",
    "stress.scenarios": "--scenarios",
    **{f"{table}.constraints": "--constraints" for table in ("sweep", "tune", "validate")},
}
"""Flags that are called otherwise than their key."""

OWN: dict[str, dict[str, tuple[Any, ...]]] = {
    "data": {
        "path": ((str, list), "Folder or file ('sample'); repeatable."),
        "from": (TIME, "First bar to read, UTC."),
        "to": (TIME, "End of the last bar, UTC."),
        "resample": (str, "Combine bars into longer ones, e.g. 1d."),
        "instrument": ((str, list), "Instrument of a folder of several."),
    },
    "policy": {
        "name": (str, "A policy (vol-target), FILE.py:Class or package.module:Class."),
        "settings": (dict, "NAME=VALUE of the policy, or TABLE.KEY=VALUE "
                     "(see `backtest help`); repeatable."),
    },
    "venue": {
        "preset": (str, "NAME:SYMBOL (binance-usdm:BTCUSDT), file:PATH#SYMBOL, or auto."),
        "listing": (str, "A file or folder of what the venue lists, in place of a preset."),
        "symbol": (str, "The symbol in the listing (that of the data)."),
        "like": (str, "The preset of the rules that the listing leaves out (binance-usdm)."),
        "date": (TIME, "The day of a listing without one, or of which a folder's table is."),
    },
    "lending": {"utilization": ((), "Share of deposits lent out, or a column of the bars.")},
    "overlay": {
        "name": (str, "A policy that scales all positions of several markets together."),
        "settings": (dict, "Parameters of the overlay."),
    },
    "run": {
        "start": (TIME,),
        "end": (TIME,),
        "signal": ((float, str), "From -1 to 1 (1), a column, or rsi:14:30:70."),
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
    "sweep": {
        "values": (dict, "NAME=24,72 or NAME=0.1:1:64 or NAME=log:10:500:16; repeat."),
        "draws": (int, "Draw this many parameter sets instead (1024, if nothing varies)."),
        "objective": ((), "A measure (sharpe) or sharpe=1,turnover=-0.1."),
        "constraints": (dict, "A bound: 'max_drawdown<=0.4'; repeatable."),
    },
    "compare": {"policies": (dict, "Policies by label, each as [policy].")},
    "paths": {"funding": ((float, str), "'fitted' to the data (default), a rate per settlement, or "
                          "'none'.")},
    "risk": {
        "find_leverage": (float, "Find the highest leverage (with --policy: factor) of at most "
                          "this risk."),
        "threads": (int, "Number of threads (all cores)."),
        "frontier": (bool, "Show median growth against risk by leverage, under --drift."),
        "target": (float, "Find the probability to gain this share before the limits of loss."),
        "max_loss": (float, "With --target: the maximum loss (0.1)."),
        "daily_loss": (float, "With --target: the loss of a day, 0 for no limit (0.05)."),
        "trailing": (str, "With --target: maximum loss from the highest 'close' of a day, or "
                     "'intrabar'."),
        "locked": (float, "With --target: where the trailing floor stops, over the capital."),
        "days": (int, "With --target: days until the end (30)."),
    },
    "stress": {
        "scenarios": (list, "Historical episodes, such as 2020-03-12,2021-05-19 (all)."),
        "shocks": (dict, "A shock by field: price=-0.3, over=2h, spread=20; repeat."),
        "ladder": (dict, "Axis of a grid of shocks: price=-0.5:0.5:41; repeat."),
    },
    "cascade": {
        "impact": (str, "Impact of sales: sqrt:COEFFICIENT[:VOLATILITY] or linear:COEFFICIENT."),
    },
    "decide": {"snapshot": (str, "The account, as the JSON of its fields.")},
    "replay": {
        "fills": (str, "The fills: a CSV table, or the JSON of ccxt."),
        "begin": (str, "The account at the start, as --snapshot of `backtest decide` (flat)."),
        "ledger": (str, "A CSV of the venue's ledger, or of the equity, to compare with."),
    },
}  # fmt: skip
"""Keys that are no argument of the function of their table, or are written otherwise.

One without a text is a field of :class:`backtest.Backtest`, which has it.
"""

FUNCTIONS = {
    "data": ("Markets.load",),
    "sweep": ("Backtest.sweep",),
    "tune": ("Backtest.tune",),
    "validate": ("Backtest.walk_forward", "Backtest.cross_validate"),
    "compare": ("compare",),
    "paths": ("simulate_paths",),
    "risk": ("Backtest.liquidation_risk",),
    "stress": ("stress",),
    "sensitivity": ("Backtest.sensitivity",),
    "capacity": ("Backtest.capacity",),
    "timing": ("timing_test",),
    "margin": ("Backtest.compare_margin", "Backtest.calibrate_margin"),
    "cascade": ("cascade", "Crowd.from_leverage"),
    "decide": ("Backtest.decide",),
    "replay": ("Backtest.replay",),
}
"""The functions whose arguments a table holds."""
TAKEN = {
    "self",
    *("market", "policy", "rule", "venue", "account", "signal", "overlay", "sampling", "calendar"),
    *("compile", "decision_interval", "detail", "start", "end", "sets", "results", "result"),
    *("store", "me", "progress", "data", "crowd", "entries", "state", "rules", "price", "since"),
    *("until", "instruments"),
}  # fmt: skip
"""Arguments that the other tables give, or that are objects."""
KEPT = {("stress", "rules"), ("cascade", "price")}

MODELS: dict[str, Any] = {
    "venue": backtest.Venue,
    "account": backtest.Account,
    "lending": RateCurve,
}
"""Tables of a model, which checks its own fields."""
TABLES = tuple(each for each in dict.fromkeys([*OWN, *FUNCTIONS]) if each not in MODELS)

TEXTS = {
    "currency": "Settlement currency of several markets, if their names differ in it.",
    "interval": "Interval of the bars to read from a folder of several.",
    "timezone": "Time zone of stamps that have none.",
    "mark_gaps": "'last': fill missing mark prices with last prices.",
    "funding_gaps": "'zero': treat missing funding as none.",
    "sessions": "The market closes: bars may be missing.",
    "data.now": "The present, by which bars after tomorrow are refused (the clock).",
    "cascade.accounts": "Number of accounts.",
    "cascade.seed": "Seed of the accounts.",
    "cascade.leverage": "Leverage of accounts: loguniform:1:50, uniform:1:20 or constant:10.",
    "factors": "rates, funding, funding shift, fees, slippage, margin, volatility (all).",
    "margin.accounts": "Number of accounts, which begin at drawn times.",
    "drift": "Growth of the expected price per year: a number, history or shrunk (none).",
    "correlation": "Correlation of instruments in parametric models (of history).",
    "default_rate": "Defaults of the venue per year.",
    "risk.recovery": "The share of equity that a default leaves.",
    "parameters": "Change the parameters of policy and signal instead.",
    "horizons": "Horizons (1d,7d,30d).",
    "capitals": "Capitals to try: 1e4,1e6,1e8.",
    "rules": "Margin tables: 'run', 'today' or 'then'.",
    "groups": "Number of groups of time.",
    "test_groups": "Number of groups in each test.",
    "train": "Train spans.",
    "test": "Test spans.",
    "decide.funding": "Rate of a settlement at the next open (none).",
    "decide.liquidation": "'ours' acts although a reported liquidation price differs (compared).",
    "trials": "Maximum number of parameter sets.",
    "compare.draws": "Number of resampled histories.",
    "confidence": "Confidence of the intervals.",
    "accounts": "Several markets: one 'shared' account, or 'separate' ones, pooled.",
    "pool": "Separate accounts: how their measures become one: mean, median or worst.",
    "objective": "A measure (sharpe) or sharpe=1,turnover=-0.1; repeat for a frontier.",
    "constraints": "A bound: 'max_drawdown<=0.4'; repeatable.",
    "space": "NAME=0.1:1, NAME=log:10:500 or NAME=a,b.",
    "fix": "NAME=VALUE to keep fixed; repeatable.",
    "patience": "Evaluations without a gain (of 1/4 standard error) that end the search.",
    "sampler": "auto, gp, sobol, random or grid.",
    "robust": "Whether neighbors must be good too.",
    "anchored": "Begin every train span where the first one begins.",
    "jump": "Let the price jump by the shock: nobody trades on its way.",
    "seed": "Seed of all random numbers.",
    "threads": "Number of threads (all cores).",
    "memory": "Memory for the columns of policies.",
    "cluster": "Dask workers: tcp://HOST:PORT, tls://HOST:PORT or local:N.",
    "holdout": "Unseen last part: 25%, 90d or none.",
    "resume": "Continue what these arguments began.",
    "adl": "Auto-deleveraging: 'queue', 'pro-rata' or 'none'.",
    "at": "Price of the order: 30000, or BTCUSDT=30000,ETHUSDT=2000 (the last close).",
    "now": "Current time, UTC (the clock).",
    "paths.paths": "Number of paths.",
    "model": "filtered, stationary or gbm.",
}
"""Texts of arguments that the command line writes otherwise than Python."""

SWITCHES = {
    "compile": "Run in plain Python, where a debugger stops.",
    "equal_risk": "Compare the accounts as they are, at the volatility that each has.",
    "robust": "Choose the highest value even on a spike.",
}
"""What the switch ``--no-NAME`` of a key does, which is on by default."""

PLAIN: dict[str, tuple[type, ...]] = {
    "str": (str,), "int": (int,), "float": (float,), "bool": (bool,), "Sequence[str]": (list,),
    "Sequence[float]": (list,), "TimeLike": TIME,
}  # fmt: skip


@cache
def read_keys(table: str) -> dict[str, Key]:
    found, fields = {}, read_parameters(inspect.getdoc(backtest.Backtest) or "")
    for name, (kinds, *told) in OWN.get(table, {}).items():
        own = told or [fields.get(name, "")]  # no docstring under -OO
        found[name] = Key(table, name, kinds if isinstance(kinds, tuple) else (kinds,), *own)
    for function in FUNCTIONS.get(table, ()):
        target = attrgetter(function)(backtest)
        texts = read_parameters(inspect.getdoc(target) or "")
        for name, each in inspect.signature(target).parameters.items():
            taken = name in TAKEN or (name == "paths" and table != "paths")
            taken = taken or "Result" in str(each.annotation)
            if not taken or (table, name) in KEPT:
                text = TEXTS.get(f"{table}.{name}") or TEXTS.get(name, texts.get(name)) or ""
                default = None if each.default is each.empty else each.default
                kinds = read_kinds(str(each.annotation))
                found.setdefault(name, Key(table, name, kinds, text, default))
    for key in list_fields(MODELS[table], table, "") if table in MODELS else ():
        found.setdefault(key.name, key)
    return found


def read_kinds(annotation: str) -> tuple[type, ...]:
    found: tuple[type, ...] = ()
    for each in annotation.split(" | "):
        kinds = (dict,) if each.startswith("Mapping[str, ") else PLAIN.get(each, ())
        if not kinds and each != "None":
            return ()
        found += kinds
    return found


def read_parameters(text: str) -> dict[str, str]:
    """Return the first sentence about each parameter in a docstring of numpydoc."""
    section = text.partition("Parameters\n----------\n")[2].partition("\n\n")[0]
    found = {}
    for names, body in re.findall(r"^(\S[^:\n]*?)(?: :.*)?\n((?:    .*\n?)+)", section, re.M):
        sentence = re.split(r"(?<=[\w)])[.;:] ", " ".join(body.split()))[0].rstrip(".:")
        plain = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"\1", sentence).replace("``", "")
        found.update(dict.fromkeys(names.split(", "), f"{plain[:1].upper()}{plain[1:]}."))
    return found


def list_fields(model: Any, table: str, prefix: str) -> Iterator[Key]:
    texts = read_parameters(inspect.getdoc(model) or "")
    for name, field in model.__dataclass_fields__.items():
        part = getattr(backtest, str(field.type).partition(" ")[0], None)
        if isinstance(part, type) and issubclass(part, core.Value):
            yield from list_fields(part, table, f"{prefix}{name}.")
        else:
            default = field.default if isinstance(field.default, (int, float, str)) else None
            yield Key(table, f"{prefix}{name}", (), texts.get(name, ""), default)


def find_key(name: str) -> Key:
    table, _, key = name.partition(".")
    return read_keys(table)[key]


KIND_TEXTS = {str: "text", int: "a whole number", float: "a number", bool: "true or false",
              list: "a list", dict: "a table", dt.date: "a time"}  # fmt: skip


def has_kind(value: object, kinds: tuple[type, ...]) -> bool:
    if isinstance(value, list) and list in kinds:
        inner = tuple(each for each in kinds if each is not list)
        return all(has_kind(each, inner) for each in value)
    if not kinds or isinstance(value, bool):
        return not kinds or bool in kinds
    return isinstance(value, (*kinds, int) if float in kinds else kinds)


def describe_kinds(kinds: tuple[type, ...]) -> str:
    return " or ".join(KIND_TEXTS[each] for each in kinds)


WORDS: Mapping[str, Any] = {"none": None, "true": True, "false": False}
MAX_VALUES = 1_000_000


def split_pair(name: str, text: str, example: str) -> tuple[str, str]:
    key, equals, value = (part.strip() for part in text.partition("="))
    if not (key and equals and value):
        raise core.ParameterError(
            f"{name} needs NAME=VALUE, {shlex.quote(example)} for example, got {text!r}"
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


def format_typed(value: object) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return core.repr_given(value) if isinstance(value, float) else str(value)


def read_values(given: Any, *, name: str) -> list[Any]:
    """Read values: a list, ``24,72``, ``LOW:HIGH:COUNT`` or ``log:LOW:HIGH:COUNT``."""
    if not isinstance(given, str) or ":" not in given:
        return read_list(given, name=name)
    low, high, count, is_log = read_range(given, 3, name=name)
    space = np.geomspace if is_log else np.linspace
    values: list[Any] = space(low, high, int(count)).tolist()
    return values


def read_bounds(given: Any, *, name: str) -> Any:
    """Read what a search may choose from: a list, ``LOW:HIGH`` or ``log:LOW:HIGH``."""
    if not isinstance(given, str) or ":" not in given:
        return read_list(given, name=name)
    low, high, is_log = read_range(given, 2, name=name)
    return core.Range(low, high, log=True) if is_log else (low, high)


def read_list(given: Any, *, name: str) -> list[Any]:
    if not isinstance(given, str):
        return given if isinstance(given, list) else [given]
    words = given.split(",")
    if not all(word.strip() for word in words):
        raise core.ParameterError(f"{name} must be values between commas, got {given!r}")
    return [parse_typed(word) for word in words]


def read_range(text: str, n: int, *, name: str) -> Sequence[float]:
    """Return LOW, HIGH and, for ``n`` = 3, COUNT, and whether the scale is logarithmic."""
    parts = text.split(":")
    is_log = parts[0].strip().lower() == "log"
    numbers = [parse_typed(part) for part in parts[is_log:]]
    is_number = [isinstance(each, int | float) and abs(each) < np.inf for each in numbers]
    if is_valid := len(numbers) == n and all(is_number):
        low, high, count = numbers if n == 3 else (*numbers, 1)
        is_valid = count == round(count) and 1 <= count <= MAX_VALUES and (n == 3 or low <= high)
        is_valid &= not is_log or min(low, high) > 0
    if not is_valid:
        form, order = ("LOW:HIGH:COUNT", "") if n == 3 else ("LOW:HIGH", ", LOW <= HIGH")
        raise core.ParameterError(
            f"{name} must be {form}, or log:{form} above 0{order}, got {text!r}"
        )
    return [*map(float, numbers), is_log]


def read_objective(text: str) -> str | dict[str, float]:
    if "=" not in text:
        return text
    weights = {}
    for part in text.split(","):
        name, weight = split_pair("--objective", part, "sharpe=1,turnover=-0.01")
        number = parse_typed(weight)
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise core.ParameterError(
                f"a weight of an objective must be a number, got {weight!r} for {name}"
            )
        weights[name] = float(number)
    return weights


def read_bound(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"\s*(\w+)\s*((?:<=|>=|==|<|>).*)", text)
    if match is None:
        raise core.ParameterError(
            "a constraint is one bound for a measure, 'max_drawdown<=0.4' for example, got "
            f"{text!r}"
        )
    return match[1], match[2].strip()


Tables = dict[str, dict[str, Any]]
Entry = tuple[str, Any]
"""The dotted name of a key, such as ``account.band``, and its value."""
SAMPLE = "sample"
DEFAULT_VENUE = "binance-usdm:BTCUSDT"
PATHS = ("data.path", "run.weights", "run.detail", "options.chains", "options.quantities",
         "decide.snapshot", "replay.fills", "replay.begin", "replay.ledger")  # fmt: skip
RAW = ("settings", "policies", "space", "values", "ladder", "constraints")
"""Tables in tables whose entries stay text: their functions parse ranges, bounds and settings."""


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
        table, _, key = name.partition(".")
        is_other = name == "policy.name" and tables.get(table, {key: 0})[key] != value
        if name == "venue.preset" or is_other:
            tables.pop(table, None)
        replaced: tuple[str, ...] = ()
        if table == "run" and key in RULE_TABLES:
            replaced = (f"{key}_settings",)
        elif table == "sweep" and key.partition(".")[0] in ("values", "draws"):
            replaced = ("values",) if key == "draws" else ("draws", "seed")
        for each in replaced:
            tables.get(table, {}).pop(each, None)
    for name, value in given:
        put(tables, name.split("."), value)
    refuse_faults(tables)
    return Draft(tables, tuple(name for name, _ in given), file)


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


def read_flags(key: Key, texts: list[str]) -> Iterator[Entry]:
    if key.name in ("path", "instrument", "objective") and len(texts) > 1:
        yield key.place, texts
        return
    seen: set[str] = set()
    for text in texts:
        if key.place == "policy.settings":
            yield read_entry(*split_pair(key.flag, text, "target=0.4"))
            continue
        if key.name == "constraints":
            measure, bound = read_bound(text)
            entry: Entry = (f"{key.place}.{measure}", bound)
        elif key.kinds == (dict,):
            name, value = split_pair(key.flag, text, EXAMPLES.get(key.name, "target=0.1:1"))
            entry = read_entry(f"{key.place}.{name}", value)
        else:
            entry = read_entry(key.place, text)
        if entry[0] in seen:
            raise core.ParameterError(
                f"{key.flag} must have each entry once, {entry[0]} was given twice"
            )
        seen.add(entry[0])
        yield entry


def read_entry(name: str, text: str) -> Entry:
    """Return the key of a table that a name stands for, or else a parameter of the policy."""
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
    if dot:
        return name, text if first in RAW else parse_typed(text)
    return name, read_text(known, text)


def read_text(key: Key, text: str) -> Any:
    if key.name == "objective":
        return read_objective(text)
    if key.kinds == (list,):
        return read_list(text, name=key.place)
    if "=" in text and dict in key.kinds:
        pairs = (split_pair(key.place, pair, "BTCUSDT=30000") for pair in text.split(","))
        return {entry: parse_typed(number) for entry, number in pairs}
    if str in key.kinds and not {int, float} & {*key.kinds}:
        return text
    value = parse_typed(text)
    return text if value is None and str in key.kinds else value


def read_experiment(file: Path) -> Tables:
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
    refuse_faults(tables)
    for name in ("policy", "overlay"):
        table = tables.get(name, {"name": ""})
        if "name" not in table and not any(map(is_policy, table.values())):
            raise core.ParameterError(f"{name}.name: is needed")
    venue = tables.get("venue", {})
    for each in [venue, *venue.values()]:  # a venue given whole has no preset under it
        if isinstance(each, dict) and "contract" in each:
            each.setdefault("preset", "")
    anchored: Tables = anchor(tables, file.parent)
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
    if table in ("policy", "overlay", "compare") and key.endswith("name"):
        return re.sub(r"[^\s(),=]+\.py\b", find_policy, value)
    if table == "venue" and key.rpartition(".")[2] == "preset" and value.startswith("file:"):
        return f"file:{folder / value.removeprefix('file:')}"
    if table == "venue" and key.rpartition(".")[2] == "listing":
        return str(folder / value)
    is_preset = table == "venue" and key.endswith("preset") and re.search(r"\.(json|toml):", value)
    return str(folder / value) if is_preset or name in PATHS else value


def refuse_faults(tables: Mapping[str, Any]) -> None:
    known, faults = [*TABLES, *MODELS], list[str]()
    for name, table in tables.items():
        if name not in known:
            faults.append(f"{name}: an experiment has no such table{suggest(name, known)}")
        elif not isinstance(table, dict):
            faults.append(f"{name}: must be a table, got {table!r:.60}")
        elif name in TABLES:
            faults += list_table_faults(name, table, read_keys(name))
        else:
            own = {f"{name}.{key}": each for key, each in table.items() if isinstance(each, dict)}
            for place, each in {name: table, **own}.items():
                if not isinstance(each.get("preset", ""), str):
                    faults.append(f"{place}.preset: must be text, got {each['preset']!r:.60}")
    if faults:
        raise core.ParameterError("\n".join(dict.fromkeys(faults)))


def list_table_faults(title: str, table: Any, keys: Mapping[str, Key]) -> Iterator[str]:
    for name, value in table.items():
        place = f"{title}.{name}"
        if title == "policy" and name not in keys and is_policy(value):
            yield from list_table_faults(place, value, keys)
        elif name not in keys:
            own = f"; parameters belong in {title}.settings" if "settings" in keys else ""
            yield f"{place}: no such key{suggest(name, keys)}{own}"
        elif not has_kind(value, keys[name].kinds):
            yield f"{place}: must be {describe_kinds(keys[name].kinds)}, got {value!r:.60}"
        elif place == "compare.policies":
            for label, each in value.items():
                if isinstance(each, dict):
                    yield from list_table_faults(f"{place}.{label}", each, read_keys("policy"))
                else:
                    yield f"{place}.{label}: must be a table, got {each!r:.60}"


def suggest(name: str, known: Collection[str]) -> str:
    return core.did_you_mean(name, known) or f"; known are {', '.join(known)}"


def is_policy(entry: object) -> bool:
    return isinstance(entry, dict) and "name" in entry
