"""Texts that name arguments: Python shows ``mark_gaps='last'``, the command line its flag.

Each is a str, which is its Python form. What it names stays in it as data, so that a reader of
another kind can be given another form; :mod:`backtest.cli.cures` writes that of the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias


class Argument(NamedTuple):
    """An argument of a function, alone or with a value to give it.

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
    """A text for Python, and what stands in its place at the command line."""

    python: str
    typed: str | Argument

    def __str__(self) -> str:
        return self.python


Piece: TypeAlias = str | Argument | Either


class Phrase(str):
    """A text with slots, filled with the arguments that it names.

    Parameters
    ----------
    text : str
        With ``{}`` where the pieces stand.
    *pieces : str, Argument or Either
        In order; a phrase may be a piece of another.

    Examples
    --------
    >>> Phrase("give {} there", Argument("mark_gaps", "last"))
    "give mark_gaps='last' there"
    """

    text: str
    pieces: tuple[Piece, ...]

    def __new__(cls, text: str, *pieces: Piece) -> Phrase:
        """Fill the slots in the form of Python."""
        phrase = super().__new__(cls, text.format(*pieces))
        phrase.text, phrase.pieces = text, pieces
        return phrase

    def __getnewargs__(self) -> tuple[Any, ...]:
        return self.text, *self.pieces

    def fill(self, write: Callable[[Piece], str]) -> str:
        """Return the text with each piece as another writer has it."""
        return self.text.format(*map(write, self.pieces))


class Place(str):
    """Where an error lies: arguments of a function, and what is known beyond them.

    Parameters
    ----------
    arguments : str or tuple of str
        Their names.
    *details : str
        An entry of the argument, the file it was meant for, the first set that has it.
    of : str
        The function.

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
    """Join texts, each one once, and keep what they name.

    Examples
    --------
    >>> join_phrases("; ", ["drop it", "drop it", Phrase("give {}", Argument("interval", "1h"))])
    "drop it; give interval='1h'"
    """
    different = list(dict.fromkeys(texts))
    return Phrase(separator.join(["{}"] * len(different)), *different)
