"""The user's own code on its way to workers that do not have its files.

Modules of the user's travel as source and are imported by the worker under their own names, so that
a policy is there what it is here. What a script or a notebook defines itself has no file that could
be imported; it travels by value.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import linecache
import pickle
import site
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from backtest.policy.combinators import Combinator, combinator_of, rebuild_class

OURS = frozenset({"backtest", "strategies", "__main__", "__mp_main__"})
"""Modules that never travel: every worker has its own, and must have the same version."""


class Source(NamedTuple):
    """One module: the text of its file, where that file was, and whether it is a package."""

    text: str
    path: str
    is_package: bool


Sources = Mapping[str, Source]


# --------------------------------------------------------------------------------------- packing


def collect_sources() -> dict[str, Source]:
    """Return the loaded modules that are neither installed, nor Python's, nor ours."""
    installed = list_installed()
    found = {}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in OURS and is_own(module, installed):
            path = Path(str(module.__file__))
            text = importlib.util.decode_source(path.read_bytes())
            found[name] = Source(text, str(path), hasattr(module, "__path__"))
    return found


def list_installed() -> tuple[Path, ...]:
    """Return the folders that hold what is installed."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = {sysconfig.get_path(name) for name in names}
    folders |= {*site.getsitepackages(), site.getusersitepackages()}
    return tuple(Path(folder).resolve() for folder in folders if folder)


def is_own(module: ModuleType, installed: Sequence[Path]) -> bool:
    """Tell whether a module is a file of the user's."""
    file = getattr(module, "__file__", None)
    if not file or Path(file).suffix != ".py" or not Path(file).is_file():
        return False
    path = Path(file).resolve()
    return not any(path.is_relative_to(folder) for folder in installed)


def pack(value: object) -> bytes:
    """Return an object as bytes; what ``__main__`` defines travels by value."""
    cloudpickle: Any = importlib.import_module("cloudpickle")

    class Packer(cloudpickle.Pickler):  # type: ignore[misc] # known where Dask is
        def reducer_override(self, each: Any) -> Any:
            if each is dataclasses.MISSING:  # told by its identity, which a copy does not have
                return getattr, (dataclasses, "MISSING")
            if isinstance(each, type) and issubclass(each, Combinator) and each.parts:
                policies = tuple(part.policy for part in each.parts)
                return rebuild_class, (combinator_of(each), policies)
            return super().reducer_override(each)

    file = io.BytesIO()
    Packer(file).dump(value)
    return file.getvalue()


# ------------------------------------------------------------------------------------- unpacking


class Shelf(importlib.abc.MetaPathFinder):
    """Where a worker finds the modules that were sent to it, before any file of its own."""

    def __init__(self) -> None:
        self.sources: dict[str, Source] = {}

    def put(self, sources: Sources) -> None:
        """Take modules; where one is new or another than before, all are imported anew."""
        if any(self.sources.get(name) != source for name, source in sources.items()):
            for name in {*self.sources, *sources}:
                sys.modules.pop(name, None)
        self.sources.update(sources)
        for source in sources.values():
            lines = source.text.splitlines(keepends=True)
            linecache.cache[source.path] = (len(source.text), None, lines, source.path)
        importlib.invalidate_caches()

    def find_spec(
        self,
        fullname: str,
        path: object = None,  # noqa: ARG002
        target: object = None,  # noqa: ARG002
    ) -> importlib.machinery.ModuleSpec | None:
        """Return how a module is imported; None where neither it nor a part of it was sent."""
        source = self.sources.get(fullname)
        if source is not None:
            places: list[str] | None = [] if source.is_package else None
            return importlib.util.spec_from_file_location(
                fullname, source.path, loader=Text(source), submodule_search_locations=places
            )
        if any(name.startswith(f"{fullname}.") for name in self.sources):
            return importlib.machinery.ModuleSpec(fullname, None, is_package=True)
        return None


class Text(importlib.abc.ExecutionLoader):
    """What makes a module of its text."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def get_source(self, fullname: str) -> str:  # noqa: ARG002 - one loader, one module
        """Return the text."""
        return self.source.text

    def get_filename(self, fullname: str) -> str:  # noqa: ARG002
        """Return where the file was."""
        return self.source.path

    def is_package(self, fullname: str) -> bool:  # noqa: ARG002
        """Tell whether it has parts."""
        return self.source.is_package


def find_shelf() -> Shelf:
    """Return this process's shelf, which is asked before anything else."""
    for finder in sys.meta_path:
        if isinstance(finder, Shelf):
            return finder
    shelf = Shelf()
    sys.meta_path.insert(0, shelf)
    return shelf


def unpack(content: bytes, sources: Sources) -> Any:
    """Return what :func:`pack` packed, its modules imported from their sources."""
    find_shelf().put(sources)
    return pickle.loads(content)
