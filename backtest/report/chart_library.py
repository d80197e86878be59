"""The library of charts that pages embed: what draws lines, bars and maps, of all that Plotly has.

``plotly.min.js`` draws globes and meshes too: four times the bytes, and half of the time until a
page shows its charts. It is a bundle of modules, functions that run when they are called first::

    var NAME=WRAP((exports, module)=>{...});

One registers the kinds of charts, another one the components: what charts have beside their data.
All that no page draws leaves these lists here, and then the modules that nothing calls any more
leave the text. Where the text looks otherwise, as it may in another release, it stays as it is:
pages are larger and slower then, and show the same.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib import resources

KINDS = ("bar", "heatmap")
"""The kinds of charts that pages draw, beside lines and points, which are always registered."""
COMPONENTS = (
    "annotations", "shapes", "errorbars", "colorscale", "colorbar", "legend", "fx", "modebar",
)  # fmt: skip
"""The components that pages draw; each other one, as sliders and images, costs time per chart."""
REGISTERED = re.compile(r"\.register\(\[((?:[\w$]+\(\),?)+)\]\)")
"""The list of the kinds of charts: calls of their modules."""
LISTED = re.compile(r"(?<=[\w$])\(\[((?:[\w$]++\(\),?){3,})\]\)")
"""Any list of modules that are registered."""
MAP_STYLE = re.compile(r'(?<![\w$])[\w$]++==="map"&&[\w$]+\(\),')
"""The call of the styles of street maps, which no page draws."""
OPENINGS = (
    ("this, () => {\n", "this, (function() {\n"),
    ("var Plotly=(()=>{", "var Plotly=(function(){"),
    ("return Plotly;\n}));", "return Plotly;\n})));"),
)
"""Where the two functions around all modules begin, and where the outer one ends."""
DEFINED = re.compile(r"var ([\w$]+)=([\w$]+)\(\(?(?:\([^()]*\)|[\w$]+)=>\{")
"""The beginning of a module: its name, and that of the function that wraps it."""
WRAPPED = re.compile(r"(?<=[\w$])=[\w$]++\((?:\([^()]*\)|[\w$]+)=>\{")
"""The beginning of a module, also of one that shares its statement with other names."""
CALLED = re.compile(r"(?<![\w$])([\w$]++)\(\)")
"""A call without arguments, tried where a name begins: elsewhere it could not match anew."""
MANY = 10
"""Modules from which on what wraps them is one of the two wrappers of the bundle."""
FEW_STEPS = 4
"""Steps from a module of the list to the one that says its kind."""


@functools.cache
def read_library() -> str:
    """Return the part of Plotly that pages embed."""
    text = (resources.files("plotly") / "package_data" / "plotly.min.js").read_text("utf-8")
    return trim_library(text.replace("\r\n", "\n"))


def trim_library(text: str) -> str:
    """Return the library with the kinds of charts that pages draw, or whole if it looks unknown.

    Other kinds leave the list of what is registered, and with them all modules that nothing calls
    any more. Names are those of the minified text, so modules are known by what they describe.
    """
    lists = REGISTERED.findall(text)
    if len(lists) != 1:
        return text

    # The list with the kinds that are drawn alone.
    (registered,) = lists
    pieces = split_modules(text)
    kinds = {name: find_kind(pieces, name) for name in CALLED.findall(registered)}
    kept = [f"{name}()" for name, kind in kinds.items() if kind in KINDS]
    if len(kept) != len(KINDS):
        return text
    drawn = ",".join(kept)
    shorter = {name: piece.replace(registered, drawn) for name, piece in pieces.items()}

    shorter = drop_components(shorter)
    for name, piece in shorter.items():
        if '==="map"&&' in piece:  # faster than looking for the names before it
            shorter[name] = MAP_STYLE.sub("", piece)

    # What is left must define all that it calls.
    used = find_used(shorter)
    modules = [piece for name, piece in shorter.items() if name in used]
    if list_missing(text, "".join(modules)):
        return text
    return enclose_whole("".join(map(enclose_module, modules)))


def drop_components(pieces: dict[str, str]) -> dict[str, str]:
    """Return the pieces of the library, its list of components cut to those that pages draw.

    ``pieces`` are the texts of modules by name. A list of modules stands in a piece as calls,
    ``([a(),b(),c()])``. Several lists look like this. That of the components is the one in which
    every name of ``COMPONENTS`` is described by a module; without such a list nothing is cut.
    """
    for place, piece in pieces.items():
        for calls in LISTED.findall(piece):
            modules = CALLED.findall(calls)
            drawn = [name for name in modules if find_component(pieces, name) in COMPONENTS]
            has_all_drawn = len(drawn) == len(COMPONENTS)
            if has_all_drawn:
                drawn_calls = ",".join(f"{name}()" for name in drawn)
                return {**pieces, place: piece.replace(calls, drawn_calls)}
    return pieces


def find_component(pieces: Mapping[str, str], name: str) -> str:
    """Return the component that a module describes; nothing if it describes none by its name."""
    found = re.search(r'moduleType:"component",name:"(\w+)"', pieces.get(name, ""))
    return found[1] if found else ""


def split_modules(text: str) -> dict[str, str]:
    """Return the text in pieces: each module by its name, and under "" what precedes them.

    Put together in their order, the pieces are the text. What looks like a module is one if many
    have the same function around them.
    """
    openings = [*DEFINED.finditer(text)]
    n_wrapped = Counter(opening[2] for opening in openings)
    starts = {}
    for opening in openings:
        name = opening[1]
        wrapper = opening[2]
        if n_wrapped[wrapper] >= MANY:
            starts[name] = opening.start()

    # A piece ends where the next one begins.
    edges = [*starts.values(), len(text)]
    pieces = {"": text[: edges[0]]}
    for name, (start, end) in zip(starts, itertools.pairwise(edges), strict=True):
        pieces[name] = text[start:end]
    return pieces


def enclose_module(piece: str) -> str:
    """Return a module alone with parentheses around its function; any other piece as it is.

    Without them an engine reads the function twice: to find its end, and again when it is called.
    """
    start = DEFINED.match(piece)
    is_alone = piece.endswith("});") and len(WRAPPED.findall(piece)) == 1
    if start is None or not is_alone:
        return piece

    opening = piece.index("(") + 1
    return f"{piece[:opening]}({piece[opening:-2]}));"


def enclose_whole(text: str) -> str:
    """Return the library with the functions around all its modules in parentheses.

    An engine reads an arrow function that is called at once three times, this one once: half of the
    time until the library is there.
    """
    if any(text.count(opening) != 1 for opening, _ in OPENINGS):
        return text
    for opening, enclosed in OPENINGS:
        text = text.replace(opening, enclosed)
    return text


def find_kind(pieces: Mapping[str, str], name: str) -> str:
    """Return the kind of chart that a module describes, itself or in those that it hands on."""
    for _ in range(FEW_STEPS):
        piece = pieces.get(name, "")
        kind = re.search(r'moduleType:"trace",name:"(\w+)"', piece)
        if kind:
            return kind[1]

        handed_on = re.search(r"\.exports=([\w$]+)\(\)", piece)
        if handed_on is None:
            return ""
        name = handed_on[1]
    return ""


def find_used(pieces: Mapping[str, str]) -> set[str]:
    """Return the pieces that are called from what is no module alone, or from a piece in use.

    A module alone ends where the next one begins; other statements may follow what does not.
    """
    used = {name for name, piece in pieces.items() if not name or not piece.endswith("});")}
    waiting = [*used]
    while waiting:
        for name in find_calls([pieces[waiting.pop()]]):
            if name in pieces and name not in used:
                used.add(name)
                waiting.append(name)
    return used


def find_calls(texts: Iterable[str]) -> set[str]:
    calls: set[str] = set()
    for text in texts:
        calls.update(CALLED.findall(text))
    return calls


def list_missing(text: str, trimmed: str) -> set[str]:
    """Return the names that the trimmed text calls and that only the whole one defines."""
    defined = re.compile(r"var ([\w$]+)=[\w$]+\((?:\(|[\w$]+=>)")
    lost = {*defined.findall(text)} - {*defined.findall(trimmed)}
    return lost & find_calls([trimmed])
