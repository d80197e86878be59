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
    pages = {}
    index = "# Every public name\n"

    for room, names in list_rooms().items():
        title = ROOMS[room]
        pages[f"api/{room}"] = write_page(write, title, "backtest", "bt", names)
        index += f"\n## [{title}](api/{room}.md)\n\n{list_calls('backtest', 'bt', names)}"

    for title, path in MODULES.items():
        module = importlib.import_module(path)
        names = list_names(module)
        page = f"api/{title.replace('.', '-')}"
        index += f"\n## [`{title}`]({page}.md)\n\n{list_calls(path, title, names)}"

        about = (inspect.getdoc(module) or "").partition("\n")[0]
        if title == "bt.strategies":
            about += " Each policy has a [page](../policies.md) of its own."
            names = []
        pages[page] = write_page(write, title, path, title, names, about)

    pages["api"] = index
    return pages


def list_rooms() -> dict[str, list[str]]:
    """Return the names of ``bt`` by room; a room without any is left out."""
    names_by_room: dict[str, list[str]] = {room: [] for room in ROOMS}
    for name in bt.__all__:
        value = getattr(bt, name)
        if not inspect.ismodule(value):
            names_by_room[find_room(value)].append(name)
    return {room: names for room, names in names_by_room.items() if names}


def list_calls(path: str, shown: str, names: list[str]) -> str:
    """Return a table with the call of each name and the first line of its docstring."""
    rows = []
    for name in names:
        value = getattr(importlib.import_module(path), name)
        about = ""
        call = ""
        if is_called(value):
            about = inspect.getdoc(value) or ""
            call = write_call(value)
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

    options = ""
    if isinstance(value, Iterable):
        options = list_code(list(map(str, value)))
    if options:
        return f"{head}One of {options}.\n"
    return f"{head}`{value}`\n"


def is_called(value: Any) -> bool:
    return inspect.isclass(value) or inspect.isroutine(inspect.unwrap(value))


def write_directive(path: str, shown: str, name: str) -> str:
    value = getattr(importlib.import_module(path), name)
    if not is_called(value):
        return write_head(value, shown, name)

    directive = f".. autofunction:: {name}\n"
    if inspect.isclass(value):
        directive = (
            f".. autoclass:: {name}\n"
            "   :members:\n   :inherited-members: object, tuple, Exception, UserWarning\n"
        )
    head = write_head(value, shown, name)
    return f"{head}```{{eval-rst}}\n.. py:currentmodule:: {path}\n\n{directive}\n```\n"


def write_plainly(path: str, shown: str, name: str) -> str:
    value = getattr(importlib.import_module(path), name)
    if not is_called(value):
        return write_head(value, shown, name)

    parts = [write_text(f"{shown}.{name}", value)]
    if inspect.isclass(value):
        parts += [write_text(*method) for method in list_methods(value)]
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
    for parameter in parameters:
        if parameter.name in ("self", "cls"):
            continue

        kind = parameter.kind
        if kind is parameter.KEYWORD_ONLY and not is_named:
            words.append("*")
        is_named = is_named or kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(kind, "")
        words.append(f"{stars}{parameter.name}{write_default(parameter)}")
    return f"({', '.join(words)})"


def write_default(parameter: inspect.Parameter) -> str:
    """Return ``=`` and a default, three dots for one that is an object; empty without one."""
    default = parameter.default
    if default is parameter.empty:
        return ""
    if isinstance(default, (str, int, float, tuple, type(None))):
        return f"={default!r}"
    return "=..."
