"""Every public name, by module: its docstring, and the modules it is found in."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable
from types import ModuleType

import backtest as bt
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
    parts: dict[str, list[str]] = {wing: [] for wing in WINGS}
    for name in bt.__all__:
        if not inspect.ismodule(getattr(bt, name)):
            parts[find_wing(getattr(bt, name))].append(name)
    pages, rows = {}, []
    for wing, names in parts.items():
        if names:
            pages[f"api/{wing}"] = write_page(WINGS[wing], "backtest", "bt", names)
            rows.append([f"[{WINGS[wing]}](generated/api/{wing}.md)", list_code(names)])
    for title, path in MODULES.items():
        module, page = importlib.import_module(path), f"api/{title.replace('.', '-')}"
        names = list_names(module)
        about = (inspect.getdoc(module) or "").partition("\n")[0]
        if title == "bt.strategies":
            about += " The [gallery](/policies.md) has a page for each policy."
        own = [] if title == "bt.strategies" else names
        pages[page] = write_page(title, path, title, own, about)
        rows.append([f"[`{title}`](generated/{page}.md)", list_code(names)])
    return pages | {"parts/api": write_table(["page", "names"], rows) + "\n" + write_toc(pages)}


def list_code(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def find_wing(value: object) -> str:
    parts: list[str] = getattr(value, "__module__", "").split(".")
    return parts[1] if parts[0] == "backtest" and parts[1] in WINGS else "policy"


def list_names(module: ModuleType) -> list[str]:
    own = (
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    )
    names = getattr(module, "__all__", own)
    return sorted(each for each in names if getattr(bt, each, None) is not getattr(module, each))


def write_page(title: str, path: str, shown: str, names: list[str], about: str = "") -> str:
    sections = [write_name(path, shown, name) for name in names]
    return f"# {title}\n\n{about}\n\n" + "\n".join(sections)


def write_name(path: str, shown: str, name: str) -> str:
    value = getattr(importlib.import_module(path), name)
    head = f"## `{shown}.{name}`\n\n"
    if not inspect.isclass(value) and not inspect.isroutine(inspect.unwrap(value)):
        options = list_code(list(map(str, value))) if isinstance(value, Iterable) else ""
        return head + (f"One of {options}.\n" if options else f"`{value}`\n")
    kind = "class" if inspect.isclass(value) else "function"
    members = "   :members:\n   :inherited-members: object, tuple, Exception, UserWarning\n"
    return (
        f"{head}```{{eval-rst}}\n.. py:currentmodule:: {path}\n\n"
        f".. auto{kind}:: {name}\n{members if kind == 'class' else ''}\n```\n"
    )
