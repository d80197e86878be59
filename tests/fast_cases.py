"""Long lists of cases, of which the fast tests take some and the slow tests all."""

from collections.abc import Iterable
from typing import Any

import pytest


def every_nth(cases: Iterable[Any], n: int) -> list[Any]:
    """Return the cases of a parametrized test, all but the first of each ``n`` marked slow.

    A case of several arguments is a plain tuple.
    """
    return [
        pytest.param(*(case if type(case) is tuple else (case,)), marks=pytest.mark.slow)
        if place % n
        else case
        for place, case in enumerate(cases)
    ]


def first_only(cases: Iterable[Any]) -> list[Any]:
    """Return the cases of a parametrized test, all but the first marked slow."""
    listed = list(cases)
    return every_nth(listed, len(listed))
