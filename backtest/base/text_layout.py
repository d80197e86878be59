"""Text layout: titled paragraphs for an 80 column terminal, shortened and escaped names."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

WIDTH = 80
TITLE_WIDTH = 14
HARD_SPACE = "\N{NO-BREAK SPACE}"
NUMBER_AND_UNIT = re.compile(r"(?<=\d) (?=%|bp\b)")
"""The space inside ``5 bp``, where no line may break."""
DIRECTIONS = {
    code: f"\\u{code:04x}"
    for code in (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
"""Characters that set the direction of writing, with the escapes shown instead."""


def format_paragraph(title: str, *sentences: str) -> Iterator[str]:
    """Yield the lines of a titled paragraph with a hanging indent; each sentence starts a line."""
    for place, sentence in enumerate(sentences):
        lines = textwrap.wrap(
            keep_units(sentence),
            WIDTH,
            initial_indent=f"{title if place == 0 else '':{TITLE_WIDTH}}",
            subsequent_indent=" " * TITLE_WIDTH,
            break_long_words=False,
            break_on_hyphens=False,
        )
        yield from (line.replace(HARD_SPACE, " ") for line in lines)


def keep_units(text: str) -> str:
    """Put a no-break space between each number and its unit."""
    return NUMBER_AND_UNIT.sub(HARD_SPACE, text)


def clip(text: str, most: int) -> str:
    """Shorten a text to a number of characters.

    Examples
    --------
    >>> clip("volatility", 5)
    'vola…'
    """
    return text if len(text) <= most else f"{text[: max(most - 1, 0)]}…"


def capitalize(text: str) -> str:
    """Capitalize the first letter of a sentence and keep the rest.

    Examples
    --------
    >>> capitalize("no BTC is left")
    'No BTC is left'
    """
    return f"{text[:1].upper()}{text[1:]}"


def escape_directions(text: str) -> str:
    r"""Escape characters that set the direction of writing, which would reorder the text.

    Examples
    --------
    >>> escape_directions("a\u202eb")
    'a\\u202eb'
    """
    return text.translate(DIRECTIONS)
