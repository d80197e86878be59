"""What the scoring of a block of sets gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from backtest.base import FloatArray, IntArray


class Scored(NamedTuple):
    metrics: dict[str, FloatArray]
    returns: FloatArray


class NotCompiled(Exception):  # noqa: N818 - a reason to sweep in plain Python
    """The policy cannot be compiled."""


class BlockFault(Exception):  # noqa: N818 - a reason to run the sets one by one
    """A lane of a block cannot go on."""


class BlockOutcome(NamedTuple):
    places: IntArray
    found: Scored | BlockFault | None
