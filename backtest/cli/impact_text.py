"""The texts of ``--impact`` and ``--shares`` on the command line."""

from __future__ import annotations

from collections.abc import Callable

from backtest.base import ParameterError
from backtest.crowd import Linear, SquareRoot

LAWS: dict[str, tuple[Callable[..., SquareRoot | Linear], int]] = {
    "sqrt": (SquareRoot, 2),
    "linear": (Linear, 1),
}
"""The laws by name, and the most numbers that each takes."""


def read_impact(text: str) -> SquareRoot | Linear:
    """Return the impact law that a text names.

    Examples
    --------
    >>> read_impact("sqrt:1"), read_impact("sqrt:1:0.03"), read_impact("linear:0.1")
    (SquareRoot(), SquareRoot(volatility=0.03), Linear(coefficient=0.1))
    """
    name, *parts = text.split(":")
    law, most = LAWS.get(name, (None, 0))
    try:
        numbers = [float(each) for each in parts]
    except ValueError:
        numbers = []
    if law is None or not 0 < len(numbers) <= most:
        raise ParameterError(
            f"impact must be sqrt:COEFFICIENT[:VOLATILITY] or linear:COEFFICIENT, got {text!r}",
            where="--impact",
            cure="write --impact sqrt:1, for example",
        )
    return law(*numbers)


def read_shares(text: str) -> tuple[float, ...]:
    """Return the numbers of a list such as ``0,0.01,0.05``."""
    try:
        return tuple(float(each) for each in text.split(","))
    except ValueError as error:
        raise ParameterError(
            f"shares must be numbers with commas between them, got {text!r}",
            where="--shares",
            cure="write --shares 0,0.01,0.05",
        ) from error
