"""Measures that had another name, or meaning, in the version that recorded a baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

RENAMED = {"leverage_decay": "volatility_drag"}
"""Measures whose meaning now has another name, while their own name means something else.

A baseline that lacks the new name was recorded before the change.
"""


def find_present_name(name: str, recorded: Collection[str]) -> str:
    """Return today's name of a measure of a baseline that recorded some measures.

    Examples
    --------
    >>> find_present_name("leverage_decay", ["sharpe", "leverage_decay"])
    'volatility_drag'
    >>> find_present_name("leverage_decay", ["leverage_decay", "volatility_drag"])
    'leverage_decay'
    """
    now = RENAMED.get(name, name)
    return name if now in recorded else now


def describe_renamed(recorded: Collection[str]) -> tuple[str, ...]:
    """Return a sentence for each measure that a baseline recorded in its former meaning.

    Examples
    --------
    >>> describe_renamed(["sharpe", "leverage_decay"])
    ("leverage_decay of this baseline is today's volatility_drag",)
    """
    return tuple(
        f"{name} of this baseline is today's {find_present_name(name, recorded)}"
        for name in RENAMED
        if name in recorded and find_present_name(name, recorded) != name
    )
