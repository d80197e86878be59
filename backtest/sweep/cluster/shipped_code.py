"""Send the user's code to workers that do not have its files."""

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

from backtest.policy import Combinator, combinator_of, rebuild_class

OURS = frozenset({"backtest", "__main__", "__mp_main__"})


class Source(NamedTuple):
    """Source text of a module, the path of its file, and whether it is a package."""

    text: str
    path: str
    is_package: bool


Sources = Mapping[str, Source]


def collect_sources() -> dict[str, Source]:
    installed = list_installed()
    found = {}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in OURS and is_users(module, installed):
            path = Path(str(module.__file__))
            text = importlib.util.decode_source(path.read_bytes())
            found[name] = Source(text, str(path), hasattr(module, "__path__"))
    return found


def list_installed() -> tuple[Path, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = {sysconfig.get_path(name) for name in names}
    folders |= {*site.getsitepackages(), site.getusersitepackages()}
    return tuple(Path(folder).resolve() for folder in folders if folder)


def is_users(module: ModuleType, installed: Sequence[Path]) -> bool:
    file = getattr(module, "__file__", None)
    if not file or Path(file).suffix != ".py" or not Path(file).is_file():
        return False
    path = Path(file).resolve()
    return not any(path.is_relative_to(folder) for folder in installed)


def pickle_by_value(value: object) -> bytes:
    cloudpickle: Any = importlib.import_module("cloudpickle")

    class Packer(cloudpickle.Pickler):  # type: ignore[misc] # known where Dask is
        def reducer_override(self, each: Any) -> Any:
            if each is dataclasses.MISSING:  # is compared by identity, which a copy loses
                return getattr, (dataclasses, "MISSING")
            if isinstance(each, type) and issubclass(each, Combinator) and each.parts:
                policies = tuple(part.policy for part in each.parts)
                return rebuild_class, (combinator_of(each), policies)
            return super().reducer_override(each)

    file = io.BytesIO()
    Packer(file).dump(value)
    return file.getvalue()


class SentModules(importlib.abc.ExecutionLoader, importlib.abc.MetaPathFinder):
    def __init__(self) -> None:
        self.sources: dict[str, Source] = {}

    def add(self, sources: Sources) -> None:
        if any(self.sources.get(name) != source for name, source in sources.items()):
            for name in {*self.sources, *sources}:
                sys.modules.pop(name, None)
        self.sources.update(sources)
        for source in sources.values():
            lines = source.text.splitlines(keepends=True)
            linecache.cache[source.path] = (len(source.text), None, lines, source.path)
        importlib.invalidate_caches()

    def find_spec(
        self, fullname: str, *_: object, **__: object
    ) -> importlib.machinery.ModuleSpec | None:
        source = self.sources.get(fullname)
        if source is not None:
            folders: list[str] | None = [] if source.is_package else None
            return importlib.util.spec_from_file_location(
                fullname, source.path, loader=self, submodule_search_locations=folders
            )
        if any(name.startswith(f"{fullname}.") for name in self.sources):
            return importlib.machinery.ModuleSpec(fullname, None, is_package=True)
        return None

    def get_source(self, fullname: str) -> str:
        return self.sources[fullname].text

    def get_filename(self, fullname: str) -> str:
        return self.sources[fullname].path

    def is_package(self, fullname: str) -> bool:
        return self.sources[fullname].is_package


SENT_MODULES = SentModules()


def unpickle_with_sources(content: bytes, sources: Sources) -> Any:
    if SENT_MODULES not in sys.meta_path:
        sys.meta_path.insert(0, SENT_MODULES)
    SENT_MODULES.add(sources)
    return pickle.loads(content)
