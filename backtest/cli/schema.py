"""``backtest schema``: what an experiment may hold, for editors that complete and check it."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

from backtest.cli.command import command
from backtest.cli.experiment import TABLES, read_keys
from backtest.cli.printing import print_json
from backtest.experiments.tables import ACCOUNTS, MODELS, OF_ACCOUNT, Key

DRAFT = "http://json-schema.org/draft-07/schema#"
"""The draft that editors of TOML read."""
KINDS = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    list: "array",
    dict: "object",
    dt.date: "string",
}
"""Types of JSON by those of TOML; a time is text there."""


@command("schema")
def schema() -> None:
    """Print the JSON schema of an experiment's TOML, by which editors complete and check it.

    The first line of an experiment names it: #:schema experiment.schema.json

    backtest schema > experiment.schema.json
    """
    print_json(make_schema())


def make_schema() -> dict[str, Any]:
    """Return the JSON schema of experiment files, from the keys that their reader knows."""
    tables = {name: describe_table(name) for name in sorted({*TABLES, *MODELS})}
    policy = tables["policy"]
    venue = tables["venue"]

    # By instrument, each a whole table: [policy.BTCUSDT], [venue.BTCUSDT]
    one_policy = {**policy, "additionalProperties": False}
    one_venue = {**venue, "additionalProperties": False}
    any_policy = {"$ref": "#/definitions/policy"}
    policy["additionalProperties"] = {"allOf": [any_policy, {"required": ["name"]}]}
    venue["additionalProperties"] = {"$ref": "#/definitions/venue"}
    compared = tables["compare"]["properties"]["policies"]
    compared["additionalProperties"] = any_policy

    tables[ACCOUNTS] = {
        "type": "object",
        "additionalProperties": {
            "type": "object",
            "properties": {name: tables[name] for name in OF_ACCOUNT},
            "additionalProperties": False,
        },
    }
    return {
        "$schema": DRAFT,
        "title": "An experiment of backtest",
        "type": "object",
        "properties": tables,
        "additionalProperties": False,
        "definitions": {"policy": one_policy, "venue": one_venue},
    }


def describe_table(table: str) -> dict[str, Any]:
    """Return the schema of a table; keys of a model with dots are tables in it."""
    whole: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
    for key in read_keys(table).values():
        *outer, name = key.name.split(".")
        holder = whole

        # A table for each name before the last.
        for part_name in outer:
            part = {"properties": {}, "additionalProperties": False}
            holder = holder["properties"].setdefault(part_name, part)
        holder["properties"][name] = describe_key(key)
    return whole


def describe_key(key: Key) -> dict[str, Any]:
    """Return the schema of a key: its text, the types of its value, and its default."""
    described: dict[str, Any] = {}
    if key.text:
        described["description"] = key.text

    names = list(dict.fromkeys(KINDS[kind] for kind in key.kinds))
    if len(names) == 1:
        described["type"] = names[0]
    elif names:
        described["type"] = names
    if isinstance(key.default, str | int) or is_finite(key.default):
        described["default"] = key.default

    # The items of a list are what may also stand alone: one path, or several
    inner = [name for name in names if name != "array"]
    if "array" in names and inner:
        described["items"] = {"type": inner}
    return described


def is_finite(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)  # JSON has no other numbers
