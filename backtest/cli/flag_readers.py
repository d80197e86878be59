"""Readers of flags: lists with commas, values by name, basis points, rules of weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from backtest.base import ParameterError, did_you_mean
from backtest.cli.experiment_draft import GivenFlag
from backtest.cli.typed_values import parse_typed, split_pair, warn_of_fraction
from backtest.weights import WeightRule
from backtest.weights.weight_rule import BY_COVARIANCE

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


ALLOCATIONS = ("equal", *BY_COVARIANCE)


def read_allocation(name: str, settings: Mapping[str, Any], *, where: str) -> WeightRule:
    given = {"rule": name, **settings}
    if "window" in settings and not {"memory", "half_life"} & {*settings}:
        given["memory"] = "window"
    found = WeightRule.from_settings(given)
    known = [each for each in found.list_used() if each != "rule"]
    for each in settings:
        is_default = getattr(found, each) == found.parameters()[each].default
        if each != "rule" and each not in known and not is_default:
            raise ParameterError(
                f"{found.text()} has no setting {each!r}{did_you_mean(each, known)}",
                where=where,
                cure=f"use {', '.join(known)}" if known else "leave allocate_settings out",
            )
    return found
