"""Ruin: when an account is ruined, and how it is closed. See docs/accounting.md, section 5."""

from __future__ import annotations

from typing import Any

NOTHING_LEFT = 1e-9
"""Equity up to this share of the capital paid in counts as nothing."""

CAUTION = 4e-12
"""Share of the capital paid in that :func:`find_line` adds as a margin for rounding."""


def find_line(ruin_at: Any, reserve: Any, paid_in: Any) -> Any:
    least, line = NOTHING_LEFT * paid_in, ruin_at * paid_in - reserve
    return least * (line <= least) + line * (line > least) + CAUTION * paid_in


def pay_in(paid_in: float, wealth: float, moved: float) -> float:
    if moved >= 0.0:
        return paid_in + moved
    left = wealth + moved
    return paid_in * (left / wealth) if left > 0.0 else 0.0
