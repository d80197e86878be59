"""Every public name, by module: its docstring, and the modules it is found in."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Iterator
from types import ModuleType

import backtest as bt
from docs.ext.examples import read_examples
from docs.ext.markdown import write_table, write_toc

MODULES = {
    "bt.allocate": "backtest.allocate",
    "bt.features": "backtest.features",
    "bt.funding": "backtest.venue.funding",
    "bt.margin": "backtest.venue.margin",
    "bt.math": "backtest.base.public_math",
    "bt.measures": "backtest.measures",
    "bt.options": "backtest.options",
    "bt.paths": "backtest.paths",
    "bt.signals": "backtest.engine.signals",
    "bt.strategies": "backtest.strategies",
    "backtest.regress": "backtest.regress",
}
"""The public modules by the name under which users know them."""
WINGS = {
    "account": "Account", "market": "Markets and data", "venue": "Venues and margin",
    "policy": "Policies", "engine": "Runs and results", "compare": "Comparisons",
    "sweep": "Sweeps", "tune": "Tuning", "validation": "Validation",
    "risk": "Paths, risk, stress, bounds, capacity",
    "crowd": "Crowds and cascades", "options": "Options",
    "base": "Parameters, errors and warnings",
}  # fmt: skip
"""The title of the names of ``bt`` that a folder of the package defines."""


def list_pages() -> dict[str, str]:
    """Return a page for each part of ``bt`` and for each public module, and their list."""
    parts: dict[str, list[str]] = {wing: [] for wing in WINGS}
    for name in bt.__all__:
        if not inspect.ismodule(getattr(bt, name)):
            parts[find_wing(getattr(bt, name))].append(name)
    pages = {
        f"api/{wing}": write_page(WINGS[wing], "backtest", "bt", names)
        for wing, names in parts.items()
        if names
    }
    for title, path in MODULES.items():
        module = importlib.import_module(path)
        own = list_names(module)
        if title == "bt.strategies":
            own = []
        about = (inspect.getdoc(module) or "").partition("\n")[0]
        pages[f"api/{title.replace('.', '-')}"] = write_page(title, path, title, own, about)
    return pages | {"parts/api": write_index(parts, pages)}


def find_wing(value: object) -> str:
    """Return the folder that defines a public name; policies for type aliases."""
    parts: list[str] = getattr(value, "__module__", "").split(".")
    return parts[1] if parts[0] == "backtest" and parts[1] in WINGS else "policy"


def list_names(module: ModuleType) -> list[str]:
    """Return the public names of a module: those of ``__all__``, or what it defines."""
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return sorted(
            each for each in listed if getattr(bt, each, None) is not getattr(module, each)
        )
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and getattr(value, "__module__", "") == module.__name__
        and callable(value)
    )


def write_page(title: str, path: str, shown: str, names: list[str], about: str = "") -> str:
    """Return a page with the documentation of some names of a module."""
    head = f"# {title}\n\n{about}\n\n"
    if title == "bt.strategies":
        head += "The [gallery](/policies.md) has a page for each policy.\n"
    return head + "\n".join(section for name in names for section in write_name(path, shown, name))


def write_name(path: str, shown: str, name: str) -> Iterator[str]:
    """Yield the section of one name."""
    value = getattr(importlib.import_module(path), name)
    yield f"## `{shown}.{name}`\n"
    if not inspect.isclass(value) and not inspect.isroutine(inspect.unwrap(value)):
        options = ", ".join(f"`{each}`" for each in value) if isinstance(value, Iterable) else ""
        yield f"One of {options}.\n" if options else f"`{value}`\n"
        return
    directive = "class" if inspect.isclass(value) else "function"
    options = (
        "   :members:\n   :inherited-members: object, tuple, Exception, UserWarning\n"
        if directive == "class"
        else ""
    )
    yield (
        "```{eval-rst}\n"
        f".. py:currentmodule:: {path}\n\n"
        f".. auto{directive}:: {name}\n{options}\n"
        "```\n"
    )
    code = read_examples().get(f"{shown}.{name}")
    if code is not None:
        yield f"```python\n{code}```\n"


def write_index(parts: dict[str, list[str]], pages: dict[str, str]) -> str:
    """Return the list of all public names."""
    rows = [
        [f"[{WINGS[wing]}](generated/api/{wing}.md)", ", ".join(f"`{name}`" for name in names)]
        for wing, names in parts.items()
        if names
    ]
    for title, path in MODULES.items():
        names = list_names(importlib.import_module(path))
        page = f"generated/api/{title.replace('.', '-')}.md"
        rows.append([f"[`{title}`]({page})", ", ".join(f"`{name}`" for name in names)])
    return write_table(["page", "names"], rows) + "\n" + write_toc(pages)
