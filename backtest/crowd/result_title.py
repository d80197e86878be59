"""The title and the note of a saved result of this wing, for lists and pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backtest.base.json_values import from_plain
from backtest.base.number_text import format_percent


def describe_crowd_result(manifest: Mapping[str, Any]) -> tuple[str, str]:
    """Return a title and a one-line outcome of a result about crowds, from its manifest."""
    outcome = from_plain(manifest["outcome"])
    kind = manifest["kind"]
    if kind == "cascade":
        n = manifest["crowd"].get("accounts", 0)
        title = (
            f"Cascade of {n:,} accounts after {format_percent(outcome['shock'], is_signed=True)}"
        )
        return title, f"{outcome['multiplier']:.2f} times the shock"
    if kind == "simulation":
        agents = manifest["agents"]
        return f"Market of {agents['name']}", f"{manifest['steps']:,} steps"
    shares = len(manifest["arguments"]["shares"])
    return f"{manifest['policy']['name']} in a crowd", f"{shares} shares"
