"""Readers of flags: lists with commas, values by name, basis points."""

from __future__ import annotations

from collections.abc import Iterator

from backtest.cli.experiment_draft import GivenFlag
from backtest.cli.typed_values import parse_typed, split_pair, warn_of_fraction

BPS = 1e-4


def read_list(flag: str, text: str) -> Iterator[GivenFlag]:
    table, name = {
        "--factors": ("sensitivity", "factors"),
        "--horizons": ("risk", "horizons"), "--scenario": ("stress", "scenarios"),
    }[flag]  # fmt: skip
    yield GivenFlag(flag, table, name, [each.strip() for each in text.split(",")])


def read_numbers(flag: str, text: str) -> Iterator[GivenFlag]:
    yield GivenFlag(flag, "capacity", "capitals", [parse_typed(each) for each in text.split(",")])


def read_values(flag: str, given: str | list[str]) -> Iterator[GivenFlag]:
    name = {"--due-funding": "funding"}.get(flag, flag.strip("-"))
    text = given if isinstance(given, str) else ",".join(given)
    if "=" not in text:
        yield GivenFlag(flag, "decide", name, parse_typed(text))
        return
    for each in text.split(","):
        entry, value = split_pair(flag, each, "BTCUSDT=30000")
        yield GivenFlag(flag, "decide", f"{name}.{entry}", parse_typed(value))


def read_bps(flag: str, bps: float) -> Iterator[GivenFlag]:
    """Yield the cost that a flag in basis points sets, as a fraction."""
    warn_of_fraction(flag, bps)
    field = {"--taker-bps": "fees.taker", "--slippage-bps": "slippage.rate"}[flag]
    yield GivenFlag(flag, "venue", field, bps * BPS)


def read_drift(flag: str, text: str) -> Iterator[GivenFlag]:
    yield GivenFlag(flag, "paths", "drift", parse_typed(text))


def read_distance(flag: str, text: str) -> Iterator[GivenFlag]:
    yield GivenFlag(flag, "account", flag.strip("-").replace("-", "_"), parse_typed(text))
