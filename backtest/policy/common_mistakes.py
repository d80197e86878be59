"""Checks for common mistakes in a policy class, and the reasons of numba in plain words."""

from __future__ import annotations

import inspect
import re
from types import FunctionType

from backtest.base import PolicyError

ARGUMENTS = {
    "venue_leverage": ("self", "bar", "account"),
    "option_orders": ("self", "bar", "account", "chain"),
}


def check_class(cls: type) -> None:
    if isinstance(vars(cls).get("__init__"), FunctionType):
        raise PolicyError(
            f"a policy must not define __init__, {cls.__name__} does; its parameters are fields of "
            "the class: window: Annotated[int, bt.Range(1, 1000, 'bars')] = 24"
        )
    for name, known in ARGUMENTS.items():
        rule = vars(cls).get(name)
        if rule is None:
            continue
        given = tuple(inspect.signature(rule).parameters) if isinstance(rule, FunctionType) else ()
        if len(given) != len(known):
            found = f"({', '.join(given)})" if given else repr(rule)
            raise PolicyError(
                f"{cls.__name__}.{name} must be a plain method that takes ({', '.join(known)}), "
                f"got {found}"
            )


# --------------------------------------------------------------------------- messages of numba

FUNCTION = re.compile(r"Function\(<(?:built-in )?(?:function|method) ([\w.]+)[^>]*>\)")
PATTERNS = (
    (r"Unknown attribute '(\w+)' of type Bar\(", "bar has no {0!r}"),
    (r"Unknown attribute '(\w+)' of type AccountView\(", "account has no {0!r}"),
    (
        r"Unknown attribute '(\w+)' of type Params\(",
        "self.{0} is no declared parameter: write {0}: Annotated[float, bt.Range(low, high)] = ...",
    ),
    (r"Unknown attribute '(\w+)' of type Module\(<module '([\w.]+)'", "{1}.{0} is not supported"),
    (r"Untyped global name '(\w+)'", "{0} is not supported"),
    (
        r"Cannot unify (\S+) and (\S+) for '([\w]+)",
        "{2} is sometimes {0}, sometimes {1}: give it one type",
    ),
    (r"(?:Use of unsupported opcode|opcode) \(?(\w+)\)?", "{0} is not supported"),
    (r"The use of (a?\s?\w+) is not supported", "{0} is not supported"),
)


def explain_numba(line: str) -> str:
    for pattern, words in PATTERNS:
        found = re.search(pattern, line)
        if found:
            return words.format(*found.groups())
    function = FUNCTION.search(line)
    if function:
        return f"{function[1]} is not supported with these arguments"
    return re.sub(r"<[^>]*>", "", line).strip(" :")
