"""Every key of an experiment file, from the declarations that check it."""

from __future__ import annotations

import types
from typing import Any, get_args, get_origin

from docs.ext.markdown import write_table


def list_pages() -> dict[str, str]:
    """Return the tables of the page of experiments."""
    from backtest.cli.experiment_keys import KEYS

    tables = dict.fromkeys(key.table for key in KEYS)
    return {"parts/keys": "\n".join(write_keys(table) for table in tables)}


def write_keys(table: str) -> str:
    """Return the section of one table of the file."""
    from backtest.cli.experiment_keys import KEYS

    rows = [
        [f"`{key.name}`", name_kind(key.kind), f"`{key.flag}`" if key.flag else "", key.text]
        for key in KEYS
        if key.table == table
    ]
    return f"### `[{table}]`\n\n" + write_table(["key", "type", "flag", "meaning"], rows)


def name_kind(kind: Any) -> str:
    """Return the type of a value in the words of TOML."""
    names = {str: "text", float: "number", int: "whole number", bool: "boolean"}
    if isinstance(kind, types.UnionType):
        return " or ".join(map(name_kind, get_args(kind)))
    if get_origin(kind) is dict:
        return "table"
    if get_origin(kind) is list:
        return f"array of {name_kind(get_args(kind)[0])}s"
    if kind in names:
        return names[kind]
    options = getattr(kind, "options", None)
    return ", ".join(f'`"{each}"`' for each in options) if options else "date or time"
