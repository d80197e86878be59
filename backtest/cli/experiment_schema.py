"""The schema of an experiment: its tables and keys, their types, and the flags that set them.

Files are checked against these declarations, and the commands take their flags from them. The
account and the venue declare and check their own fields.
"""

from __future__ import annotations

import datetime as dt
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from backtest.account import Account
from backtest.account.by_instrument import ByInstrument
from backtest.account.leverage_limits import LimitDeclaration
from backtest.account.multiple import StopDistance
from backtest.base.bounded_reads import read_small
from backtest.base.errors import ParameterError, did_you_mean
from backtest.base.ranges import Choice
from backtest.cli.draft import GivenFlag, Tables
from backtest.cli.flags import (
    ACCOUNT,
    COMPARISON,
    DATA,
    FOLDS,
    POLICY,
    RANKING,
    RUN,
    SEARCH,
    SETS,
    VENUE,
)
from backtest.cli.typed_values import parse_typed, read_constraints, read_objective, split_pair
from backtest.cli.unit_hints import warn_of_fraction

Time = dt.datetime | dt.date | str
Objective = str | dict[str, float]
BPS = 1e-4
SEVERAL = ("path", "instrument")
"""The keys whose flags may be repeated, once for each of several markets."""
KIND_TEXTS = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
    dt.date: "a time",
}


class Key(NamedTuple):
    """One key of a table: the type of its value, and the flag that sets it, if any.

    ``kind`` is a type, a union of types, or a Choice. ``read`` replaces :func:`read_flag`, which
    turns the value of the flag into entries.
    """

    table: str
    name: str
    kind: Any
    flag: str = ""
    panel: str = ""
    text: str = ""
    read: Callable[[str, Any], Iterator[GivenFlag]] | None = None

    @property
    def parameter(self) -> str:
        """The flag as the name of a Python argument; it cannot be a keyword."""
        return self.flag.strip("-").replace("-", "_") + "_"

    @property
    def flag_kind(self) -> Any:
        """The type of the flag for Typer."""
        if self.kind in (bool, int, float):
            return bool if self.kind is bool else self.kind | None
        takes_several = get_origin(self.kind) is dict or self.name in ("objective", *SEVERAL)
        return list[str] | None if takes_several else str | None

    def list_entries(self, value: Any) -> Iterator[GivenFlag]:
        """Yield the entries that the flag sets; none if it was not given."""
        if value is None or value is False:
            return
        yield from read_flag(self, value) if self.read is None else self.read(self.flag, value)


def read_flag(key: Key, value: Any) -> Iterator[GivenFlag]:
    """Yield the entries that the value of a flag sets."""
    flag, table, name = key.flag, key.table, key.name
    if name in SEVERAL:
        yield GivenFlag(flag, table, name, value[0] if len(value) == 1 else list(value))
    elif name == "objective":
        wanted = [read_objective(text, where=f"{flag} {text}") for text in value]
        yield GivenFlag(flag, table, name, wanted)
    elif name == "constraints":
        for measure, bound in read_constraints(value):
            yield GivenFlag(flag, table, f"{name}.{measure}", bound)
    elif get_origin(key.kind) is dict:
        for text in value:
            entry, typed = split_pair(flag, text, "target=0.4")
            yield GivenFlag(flag, table, f"{name}.{entry}", typed)
    else:
        yield GivenFlag(flag, table, name, not flag.startswith("--no-") if value is True else value)


def read_settings(flag: str, texts: Sequence[str]) -> Iterator[GivenFlag]:
    """Yield the entries that ``NAME=VALUE`` texts set in the policy, the account or the venue."""
    for text in texts:
        key, value = split_pair(flag, text, "target=0.4")
        table, dot, field = key.partition(".")
        if dot and table in OPEN_TABLES:
            yield GivenFlag(flag, table, field, parse_typed(value))
        else:
            yield GivenFlag(flag, "policy", f"settings.{key}", value)


def read_bps(flag: str, bps: float) -> Iterator[GivenFlag]:
    """Yield the cost that a flag in basis points sets, as a fraction."""
    warn_of_fraction(flag, bps)
    field = {"--taker-bps": "fees.taker", "--slippage-bps": "slippage.rate"}[flag]
    yield GivenFlag(flag, "venue", field, bps * BPS)


def read_number_or_name(flag: str, text: str) -> Iterator[GivenFlag]:
    """Yield the field of the account that a flag sets: a number, or the name of a preset."""
    yield GivenFlag(flag, "account", flag.strip("-").replace("-", "_"), parse_typed(text))


def list_account_keys() -> Iterator[Key]:
    """Yield a key for each field of the account that has a flag of its own."""
    for field, text in ACCOUNT_FLAGS.items():
        declared = get_type_hints(Account, include_extras=True)[field].__metadata__[0]
        declared = declared.each if isinstance(declared, ByInstrument) else declared
        readers = {LimitDeclaration: read_number_or_name, StopDistance: read_distance}
        read = readers.get(type(declared))
        kind = str if read else declared.kind
        yield Key("account", field, kind, f"--{field.replace('_', '-')}", ACCOUNT, text, read)


def read_distance(flag: str, text: str) -> Iterator[GivenFlag]:
    """Yield the distance of a stop: a number, or a multiple of a column (``2*atr``)."""
    yield GivenFlag(flag, "account", flag.strip("-").replace("-", "_"), parse_typed(text))


OPEN_TABLES = ("venue", "account")
"""Tables whose keys are checked elsewhere."""
ACCOUNT_FLAGS = {
    "capital": "Money at the start (10000).",
    "margin": "'cross' (default) or 'isolated'.",
    "venue_leverage": "The leverage set at the venue; cross: as needed.",
    "min_leverage": "Least leverage that the policy may ask for.",
    "max_leverage": "Most leverage that the policy may ask for, or a preset by date: esma-crypto.",
    "band": "No trade within this many turns of the target.",
    "stop_loss": "Close this fraction of the entry price against it, or 2*atr of a column.",
    "margin_call": "Margin ratio of a margin call.",
    "reserve": "Money outside the account, for top-ups.",
    "top_up_to": "Margin ratio after a top-up.",
    "after_liquidation": "'continue' (default) or 'halt'.",
    "ruin_at": "Ruined at or under this share of the capital paid in.",
    "auto_margin": "The wallet adds margin before a liquidation (isolated).",
    "fill": "When decisions fill: 'next_open' (default), 'next_close' or 'same_close'.",
    "take_profit": "Close this fraction of the entry price in favor, or 2*atr of a column.",
    "trailing_stop": "Close this fraction under the best price, or 2*atr of a column.",
    "equity_stop": "Close at this fraction under the highest equity.",
    "intrabar": "Prices inside a bar, of several positions: 'path' (default) or 'worst'.",
    "max_gross_leverage": "Most gross leverage of several positions together.",
    "max_overlay": "Most leverage that an overlay may give.",
    "negative_limit": "Balance under 0 at which collateral is sold.",
}

KEYS = (
    Key("data", "path", str | list[str], "--data", DATA,
        "A folder, a file, or 'sample' (default): a synthetic year; repeat for several markets."),
    Key("data", "from", Time, "--from", DATA, "First bar to read, UTC."),
    Key("data", "to", Time, "--to", DATA, "End of the last bar, UTC."),
    Key("run", "start", Time, "--start", DATA,
        "When the account begins, UTC: the bars before it warm the policy's columns."),
    Key("run", "end", Time, "--end", DATA, "When the account ends, UTC, exclusive."),
    Key("data", "resample", str, "--resample", DATA, "Combine bars into longer ones, e.g. 1d."),
    Key("data", "instrument", str | list[str], "--instrument", DATA,
        "Name of the instrument; chooses one in a folder of several; repeat for several markets."),
    Key("data", "currency", str, "--currency", DATA,
        "Settlement currency of several markets, if their names say different ones."),
    Key("data", "interval", str, "--interval", DATA, "Chooses the bars in a folder of several."),
    Key("data", "funding_interval", str, "--funding-interval", DATA,
        "Chooses the funding file in a folder of several."),
    Key("data", "timezone", str, "--timezone", DATA, "Time zone of stamps that carry none."),
    Key("data", "sessions", bool, "--sessions", DATA, "The market closes: bars may be missing."),
    Key("data", "mark_gaps", Choice("last"), "--mark-gaps", DATA,
        "'last': fill missing mark prices with last prices."),
    Key("data", "funding_gaps", Choice("zero"), "--funding-gaps", DATA,
        "'zero': treat missing funding as none."),
    Key("policy", "name", str, "--policy", POLICY,
        "Its name (default vol-target), or FILE.py:ClassName."),
    Key("policy", "settings", dict[str, float | str | bool], "--set", POLICY,
        "A parameter, NAME=VALUE, or a field, account.NAME=VALUE; repeat for more.", read_settings),
    Key("run", "signal", float | str, "--signal", POLICY,
        "Direction from -1 to 1 (default 1), or a column of the bars."),
    Key("overlay", "name", str, "--overlay", POLICY,
        "The policy of the whole of several markets, which scales all positions."),
    Key("overlay", "settings", dict[str, float | str | bool]),
    Key("run", "weights", str, "--weights", POLICY,
        "A file of weights by time and instrument, for several markets (1/n)."),
    Key("run", "carry_weights", bool, "--carry-weights", POLICY,
        "Each row holds from its time until the next."),
    Key("venue", "preset", str, "--venue", VENUE,
        "NAME:SYMBOL, FILE.toml:SYMBOL (binance-usdm:BTCUSDT); @DATE, @latest for one table; of "
        "several markets also NAME, with the symbol of each."),
    Key("venue", "fees.taker", float, "--taker-bps", VENUE, "Taker fee in basis points.", read_bps),
    Key("venue", "slippage.rate", float, "--slippage-bps", VENUE,
        "Worsening of every fill in basis points.", read_bps),
    *list_account_keys(),
    Key("run", "sampling", str, "--sampling", RUN, "Period of returns (1d)."),
    Key("run", "calendar", str, "--calendar", RUN, "Days a year: 365 (default) or 252."),
    Key("run", "compile", bool, "--no-compile", RUN,
        "Plain Python, for a debugger: the same numbers."),

    Key("sweep", "values", dict[str, Any], "--vary", SETS,
        "NAME=24,72 or NAME=0.1:1:64 or NAME=log:10:500:16; repeat for more names."),
    Key("sweep", "draws", int, "--draws", SETS,
        "Draw this many sets instead (1024, if nothing varies)."),
    Key("sweep", "space", dict[str, Any], "--space", SETS,
        "Draw from here: NAME=0.1:1 or NAME=log:10:500 or NAME=a,b; repeat for more."),
    Key("sweep", "method", Choice("sobol", "lhs", "uniform"), "--method", SETS,
        "How to draw: 'sobol' (default), 'lhs' or 'uniform'."),
    Key("sweep", "seed", int, "--seed", SETS, "Seed of the draws (0)."),
    Key("sweep", "objective", Objective, "--objective", RANKING,
        "What to maximize: a measure (sharpe), or weights: sharpe=1,turnover=-0.01."),
    Key("sweep", "constraints", dict[str, str], "--constraint", RANKING,
        "A bound on a measure: 'max_drawdown<=0.4'; repeat for more."),
    Key("sweep", "metrics", Choice("all", "core"), "--metrics", RANKING,
        "'all' (default) or 'core', which is faster."),
    Key("sweep", "full", bool, "--full", RANKING,
        "Also the measures that need the path: every set runs once more."),

    Key("tune", "objective", Objective | list[Objective], "--objective", RANKING,
        "What to maximize: a measure (sharpe), or weights: sharpe=1,turnover=-0.01."),
    Key("tune", "constraints", dict[str, str], "--constraint", RANKING,
        "A bound on a measure: 'max_drawdown<=0.4'; repeat for more."),
    Key("tune", "trials", int, "--trials", SEARCH, "Most sets to evaluate (20000)."),
    Key("tune", "seconds", float, "--seconds", SEARCH, "Most time to search."),
    Key("tune", "sampler", str, "--sampler", SEARCH,
        "auto (default), de, cmaes, tpe, gp, forest, sobol, random or grid."),
    Key("tune", "space", dict[str, Any], "--space", SEARCH,
        "Vary this only: NAME=0.1:1 or NAME=log:10:500 or NAME=a,b; repeat for more."),
    Key("tune", "fix", dict[str, Any], "--fix", SEARCH, "Keep this: NAME=VALUE; repeat for more."),
    Key("tune", "robust", bool, "--no-robust", SEARCH,
        "Take the highest objective, even if its neighbors are poor."),
    Key("tune", "holdout", str | float, "--holdout", SEARCH,
        "The last part, which the search never sees: 25% (default), 90d or none."),
    Key("tune", "seed", int, "--seed", SEARCH, "Seed of all random numbers (0)."),
    Key("tune", "validate", str, "--validate", SEARCH,
        "Judge the search at its end: walk-forward or cross-validate."),

    Key("validate", "train", str | list[str], "--train", FOLDS,
        "Train spans (365d); schedules: several, 90d,365d,all."),
    Key("validate", "test", str | list[str], "--test", FOLDS,
        "Test spans (30d); schedules: several, 7d,30d,90d."),
    Key("validate", "anchored", bool, "--anchored", FOLDS,
        "Every train span begins with the data."),
    Key("validate", "gap", str, "--gap", FOLDS, "Time between a train span and its test (0d)."),
    Key("validate", "groups", int, "--groups", FOLDS, "Groups of time (10)."),
    Key("validate", "test_groups", int, "--test-groups", FOLDS, "Groups in each test (2)."),
    Key("validate", "embargo", str | int, "--embargo", FOLDS,
        "Bars or a duration after a test group that do not count: auto (default), 24, 5d."),
    Key("validate", "baseline", str, "--baseline", FOLDS,
        "The schedule that others are compared with: never (default), '30d on 365d'."),
    Key("validate", "carry", bool, "--no-carry", FOLDS,
        "A fresh account in every fold, for comparison only."),
    Key("validate", "objective", Objective | list[Objective], "--objective", RANKING,
        "What to maximize: a measure (sharpe), or weights: sharpe=1,turnover=-0.01."),
    Key("validate", "constraints", dict[str, str], "--constraint", RANKING,
        "A bound on a measure: 'max_drawdown<=0.4'; repeat for more."),
    Key("validate", "trials", int, "--trials", SEARCH, "Most sets to evaluate in a fold (2000)."),
    Key("validate", "sampler", str, "--sampler", SEARCH, "As in backtest tune (auto)."),
    Key("validate", "space", dict[str, Any], "--space", SEARCH,
        "Vary this only: NAME=0.1:1 or NAME=log:10:500 or NAME=a,b; repeat for more."),
    Key("validate", "fix", dict[str, Any], "--fix", SEARCH,
        "Keep this: NAME=VALUE; repeat for more."),
    Key("validate", "robust", bool, "--no-robust", SEARCH,
        "Take the highest objective, even if its neighbors are poor."),
    Key("validate", "seed", int, "--seed", SEARCH, "Seed of all random numbers (0)."),

    Key("compare", "policies", dict[str, Any]),
    Key("compare", "baseline", str, "--baseline", COMPARISON,
        "The policy that the others are compared with (the first)."),
    Key("compare", "equal_risk", bool, "--equal-risk", COMPARISON,
        "Scale all down to the volatility of the calmest, and run again."),
    Key("compare", "confidence", float, "--confidence", COMPARISON,
        "Of intervals and decisions (0.95)."),
    Key("compare", "draws", int, "--draws", COMPARISON, "Number of resampled histories (1999)."),
    Key("compare", "seed", int, "--seed", COMPARISON, "Seed of the histories (0)."),
)  # fmt: skip

EXPERIMENT_KEYS = [
    key
    for key in KEYS
    if key.flag and key.table in ("data", "policy", "overlay", "venue", "account", "run")
]
"""The keys whose flags every experiment takes."""
TABLES = {
    table: {key.name: key for key in KEYS if key.table == table}
    for table in ("data", "policy", "overlay", "run", "sweep", "tune", "validate", "compare")
}
"""The tables whose keys are declared here."""


def list_keys(table: str) -> list[str]:
    """Return the keys of a table, or the names of all tables if ``table`` is empty."""
    return list(TABLES[table]) if table else [*TABLES, *OPEN_TABLES]


def list_flags(table: str) -> list[Key]:
    """Return the keys of a table that have a flag."""
    return [key for key in KEYS if key.table == table and key.flag]


def read_experiment(file: Path) -> Tables:
    """Read the tables of a TOML file, and check their keys and types."""
    cure = "give an experiment, such as examples/btc-vol-target.toml"
    if not file.is_file():
        near = did_you_mean(file.stem, (each.stem for each in file.parent.glob("*.toml")))
        found = "is a folder" if file.is_dir() else "does not exist"
        hint = "; data are given with --data" if file.is_dir() else near
        raise ParameterError(
            f"an experiment must be a TOML file, {str(file)!r} {found}{hint}",
            where=f"EXPERIMENT, searched from {Path.cwd()}",
            cure=cure,
        )
    try:
        tables = tomllib.loads(read_small(file, cure=cure).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ParameterError(
            f"an experiment must be TOML: {describe_toml(error):.200}",
            where=str(file),
            cure="correct that line",
        ) from error
    check_values(tables, file)
    defects = list(dict.fromkeys(find_defects(tables)))
    if defects:
        problems, cures = zip(*defects, strict=True)
        raise ParameterError(
            "\n".join(problems), where=str(file), cure="; ".join(dict.fromkeys(cures))
        )
    return tables


def describe_toml(error: Exception) -> str:
    """Describe why a text is not TOML."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, tomllib.TOMLDecodeError | UnicodeDecodeError):
        return str(error)
    return "a number has too many digits"


def check_values(raw: Mapping[str, Any], file: Path) -> None:
    """Check that no text holds a NUL character and that whole numbers fit into 64 bits."""
    for key, value in walk_values(raw):
        is_huge = type(value) is int and not -(2**63) <= value < 2**63
        if is_huge or (isinstance(value, str) and "\0" in value):
            rule = "a whole number must fit into 64 bits" if is_huge else "a text must hold no NUL"
            shown = f"one of {value.bit_length():,} bits" if is_huge else f"{value!r:.60}"
            raise ParameterError(
                f"{rule}, was {shown}", where=f"{file}, {key!r:.60}", cure="correct it"
            )


def walk_values(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield all keys and values in nested tables and lists, each with its key."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield str(name), str(name)
            yield from walk_values(each, str(name))
    elif isinstance(value, list):
        for each in value:
            yield from walk_values(each, key)
    else:
        yield key, value


def find_defects(tables: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the problem and the cure of every defect in the tables of a file."""
    known = list_keys("")
    for name, table in tables.items():
        if name not in known:
            near = did_you_mean(name, known)
            yield f"an experiment has no {name!r}{near}", f"use {', '.join(known)}"
        elif not isinstance(table, dict):
            yield f"[{name}] must be a table, was {table!r:.60}", f"correct {name}"
        elif name in TABLES:
            yield from find_table_defects(f"[{name}]", table, TABLES[name])
            if name == "compare":
                yield from find_policy_defects(table.get("policies"))
        elif not isinstance(table.get("preset", ""), str):
            yield f"[{name}] preset must be a text, was {table['preset']!r:.60}", "correct preset"


def find_policy_defects(policies: object) -> Iterator[tuple[str, str]]:
    """Yield the problem and the cure of every defect in the policies of a comparison."""
    for label, policy in policies.items() if isinstance(policies, dict) else ():
        title = f"[compare.policies.{label}]"
        if isinstance(policy, dict):
            yield from find_table_defects(title, policy, TABLES["policy"])
        else:
            yield f"{title} must be a table, was {policy!r:.60}", f"correct {label}"


def find_table_defects(
    title: str, table: Mapping[str, Any], keys: Mapping[str, Key]
) -> Iterator[tuple[str, str]]:
    """Yield the defects of one table: unknown keys, values of a wrong type, no name.

    A policy may hold tables of the policies of single instruments, which have names.
    """
    is_policy = keys in (TABLES["policy"], TABLES["overlay"])
    single = find_single(table) if keys is TABLES["policy"] else {}
    for name, value in table.items():
        if name in single:
            yield from find_table_defects(f"{title[:-1]}.{name}]", value, TABLES["overlay"])
        elif name not in keys:
            yield f"{title} has no {name!r}{did_you_mean(name, keys)}", f"use {', '.join(keys)}"
        elif not has_kind(value, keys[name].kind):
            rule = describe_kind(keys[name].kind)
            yield f"{title} {name} must be {rule}, was {value!r:.60}", f"correct {name}"
    if is_policy and "name" not in table and not single:
        yield f"{title} must have a name, has none", "add name"


def find_single(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tables of single instruments in that of the policy: those with a name."""
    return {
        name: value
        for name, value in table.items()
        if name not in TABLES["policy"] and isinstance(value, dict) and "name" in value
    }


def has_kind(value: object, kind: Any) -> bool:
    """Return whether a value of TOML has a type; nothing is converted.

    Examples
    --------
    >>> has_kind(1, float), has_kind(1.0, int), has_kind([0.5], str | list[float])
    (True, False, True)
    """
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
    """Describe a type for messages.

    Examples
    --------
    >>> describe_kind(str | list[str]), describe_kind(Choice("all", "core"))
    ('a text or a list', "'all' or 'core'")
    """
    if isinstance(kind, Choice):
        return " or ".join(map(repr, kind.options))
    if get_origin(kind) in (UnionType, Union):
        kinds = [each for each in get_args(kind) if each is not dt.datetime]
        return " or ".join(dict.fromkeys(map(describe_kind, kinds)))
    return KIND_TEXTS[get_origin(kind) or kind]
