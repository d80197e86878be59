"""A page as one HTML file: everything inline, nothing fetched, nothing run but our own script."""

from __future__ import annotations

import base64
import functools
import hashlib
import zlib
from collections.abc import Iterator
from importlib import resources
from typing import TYPE_CHECKING, Any

from backtest.base.text_layout import escape_directions, keep_units
from backtest.report.page.figures import DARK, LIGHT, TEMPLATE, encode, write_script_data
from backtest.report.page.page import Ledger, Page

if TYPE_CHECKING:
    from jinja2 import Environment

FIRST_ROWS = 50
"""Rows of a ledger that stand in the page before it is searched."""


def write_html(page: Page, *, is_picture: bool = False, home: str = "") -> str:
    """Return a page as HTML; the same page gives the same text.

    Parameters
    ----------
    page : Page
        What to write.
    is_picture : bool
        Whether it is to be looked at only: without navigation and buttons.
    home : str
        Where the list of all results is, if it is served with one.

    Notes
    -----
    Whatever comes from outside (names, texts of a manifest) is escaped where it is HTML, and where
    it is data inside a script element no text of it can end that element. The page's content
    security policy lets run the two scripts it names by their hashes, and forbids any request.
    """
    environment = start_jinja()
    script, library = read_template("page.js"), read_plotly()
    environment.filters["unbroken"] = keep_units
    return environment.get_template("page.html").render(
        page=page,
        is_picture=is_picture,
        home=home,
        name=lambda block: type(block).__name__.lower(),
        first=FIRST_ROWS,
        policy=write_policy(script, library),
        style=read_template("page.css"),
        script=script,
        data=write_script_data(build_data(page)),
        library=pack_plotly(),
    )


def start_jinja() -> Environment:
    """Return what fills in the template; it escapes everything that is not said to be safe."""
    from jinja2 import DictLoader, Environment, StrictUndefined  # noqa: PLC0415 - loads when used

    return Environment(
        loader=DictLoader({"page.html": read_template("page.html")}),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=show,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def show(value: Any) -> Any:
    """Return a value as the page shows it; what is markup already stays."""
    is_text = isinstance(value, str) and not hasattr(value, "__html__")
    return escape_directions(value) if is_text else value


@functools.cache
def read_template(name: str) -> str:
    """Return a file of the folder of templates."""
    return (resources.files("backtest.report") / "templates" / name).read_text(encoding="utf-8")


@functools.cache
def read_plotly() -> str:
    """Return plotly.js, as the installed plotly brings it."""
    text = (resources.files("plotly") / "package_data" / "plotly.min.js").read_text("utf-8")
    return text.replace("\r\n", "\n")


@functools.cache
def pack_plotly() -> str:
    """Return plotly.js compressed: it is five megabytes plain, under two packed."""
    return base64.b64encode(zlib.compress(read_plotly().encode(), 9)).decode("ascii")


def write_policy(*scripts: str) -> str:
    """Return the content security policy: these scripts, our styles, pictures made in the page."""
    hashes = " ".join(f"'sha256-{hash_text(text)}'" for text in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


@functools.cache
def hash_text(text: str) -> str:
    """Return the SHA-256 of a text as a content security policy names it."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def build_data(page: Page) -> dict[str, Any]:
    """Return what the script needs: the figures, the ledgers, the colours."""
    return {
        "charts": {chart.key: encode(chart.figure) for chart in page.charts},
        "ledgers": [encode(ledger.table.rows) for ledger in find_ledgers(page)],
        "numbers": [
            [column.is_number for column in ledger.table.columns] for ledger in find_ledgers(page)
        ],
        "first": FIRST_ROWS,
        "template": {"layout": TEMPLATE},
        "light": LIGHT,
        "dark": DARK,
    }


def find_ledgers(page: Page) -> Iterator[Ledger]:
    """Yield the ledgers of a page."""
    for section in page.sections:
        yield from (block for block in section.blocks if isinstance(block, Ledger))
