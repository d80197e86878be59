"""Every public name, by module: its call and docstring; on the site, what Sphinx makes of them."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

import backtest as bt
from docs.ext.markdown import write_table

MODULES = {
    "bt.allocate": "backtest.allocate",
    "bt.indicators": "backtest.indicators",
    "bt.funding": "backtest.venue.funding",
    "bt.margin": "backtest.margin",
    "bt.math": "backtest.core.public_math",
    "bt.measures": "backtest.measures",
    "bt.options": "backtest.options",
    "bt.paths": "backtest.paths",
    "bt.signals": "backtest.signals",
    "bt.strategies": "backtest.strategies",
    "backtest.baselines": "backtest.baselines",
}
"""The public modules by the name under which users know them."""
ROOMS = {
    "account": "Account", "market": "Markets and data", "venue": "Venues", "margin": "Margin",
    "policies": "Policies", "signals": "Signals", "backtest": "Tests",
    "results": "Results",
    "sweep": "Sweeps", "search": "Tuning, validation and comparisons", "live": "Live accounts",
    "risk": "Paths, risk, stress, bounds, capacity, cascades", "options": "Options",
    "core": "Parameters, errors and warnings",
}  # fmt: skip
"""The title of the names of ``bt`` that a folder of the package defines."""


def list_pages() -> dict[str, str]:
    """Return the pages as Markdown, readable as they are."""
    return make_pages(write_plainly)


def list_site_pages() -> dict[str, str]:
    """Return the same pages with directives of autodoc, which link names to each other."""
    return make_pages(write_directive)


def make_pages(write: Callable[[str, str, str], str]) -> dict[str, str]:
    parts: dict[str, list[str]] = {room: [] for room in ROOMS}
    for name in bt.__all__:
        if not inspect.ismodule(getattr(bt, name)):
            parts[find_room(getattr(bt, name))].append(name)
    pages = {}
    index = "# Every public name\n"
    for room, names in parts.items():
        if names:
            pages[f"api/{room}"] = write_page(write, ROOMS[room], "backtest", "bt", names)
            index += f"\n## [{ROOMS[room]}](api/{room}.md)\n\n{list_calls('backtest', 'bt', names)}"
    for title, path in MODULES.items():
        module = importlib.import_module(path)
        page = f"api/{title.replace('.', '-')}"
        names = list_names(module)
        about = (inspect.getdoc(module) or "").partition("\n")[0]
        if title == "bt.strategies":
            about += " Each policy has a [page](../policies.md) of its own."
        own = [] if title == "bt.strategies" else names
        pages[page] = write_page(write, title, path, title, own, about)
        index += f"\n## [`{title}`]({page}.md)\n\n{list_calls(path, title, names)}"
    return pages | {"api": index}


def list_calls(path: str, shown: str, names: list[str]) -> str:
    """Return a table with the call of each name and the first line of its docstring."""
    rows = []
    for name in names:
        value = getattr(importlib.import_module(path), name)
        about = inspect.getdoc(value) or "" if is_called(value) else ""
        call = write_call(value) if is_called(value) else ""
        rows.append([f"`{shown}.{name}{call}`", about.partition("\n")[0]])
    return write_table(["call", "what it is"], rows)


def list_code(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def find_room(value: object) -> str:
    parts: list[str] = getattr(value, "__module__", "").split(".")
    return parts[1] if parts[0] == "backtest" and parts[1] in ROOMS else "policies"


def list_names(module: ModuleType) -> list[str]:
    own = (
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    )
    names = getattr(module, "__all__", own)
    return sorted(each for each in names if getattr(bt, each, None) is not getattr(module, each))


def write_page(
    write: Callable[[str, str, str], str],
    title: str,
    path: str,
    shown: str,
    names: list[str],
    about: str = "",
) -> str:
    sections = [write(path, shown, name) for name in names]
    return f"# {title}\n\n{about}\n\n" + "\n".join(sections)


def write_head(value: Any, shown: str, name: str) -> str:
    """Return the heading of a name, and all there is to say if it is no class and no function."""
    head = f"## `{shown}.{name}`\n\n"
    if is_called(value):
        return head
    options = list_code(list(map(str, value))) if isinstance(value, Iterable) else ""
    return head + (f"One of {options}.\n" if options else f"`{value}`\n")


def is_called(value: Any) -> bool:
    return inspect.isclass(value) or inspect.isroutine(inspect.unwrap(value))


def write_directive(path: str, shown: str, name: str) -> str:
    value = getattr(importlib.import_module(path), name)
    if not is_called(value):
        return write_head(value, shown, name)
    kind = "class" if inspect.isclass(value) else "function"
    members = "   :members:\n   :inherited-members: object, tuple, Exception, UserWarning\n"
    return (
        f"{write_head(value, shown, name)}```{{eval-rst}}\n.. py:currentmodule:: {path}\n\n"
        f".. auto{kind}:: {name}\n{members if kind == 'class' else ''}\n```\n"
    )


def write_plainly(path: str, shown: str, name: str) -> str:
    value = getattr(importlib.import_module(path), name)
    if not is_called(value):
        return write_head(value, shown, name)
    methods = list_methods(value) if inspect.isclass(value) else ()
    parts = [write_text(f"{shown}.{name}", value), *(write_text(*each) for each in methods)]
    return write_head(value, shown, name) + "\n".join(parts)


def list_methods(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield the public methods and properties of a class, also those of our classes above it."""
    for name in dir(cls):
        found: Any = inspect.getattr_static(cls, name)
        found = unwrap(found)
        module = getattr(inspect.unwrap(found), "__module__", None) if callable(found) else None
        is_ours = str(module).startswith("backtest") and not inspect.isclass(found)
        if is_ours and not name.startswith("_"):
            yield f"{cls.__name__}.{name}", found


def unwrap(found: Any) -> Any:
    """Return the function of a class method or property, and anything else as it is."""
    for wrapper in ("__func__", "fget", "func"):
        found = getattr(found, wrapper, None) or found
    return found


def write_text(name: str, value: Any) -> str:
    """Return a call and its docstring as one block of text."""
    text = inspect.getdoc(value) or ""
    return f"```text\n{name}{write_call(value)}\n\n{text}".rstrip() + "\n```\n"


def write_call(value: Any) -> str:
    try:
        parameters = inspect.signature(value).parameters.values()
    except ValueError:
        return ""
    words = []
    is_named = False
    for each in parameters:
        if each.name in ("self", "cls"):
            continue
        if each.kind is each.KEYWORD_ONLY and not is_named:
            words.append("*")
        is_named = is_named or each.kind in (each.KEYWORD_ONLY, each.VAR_POSITIONAL)
        stars = {each.VAR_POSITIONAL: "*", each.VAR_KEYWORD: "**"}.get(each.kind, "")
        is_plain = isinstance(each.default, (str, int, float, tuple, type(None)))
        default = "" if each.default is each.empty else f"={each.default!r}" if is_plain else "=..."
        words.append(f"{stars}{each.name}{default}")
    return f"({', '.join(words)})"
