"""Every key of an experiment file, from the declarations that check it."""

from __future__ import annotations

from docs.ext.markdown import write_table


def list_pages() -> dict[str, str]:
    """Return the tables of the page of experiments."""
    from backtest.cli.experiment_keys import TABLES

    return {"parts/keys": "\n".join(map(write_keys, TABLES))}


def write_keys(table: str) -> str:
    """Return the section of one table of the file."""
    from backtest.cli.experiment import describe_keys

    rows = [[f"`{name}`", kind, text] for name, kind, text in describe_keys(table)]
    return f"### `[{table}]`\n\n" + write_table(["key", "default or type", "meaning"], rows)
