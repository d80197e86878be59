"""The keys and types of an experiment file; what they mean is checked by what is built of them."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from backtest.base.errors import ParameterError, did_you_mean

Time = dt.datetime | dt.date | str


class Table(BaseModel):
    """A table of known keys, each of its own type: nothing is guessed or converted."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Data(Table):
    """Which data, and which part of them."""

    path: str | list[str] = "sample"
    instrument: str | None = None
    interval: str | None = None
    funding_interval: str | None = None
    timezone: str | None = None
    mark_gaps: Literal["last"] | None = None
    funding_gaps: Literal["zero"] | None = None
    sessions: bool = False
    start: Time | None = Field(None, alias="from")
    end: Time | None = Field(None, alias="to")
    resample: str | None = None


class PolicyTable(Table):
    """A built-in policy or a file's, and its parameters."""

    name: str
    settings: dict[str, float | str | bool] = {}


class Run(Table):
    """How the run is done."""

    signal: float | str | None = None
    sampling: str = "1d"
    calendar: str = "365"
    compile: bool = True
    start: Time | None = None
    end: Time | None = None


class SweepTable(Table):
    """Which sets a sweep runs, and how it ranks them."""

    values: dict[str, Any] = {}
    draws: int | None = None
    space: dict[str, Any] = {}
    method: Literal["sobol", "lhs", "uniform"] = "sobol"
    seed: int = 0
    metrics: Literal["all", "core"] = "all"
    full: bool = False
    objective: str | dict[str, float] = "sharpe"
    constraints: dict[str, str] = {}


class TuneTable(Table):
    """What a search looks for, and where."""

    objective: str | dict[str, float] | list[str | dict[str, float]] = "sharpe"
    constraints: dict[str, str] = {}
    trials: int | None = None
    seconds: float | None = None
    sampler: str = "auto"
    space: dict[str, Any] = {}
    fix: dict[str, Any] = {}
    robust: bool = True
    holdout: str | float = "25%"
    seed: int = 0


class CompareTable(Table):
    """Which policies are put side by side, and how their differences are tested."""

    policies: dict[str, PolicyTable] = {}
    baseline: str | None = None
    equal_risk: bool = False
    confidence: float = 0.95
    draws: int = 1_999
    seed: int = 0


class VenueTable(BaseModel):
    """A preset, and what is laid over it: the venue checks its own keys."""

    model_config = ConfigDict(extra="allow", strict=True)

    preset: str | None = None


class ExperimentFile(Table):
    """The file: every table may be left out. Venue and account check their own keys."""

    data: Data | None = None
    policy: PolicyTable | None = None
    venue: VenueTable | None = None
    account: dict[str, Any] = {}
    run: Run | None = None
    sweep: SweepTable | None = None
    tune: TuneTable | None = None
    compare: CompareTable | None = None


TABLES: Mapping[str, type[Table]] = {
    "data": Data,
    "policy": PolicyTable,
    "run": Run,
    "sweep": SweepTable,
    "tune": TuneTable,
    "compare": CompareTable,
}


def check_tables(raw: dict[str, Any], file: Path) -> dict[str, dict[str, Any]]:
    """Return the tables as they were written, once their keys and types are right.

    Raises
    ------
    ParameterError
        Listing every key that is unknown, missing or of the wrong type.
    """
    check_values(raw, file)
    try:
        ExperimentFile.model_validate(raw)
    except ValidationError as error:
        problems, cures = zip(*explain(error), strict=True)
        raise ParameterError(
            "\n".join(dict.fromkeys(problems)),
            where=str(file),
            cure="; ".join(dict.fromkeys(cures)),
        ) from error
    return raw


def check_values(raw: Mapping[str, Any], file: Path) -> None:
    """Refuse values that TOML should not hold: NUL in a text, whole numbers of more than 64 bits.

    Raises
    ------
    ParameterError
        Naming the first.
    """
    for key, value in walk(raw):
        is_huge = type(value) is int and not -(2**63) <= value < 2**63
        if is_huge or (isinstance(value, str) and "\0" in value):
            rule = "a whole number must fit into 64 bits" if is_huge else "a text must hold no NUL"
            shown = f"one of {value.bit_length():,} bits" if is_huge else f"{value!r:.60}"
            raise ParameterError(
                f"{rule}, was {shown}", where=f"{file}, {key!r:.60}", cure="correct it"
            )


def walk(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every key and value of tables and lists, with the key that each stands under."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield str(name), str(name)
            yield from walk(each, str(name))
    elif isinstance(value, list):
        for each in value:
            yield from walk(each, key)
    else:
        yield key, value


def explain(error: ValidationError) -> Iterator[tuple[str, str]]:
    """Yield the problem and the cure of each defect, one per key."""
    seen = set()
    for each in error.errors(include_url=False):
        place = find_place(tuple(map(str, each["loc"])))
        if place not in seen:
            seen.add(place)
            yield explain_one(place, each["type"], each["msg"], each["input"])


def find_place(keys: tuple[str, ...]) -> tuple[str, ...]:
    """Return the table and the key that a defect lies in; a table of tables has tables of its own.

    Examples
    --------
    >>> find_place(("compare", "policies", "calm", "name"))
    ('compare.policies.calm', 'name')
    """
    if keys[:2] == ("compare", "policies") and len(keys) > 2:
        return (".".join(keys[:3]), *keys[3:4])
    return keys[:2]


def explain_one(place: tuple[str, ...], kind: str, message: str, value: object) -> tuple[str, str]:
    """Return the problem and the cure of one defect."""
    table, key = (place[0], place[1]) if len(place) > 1 else ("", place[0])
    known = list_keys(table)
    title = f"[{table}]" if table else "an experiment"
    if kind == "extra_forbidden":
        return f"{title} has no {key!r}{did_you_mean(key, known)}", f"use {', '.join(known)}"
    if kind == "missing":
        return f"{title} must say {key}, was without", f"add {key}"
    rule = message.replace("Input should be", "must be").replace("valid ", "")
    rule = re.sub(r"\ba (?=[aeiou])", "an ", rule)
    name = f"{title} {key}" if table else f"[{key}]"
    return f"{name} {rule}, was {value!r:.60}", f"correct {key}"


def list_keys(table: str) -> list[str]:
    """Return the keys of a table as they are written in a file; the tables for no name."""
    is_policy = table.startswith("compare.policies.")
    fields = (PolicyTable if is_policy else TABLES.get(table, ExperimentFile)).model_fields
    return [field.alias or name for name, field in fields.items()]
