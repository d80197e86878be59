"""Texts that name arguments: ``mark_gaps='last'`` in Python, a flag at the command line.

Each is a str in its Python form. It also keeps the arguments it names as data, from which
:mod:`backtest.cli.cures` writes the form of the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias


class Argument(NamedTuple):
    """An argument of a function, optionally with the value to pass.

    Examples
    --------
    >>> str(Argument("mark_gaps", "last")), str(Argument("reserve"))
    ("mark_gaps='last'", 'reserve')
    """

    name: str
    value: object = ...

    def __str__(self) -> str:
        return self.name if self.value is ... else f"{self.name}={self.value!r}"


class Either(NamedTuple):
    """A text for Python, with its replacement at the command line."""

    python: str
    typed: str | Argument

    def __str__(self) -> str:
        return self.python


Piece: TypeAlias = str | Argument | Either


class Phrase(str):
    """A text with ``{}`` slots, which are filled with its pieces in order.

    A phrase may be a piece of another.

    Examples
    --------
    >>> Phrase("give {} there", Argument("mark_gaps", "last"))
    "give mark_gaps='last' there"
    """

    text: str
    pieces: tuple[Piece, ...]

    def __new__(cls, text: str, *pieces: Piece) -> Phrase:
        """Fill the slots in their Python form."""
        phrase = super().__new__(cls, text.format(*pieces))
        phrase.text, phrase.pieces = text, pieces
        return phrase

    def __getnewargs__(self) -> tuple[Any, ...]:
        return self.text, *self.pieces

    def fill(self, write: Callable[[Piece], str]) -> str:
        """Return the text with each piece written by a given function."""
        return self.text.format(*map(write, self.pieces))


class Place(str):
    """The place of an error: arguments of a function, with details such as an entry or a file.

    ``of`` is the name of the function.

    Examples
    --------
    >>> Place("sampler", of="bt.tune"), Place("sets", "target", "first in set 3")
    ('bt.tune, sampler', 'sets, target, first in set 3')
    """

    arguments: tuple[str, ...]
    details: tuple[str, ...]
    of: str

    def __new__(cls, arguments: str | tuple[str, ...], *details: str, of: str = "") -> Place:
        """Join the names and the details."""
        names = (arguments,) if isinstance(arguments, str) else arguments
        place = super().__new__(cls, ", ".join(filter(None, [of, " and ".join(names), *details])))
        place.arguments, place.details, place.of = names, details, of
        return place

    def __getnewargs_ex__(self) -> tuple[tuple[object, ...], dict[str, str]]:
        return (self.arguments, *self.details), {"of": self.of}


def join_phrases(separator: str, texts: Iterable[str]) -> Phrase:
    """Join the distinct texts into a phrase that keeps the arguments they name.

    Examples
    --------
    >>> join_phrases("; ", ["drop it", "drop it", Phrase("give {}", Argument("interval", "1h"))])
    "drop it; give interval='1h'"
    """
    different = list(dict.fromkeys(texts))
    return Phrase(separator.join(["{}"] * len(different)), *different)
