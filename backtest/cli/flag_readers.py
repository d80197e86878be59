"""Readers of flags with several values: lists with commas, and values by name."""

from __future__ import annotations

from collections.abc import Iterator

from backtest.cli.draft import GivenFlag
from backtest.cli.typed_values import parse_typed, split_pair


def read_list(flag: str, text: str) -> Iterator[GivenFlag]:
    """Yield the entry of a flag with several values, separated by commas."""
    table, name = {
        "--factors": ("sensitivity", "factors"),
        "--horizons": ("risk", "horizons"), "--scenario": ("stress", "scenarios"),
    }[flag]  # fmt: skip
    yield GivenFlag(flag, table, name, [each.strip() for each in text.split(",")])


def read_numbers(flag: str, text: str) -> Iterator[GivenFlag]:
    """Yield the capitals of a flag, numbers separated by commas."""
    yield GivenFlag(flag, "capacity", "capitals", [parse_typed(each) for each in text.split(",")])


def read_values(flag: str, given: str | list[str]) -> Iterator[GivenFlag]:
    """Yield the entry of a flag of one number, or of several as ``NAME=VALUE`` with commas."""
    name = {"--due-funding": "funding"}.get(flag, flag.strip("-"))
    text = given if isinstance(given, str) else ",".join(given)
    if "=" not in text:
        yield GivenFlag(flag, "decide", name, parse_typed(text))
        return
    for each in text.split(","):
        entry, value = split_pair(flag, each, "BTCUSDT=30000")
        yield GivenFlag(flag, "decide", f"{name}.{entry}", parse_typed(value))
