"""How functions are compiled, declared on the functions: marks that plain Python ignores.

:mod:`backtest._compile` reads them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

_F = TypeVar("_F", bound=Callable[..., Any])


def mark_with(name: str, value: object = True) -> Callable[[_F], _F]:
    def mark(function: _F) -> _F:
        vars(function)[name] = value
        return function

    return mark


inlined = mark_with("is_inlined")
"""Mark a small rule that is inlined into all compiled code that calls it."""
cold = mark_with("is_cold")
"""Mark a rule of one position that is called, not inlined, since few bars need it."""
kernel = mark_with("is_kernel")
"""Mark a function of arrays that is compiled at its first call, as an object of its own."""


def of_options(*, returns: Any) -> Callable[[_F], _F]:
    """Mark a rule of options: what compiled code of accounts without options has in its place.

    Such code gets the constant ``returns``, and nothing else of options is compiled for it.
    """
    return mark_with("without_options", returns)
