"""Names that are imported at their first use."""

from __future__ import annotations

import functools
import importlib.metadata
import pkgutil
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas
    import pyarrow
    import scipy
    from pyarrow import parquet
    from typing_extensions import TypeIs


class LateModule(ModuleType):
    """A module of another package that is imported when one of its names is first read."""

    def __getattr__(self, name: str) -> Any:
        found = pkgutil.resolve_name(f"{self.__name__}.{name}")
        self.__dict__[name] = found
        return found


arch, filelock, rich = map(LateModule, ("arch", "filelock", "rich"))
if TYPE_CHECKING:
    pd = pandas
    pa = pyarrow
    pq = parquet
    sp = scipy
else:  # a run without tables and files needs none of them
    pd, pa, pq, sp = map(LateModule, ("pandas", "pyarrow", "pyarrow.parquet", "scipy"))


def is_series(value: object) -> TypeIs[pd.Series[Any]]:
    return "pandas" in sys.modules and isinstance(value, pd.Series)


def is_column(value: object) -> TypeIs[pd.Series[Any] | pd.Index[Any]]:
    return "pandas" in sys.modules and isinstance(value, pd.Series | pd.Index)


def is_frame(value: object) -> TypeIs[pd.DataFrame]:
    return "pandas" in sys.modules and isinstance(value, pd.DataFrame)


def find_lazily(module: str, places: Mapping[str, str]) -> Callable[[str], object]:
    """Return the ``__getattr__`` of a module whose names are imported at their first use.

    ``places`` has the names by the module of the package that defines them.
    """
    defined = {
        name: f"backtest.{place}" for place, names in places.items() for name in names.split()
    }

    def find(name: str) -> object:
        if name not in defined:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        if defined[name] == module:
            value: object = importlib.import_module(f"{module}.{name}")
        else:
            value = getattr(importlib.import_module(defined[name]), name)
        vars(sys.modules[module])[name] = value
        return value

    return find


class Carried:
    """Base of what runs again: copies and pickles without its cached properties.

    They hold caches, locks and compiled code, and are made again when they are asked for.
    """

    def __getstate__(self) -> dict[str, Any]:
        kinds = type(self)
        return {
            name: value
            for name, value in vars(self).items()
            if not isinstance(getattr(kinds, name, None), functools.cached_property)
        }
