"""The command that runs one set of a sweep or a study again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence

from backtest.cli.typed_values import format_typed


def write_command(words: Sequence[str], values: Mapping[str, object]) -> str:
    """Return the command that runs a set.

    Parameters
    ----------
    words : sequence of str
        The arguments that describe the experiment.
    values : mapping of str to value
        The set.

    Examples
    --------
    >>> write_command(["--to", "2023-02-01"], {"target": 0.5, "account.band": 0.1})
    'backtest run --to 2023-02-01 --set target=0.5 --set account.band=0.1'
    """
    settings = [
        word
        for name, value in values.items()
        for word in ("--set", f"{name}={format_typed(value)}")
    ]
    return shlex.join(["backtest", "run", *leave_out(words, values), *settings])


def leave_out(words: Sequence[str], values: Mapping[str, object]) -> Iterator[str]:
    """Yield the arguments without the settings that a set has values for."""
    rest = iter(words)
    for word in rest:
        if word != "--set":
            yield word
            continue
        setting = next(rest)
        if setting.partition("=")[0].strip() not in values:
            yield from (word, setting)
