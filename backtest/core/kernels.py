"""How functions are compiled, declared on the functions: marks that plain Python ignores.

:mod:`backtest._compile` reads them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

_F = TypeVar("_F", bound=Callable[..., Any])


def inlined(function: _F) -> _F:
    """Mark a small rule that is inlined into all compiled code that calls it."""
    vars(function)["is_inlined"] = True
    return function


def cold(function: _F) -> _F:
    """Mark a rule of one position that is called, not inlined, since few bars need it."""
    vars(function)["is_cold"] = True
    return function


def of_options(*, returns: Any) -> Callable[[_F], _F]:
    """Mark a rule of options: what compiled code of accounts without options has in its place.

    Such code gets the constant ``returns``, and nothing else of options is compiled for it.
    """

    def mark(function: _F) -> _F:
        vars(function)["without_options"] = returns
        return function

    return mark


def kernel(function: _F) -> _F:
    """Mark a function of arrays that is compiled at its first call, as an object of its own."""
    vars(function)["is_kernel"] = True
    return function
