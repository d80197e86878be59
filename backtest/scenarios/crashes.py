"""Historical episodes as scenarios, from a dated file."""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path

from backtest.scenarios.scenario import Scenario

FILE = Path(__file__).with_name("crashes.toml")


@functools.cache
def crashes() -> tuple[Scenario, ...]:
    """Return historical crashes of bitcoin and of stocks, with their dates and sources.

    Figures that no source gives are at their defaults: they change nothing.

    Examples
    --------
    >>> [each.name for each in crashes()][2:4]
    ['2020-03-12', '2021-05-19']
    """
    with FILE.open("rb") as file:
        found = tomllib.load(file)["episode"]
    return tuple(Scenario.from_dict(each, where=FILE.name) for each in found)
