"""The tables of jobs, whose keys come from the functions that do them, and the values of flags.

The tables that describe a test are those of :mod:`backtest.experiments`.
"""

from __future__ import annotations

import difflib
import inspect
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

import backtest
from backtest import core
from backtest.experiments import tables
from backtest.experiments.draft import Draft, put, read_experiment
from backtest.experiments.tables import ACCOUNTS, JOBS, MODELS, Key, read_arguments, refuse_faults

TABLES = (*tables.TABLES, *JOBS)
"""The tables of an experiment that are no model."""
RULE_TABLES = ("signal", "allocate")


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


def name_flag(key: Key) -> str:
    return FLAGS.get(key.place, f"--{key.name.replace('_', '-')}")


OWN: dict[str, dict[str, tuple[Any, ...]]] = {
    "sweep": {
        "values": (dict, "NAME=24,72 or NAME=0.1:1:64 or NAME=log:10:500:16; repeat."),
        "draws": (int, "Draw this many parameter sets instead (1024, if nothing varies)."),
        "objective": ((), "A measure (sharpe) or sharpe=1,turnover=-0.1."),
        "constraints": (dict, "A bound: 'max_drawdown<=0.4'; repeatable."),
    },
    "compare": {"policies": (dict, "Policies by label, each as [policy].")},
    "judge": {
        "require": (
            list,
            "Exit code 1 unless all hold: better (than constant leverage "
            "at equal risk), safe (lost in at most 1 % of 30 days), timed (10 fills or "
            "more, of several leverages).",
        ),
    },
    "paths": {
        "funding": (
            (float, str),
            "'fitted' to the data (default), a rate per settlement, or 'none'.",
        )
    },
    "risk": {
        "find_leverage": (
            float,
            "Find the highest leverage (with --policy: factor) with at most this risk.",
        ),
        "evaluations": (int, "With --find-leverage: bisect one model with this many leverages."),
        "threads": (int, "Number of threads (all cores)."),
        "frontier": (bool, "Show median growth against risk by leverage, under --drift."),
        "target": (float, "Find the probability of gaining this before a limit of loss is hit."),
        "max_loss": (float, "With --target: the maximum loss (0.1)."),
        "daily_loss": (float, "With --target: the loss of a day, 0 for no limit (0.05)."),
        "trailing": (
            str,
            "With --target: maximum loss from the highest 'close' of a day, or 'intrabar'.",
        ),
        "min_days": (int, "With --target: the first day on which an account can pass (0)."),
        "consistency": (float, "With --target: largest share of the profit from the best day."),
        "locked": (float, "With --target: gain at which the trailing floor stops rising."),
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
    "decide": {
        "snapshot": (
            str,
            "The account: the JSON of its fields, or of ccxt's fetch_balance and fetch_positions.",
        )
    },
    "shadow": {
        "fills": (str, "The account's fills: a CSV table, or the JSON of ccxt."),
        "snapshot": ((str, list), "The account: at the end, and before that at any times; repeat."),
        "flows": (str, "Deposits, or the venue's ledger with its funding: a CSV."),
    },
    "replay": {
        "fills": (str, "The fills: a CSV table, or the JSON of ccxt."),
        "begin": (str, "The account at the start, as --snapshot of `backtest decide` (flat)."),
        "ledger": (str, "A CSV of the venue's ledger, or of the equity, to compare with."),
    },
}
"""Keys that are no argument of the function of their table, or are written otherwise."""

FUNCTIONS = {
    "sweep": ("Backtest.sweep",),
    "tune": ("Backtest.tune",),
    "validate": ("Backtest.walk_forward", "Backtest.cross_validate"),
    "compare": ("compare",),
    "judge": ("Backtest.judge",),
    "paths": ("simulate_paths",),
    "risk": ("Backtest.liquidation_risk",),
    "stress": ("stress",),
    "bands": ("Result.bands",),
    "sensitivity": ("Backtest.sensitivity",),
    "capacity": ("Backtest.capacity",),
    "timing": ("timing_test",),
    "margin": ("Backtest.compare_margin", "Backtest.calibrate_margin"),
    "cascade": ("cascade", "Crowd.from_leverage"),
    "decide": ("Backtest.decide",),
    "replay": ("Backtest.replay",),
    "shadow": ("Backtest.shadow",),
}
"""The functions whose arguments a table holds."""
TAKEN = {
    "account",
    "calendar",
    "compile",
    "crowd",
    "data",
    "decision_interval",
    "detail",
    "end",
    "entries",
    "market",
    "markets",
    "me",
    "overlay",
    "policy",
    "price",
    "progress",
    "result",
    "results",
    "rule",
    "rules",
    "sampling",
    "self",
    "sets",
    "signal",
    "snapshots",
    "start",
    "state",
    "store",
    "venue",
}
"""Arguments that the other tables give, or that are objects."""
KEPT = {("stress", "rules"), ("cascade", "price")}
"""Keys of their tables all the same, by table and argument."""

TEXTS = {
    "cascade.accounts": "Number of accounts.",
    "cascade.seed": "Seed of the accounts.",
    "cascade.leverage": "Leverage of accounts: loguniform:1:50, uniform:1:20 or constant:10.",
    "bands.n": "Number of resampled markets (1000).",
    "factors": "rates, funding, funding shift, fees, slippage, margin, volatility (all).",
    "margin.accounts": "Number of accounts, which begin at random times.",
    "drift": "Growth of the expected price per year: a number, history or shrunk (none).",
    "correlation": "Correlation of instruments in parametric models (that of history).",
    "default_rate": "Expected defaults of the venue per year.",
    "risk.recovery": "The share of equity that a default leaves.",
    "parameters": "Change the parameters of policy and signal instead.",
    "horizons": "Horizons (1d,7d,30d).",
    "score": "Also score the forecasts: repeat them at past dates, and show the outcomes.",
    "capitals": "Capitals to try: 1e4,1e6,1e8.",
    "rules": "Margin tables: 'run', 'today' or 'then'.",
    "groups": "Number of groups of time.",
    "test_groups": "Number of groups in each test.",
    "train": "Length of the train spans.",
    "test": "Length of the test spans.",
    "margin.horizon": "Length of each path, such as 90d.",
    "shortfall": "With --solve: the share of paths that may have a shortfall.",
    "haircuts": "Several markets: the share of the value of coins that backs nothing.",
    "decide.funding": "Rate of a settlement at the next open (none).",
    "decide.liquidation": "'ours': act even if a reported liquidation price differs (compared).",
    "trials": "Maximum number of parameter sets.",
    "compare.draws": "Number of resampled histories.",
    "judge.draws": "Number of resampled histories.",
    "judge.paths": "Number of paths of 30 days, at least 2,000.",
    "tune": "Re-optimize with this many sets a fold, and judge only out of sample.",
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
    "jump": "Let the price jump by the shock, without trades on the way.",
    "seed": "Seed of all random numbers.",
    "threads": "Number of threads (all cores).",
    "memory": "Memory for the columns of policies.",
    "cluster": "Dask workers: tcp://HOST:PORT, tls://HOST:PORT or local:N.",
    "holdout": "Unseen last part: 25%, 90d or none.",
    "resume": "Continue an interrupted search of the same arguments.",
    "adl": "Auto-deleveraging: 'queue', 'pro-rata' or 'none'.",
    "at": "Price of the order: 30000, or BTCUSDT=30000,ETHUSDT=2000 (the last close).",
    "now": "Current time, UTC (the clock).",
    "paths.paths": "Number of paths.",
    "model": "filtered, stationary or gbm.",
}
"""Texts of arguments that the command line writes otherwise than Python."""

SWITCHES = {
    "compile": "Compile what runs (default), or run plain Python, where a debugger stops.",
    "equal_risk": "Compare at equal risk (default), or at the volatility that each has.",
    "robust": "Choose a plateau (default), or the highest value even on a spike.",
}
"""The texts of switches that are on by default."""


@cache
def read_keys(table: str) -> dict[str, Key]:
    """Return the keys of a table: of a job, or of what describes a test."""
    if table not in JOBS:
        return read_test_keys(table)

    keys = {}
    for name, (declared, text) in OWN.get(table, {}).items():
        kinds = declared
        if not isinstance(declared, tuple):
            kinds = (declared,)
        keys[name] = Key(table, name, kinds, text)

    for function in FUNCTIONS[table]:
        target = attrgetter(function)(backtest)
        parameters = inspect.signature(target).parameters
        for key in read_arguments(table, target, TEXTS):
            annotation = str(parameters[key.name].annotation)
            if is_key(table, key.name, annotation):
                keys.setdefault(key.name, key)
    return keys


def is_key(table: str, name: str, annotation: str) -> bool:
    """Return whether an argument of a function is a key of its table.

    It is none if it is a result, which no text can say, or if another table gives it.
    """
    if (table, name) in KEPT:
        return True
    if "Result" in annotation:
        return False
    if name == "paths":
        return table in ("paths", "judge")
    return name not in TAKEN


def read_test_keys(table: str) -> dict[str, Key]:
    """Return the keys of a table that describes a test; fields of it have their own texts."""
    keys = tables.read_keys(table)
    if table != "run":
        return keys

    texts = tables.read_parameters(inspect.getdoc(backtest.Backtest) or "")
    described = {}
    for name, key in keys.items():
        described[name] = key
        if not key.text:
            described[name] = key._replace(text=texts.get(name, ""))
    return described


def find_key(name: str) -> Key:
    table, _, key = name.partition(".")
    return read_keys(table)[key]


WORDS: Mapping[str, Any] = {"none": None, "true": True, "false": False}
MAX_VALUES = 1_000_000


def split_pair(name: str, text: str, example: str) -> tuple[str, str]:
    """Return the two sides of NAME=VALUE; ``name`` and ``example`` are for the error."""
    key, equals, value = (part.strip() for part in text.partition("="))
    if not (key and equals and value):
        raise core.ParameterError(
            f"{name} needs NAME=VALUE, {shlex.quote(example)} for example, got {text!r}"
        )
    return key, value


def parse_typed(text: str) -> Any:
    """Return none, true or false, a number, or else the text itself."""
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
    if isinstance(value, float):
        return core.repr_given(value)
    return str(value)


def read_values(text: Any, *, name: str) -> list[Any]:
    """Read values: a list, ``24,72``, ``LOW:HIGH:COUNT`` or ``log:LOW:HIGH:COUNT``."""
    if not isinstance(text, str) or ":" not in text:
        return read_list(text, name=name)

    low, high, count, is_log = read_range(text, 3, name=name)
    space = np.geomspace if is_log else np.linspace
    values: list[Any] = space(low, high, int(count)).tolist()
    return values


def read_bounds(text: Any, *, name: str) -> Any:
    """Read what a search may choose from: a list, ``LOW:HIGH`` or ``log:LOW:HIGH``."""
    if not isinstance(text, str) or ":" not in text:
        check_no_dash(text, name=name)
        return read_list(text, name=name)

    low, high, is_log = read_range(text, 2, name=name)
    if is_log:
        return core.Range(low, high, log=True)
    return low, high


def check_no_dash(text: Any, *, name: str) -> None:
    """Raise ParameterError for two numbers with a dash between, which are meant as a range."""
    dashed = re.fullmatch(r"\s*([\d.]+)\s*-\s*([\d.]+)\s*", str(text))
    if dashed is None:
        return
    low, high = dashed.groups()
    raise core.ParameterError(
        f"{name} must have a colon between the ends of a range, got {text!r}; give {low}:{high}"
    )


def read_list(text: Any, *, name: str) -> list[Any]:
    """Read values between commas; what is no text is a list, or its only value."""
    if isinstance(text, list):
        return text
    if not isinstance(text, str):
        return [text]

    words = text.split(",")
    if not all(word.strip() for word in words):
        raise core.ParameterError(f"{name} must be values between commas, got {text!r}")
    return [parse_typed(word) for word in words]


def read_range(text: str, n: int, *, name: str) -> Sequence[float]:
    """Return the numbers of a range, and last, as one more entry, whether its scale is logarithmic.

    A text has ``n`` numbers: LOW and HIGH, and for ``n`` = 3 COUNT.
    """
    parts = text.split(":")
    is_log = parts[0].strip().lower() == "log"
    if is_log:
        parts = parts[1:]
    numbers = [parse_typed(part) for part in parts]
    if is_range(numbers, n, is_log=is_log):
        return [*map(float, numbers), is_log]

    form = "LOW:HIGH"
    order = ", LOW <= HIGH"
    if n == 3:
        form = "LOW:HIGH:COUNT"
        order = ""
    raise core.ParameterError(f"{name} must be {form}, or log:{form} above 0{order}, got {text!r}")


def is_range(numbers: Sequence[Any], n: int, *, is_log: bool) -> bool:
    """Return whether LOW, HIGH and, for ``n`` = 3, COUNT are numbers that make a range."""
    if len(numbers) != n:
        return False
    for number in numbers:
        if not isinstance(number, int | float) or not abs(number) < np.inf:
            return False

    low, high, *counts = numbers
    for count in counts:
        if count != round(count) or not 1 <= count <= MAX_VALUES:
            return False
    if n == 2 and low > high:
        return False
    if is_log:
        return bool(min(low, high) > 0)
    return True


def read_objective(text: str) -> str | dict[str, float]:
    """Return a measure, or of ``sharpe=1,turnover=-0.1`` the weights of several."""
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
    """Return the measure and the bound of ``max_drawdown<=0.4``."""
    match = re.fullmatch(r"\s*(\w+)\s*((?:<=|>=|==|<|>).*)", text)
    if match is None:
        raise core.ParameterError(
            "a constraint is one bound for a measure, 'max_drawdown<=0.4' for example, got "
            f"{text!r}"
        )
    return match[1], match[2].strip()


Entry = tuple[str, Any]
"""The dotted name of a key, such as ``account.band``, and its value."""
RAW = ("settings", "policies", "space", "values", "ladder", "constraints")
"""Tables in tables whose entries stay text: their functions parse ranges, bounds and settings."""


def draft_experiment(file: Path | None, entries: Iterable[Entry] = ()) -> Draft:
    """Read an experiment file, and set entries over it.

    An entry that replaces the policy, the venue, the signal or the sets of the file also drops
    their settings.
    """
    tables: dict[str, Any] = {}
    if file is not None:
        tables = read_experiment(file, read_keys)

    # All drops come first: an entry may set what another one replaces.
    pairs = list(entries)
    for name, value in pairs:
        drop_replaced(tables, name, value)
    for name, value in pairs:
        put(tables, name.split("."), value)

    refuse_faults(tables, read_keys)
    return Draft(tables, tuple(name for name, _ in pairs), file)


def drop_replaced(tables: dict[str, Any], name: str, value: Any) -> None:
    """Drop from the tables of a file what belongs to another value of an entry."""
    table, _, key = name.partition(".")
    known = tables.get(table, {})
    if name == "venue.preset" or (name == "policy.name" and known.get(key) != value):
        tables.pop(table, None)
        return

    replaced: tuple[str, ...] = ()
    if table == "run" and key in RULE_TABLES:
        replaced = (f"{key}_settings",)
    elif name == "transfer.rule" and known.get("rule", value) != value:
        replaced = ("settings",)
    elif table == "sweep" and key == "draws":
        replaced = ("values",)
    elif table == "sweep" and key.partition(".")[0] == "values":
        replaced = ("draws", "seed")
    for other in replaced:
        known.pop(other, None)


def read_flags(key: Key, texts: list[str]) -> Iterator[Entry]:
    """Yield the entries of the texts of a flag; settings of a policy may override one another."""
    if key.name in ("path", "instrument", "objective", "snapshot") and len(texts) > 1:
        yield key.place, texts
        return

    if key.place == "policy.settings":
        for text in texts:
            yield read_entry(*split_pair(name_flag(key), text, "target=0.4"))
        return

    seen: set[str] = set()
    for text in texts:
        entry = read_flag(key, text)
        place, _ = entry
        if place in seen:
            raise core.ParameterError(
                f"{name_flag(key)} must have each entry once, {place} was given twice"
            )
        seen.add(place)
        yield entry


def read_flag(key: Key, text: str) -> Entry:
    """Return the entry of one text of a flag: a bound, a pair, or a value."""
    if key.name == "constraints":
        measure, bound = read_bound(text)
        return f"{key.place}.{measure}", bound

    if key.kinds == (dict,):
        example = EXAMPLES.get(key.name, "target=0.1:1")
        name, value = split_pair(name_flag(key), text, example)
        return read_entry(f"{key.place}.{name}", value)

    return read_entry(key.place, text)


def read_entry(name: str, text: str) -> Entry:
    """Return the place and the value of an entry ``NAME=TEXT`` of a flag.

    A name ``TABLE.KEY`` is a key of that table, where there is such a table; any other name is that
    of a parameter of the policy, also one with a dot, as ``BTCUSDT.target``.
    """
    table, _, key = name.partition(".")
    if key and table in RULE_TABLES:
        return f"run.{table}_settings.{key}", parse_typed(text)
    if key and table in MODELS:
        return name, parse_typed(text)
    if key and table == ACCOUNTS:
        return read_account_entry(key, text)
    if not key:
        return f"policy.settings.{name}", text
    if table not in TABLES:
        refuse_misspelled_table(table, key)
        return f"policy.settings.{name}", text

    first, dot, _ = key.partition(".")
    known = read_keys(table).get(first)
    if known is not None:
        return name, read_known_entry(known, text, is_inside=bool(dot))
    if table in ("policy", "overlay"):
        return f"{table}.settings.{key}", text
    return name, text


def refuse_misspelled_table(table: str, key: str) -> None:
    """Raise ParameterError if a name is nearly that of a table that has the key.

    Parameters of policies have points too, as ``levels.0``; they are no keys of a table.
    """
    place = f"{table}.{key}"
    for known in difflib.get_close_matches(table, [*TABLES, *MODELS], n=1):
        if key in read_keys(known):
            raise core.ParameterError(
                f"--set needs a parameter of the policy or a key of a table, got {place!r} "
                f"(did you mean '{known}.{key}'?)"
            )


def read_known_entry(key: Key, text: str, *, is_inside: bool) -> Any:
    """Return the value of a key, or of an entry inside the table that a key is."""
    if not is_inside:
        return read_text(key, text)
    if key.name in RAW:
        return text
    return parse_typed(text)


def read_account_entry(key: str, text: str) -> Entry:
    """Return the entry of one of several accounts, ``NAME.TABLE.KEY``."""
    account, _, place = key.partition(".")
    if not place:
        return f"{ACCOUNTS}.{account}.", text
    own_name, value = read_entry(place, text)
    return f"{ACCOUNTS}.{account}.{own_name}", value


def read_text(key: Key, text: str) -> Any:
    """Return the value of a key that a text of the command line is."""
    if key.name == "objective":
        return read_objective(text)
    if key.place == "judge.require":
        return text.split(",")  # its words are few, and the rule of the sentence checks them
    if key.kinds == (list,):
        return read_list(text, name=key.place)

    if "=" in text and dict in key.kinds:
        entries = {}
        for pair in text.split(","):
            name, number = split_pair(key.place, pair, "BTCUSDT=30000")
            entries[name] = parse_typed(number)
        return entries

    # A text stays one, unless the key may be a number; "none" is a word of its own then.
    is_text = str in key.kinds
    if is_text and not {int, float} & {*key.kinds}:
        return text
    value = parse_typed(text)
    if value is None and is_text:
        return text
    return value
