"""Write a page as one HTML file with everything inline: it fetches nothing."""

from __future__ import annotations

import base64
import functools
import hashlib
import zlib
from importlib import resources
from typing import TYPE_CHECKING, Any

from backtest.base import escape_directions, keep_units
from backtest.report.page.figures import DARK, LIGHT, TEMPLATE, encode_figure, write_script_data
from backtest.report.page.page import Page, SearchTable

if TYPE_CHECKING:
    from jinja2 import Environment

FIRST_ROWS = 50
"""Rows of a ledger that are shown before it is searched."""


def write_html(page: Page, *, is_picture: bool = False, home: str = "") -> str:
    """Return a page as HTML; the same page gives the same text.

    A picture has neither navigation nor buttons. ``home`` is the address of the list of results,
    if the page is served with one.

    Notes
    -----
    Text from outside (names, manifests) is escaped, both in HTML and as data inside a script
    element. The content security policy of the page allows its two scripts by their hashes, and
    forbids any request.
    """
    script, library = read_template("page.js"), read_plotly()
    return (
        start_jinja()
        .get_template("page.html")
        .render(
            page=page,
            is_picture=is_picture,
            home=home,
            name=lambda block: type(block).__name__.lower(),
            first=FIRST_ROWS,
            policy=write_security_policy(script, library),
            style=read_template("page.css"),
            script=script,
            data=write_script_data(collect_script_data(page)),
            library=pack_plotly(),
        )
    )


@functools.cache
def start_jinja(package: str = "backtest.report") -> Environment:
    """Return the environment of a package's templates; it escapes all that is not marked safe."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415 - loads when used

    environment = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=escape_value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = keep_units
    return environment


def escape_value(value: Any) -> Any:
    """Escape the directions of writing in a text that is not markup yet."""
    is_text = isinstance(value, str) and not hasattr(value, "__html__")
    return escape_directions(value) if is_text else value


@functools.cache
def read_template(name: str, package: str = "backtest.report") -> str:
    """Return a file of the templates of a package."""
    return (resources.files(package) / "templates" / name).read_text(encoding="utf-8")


@functools.cache
def read_plotly() -> str:
    """Return plotly.js from the installed plotly package."""
    text = (resources.files("plotly") / "package_data" / "plotly.min.js").read_text("utf-8")
    return text.replace("\r\n", "\n")


@functools.cache
def pack_plotly() -> str:
    """Return plotly.js compressed in base64: under two megabytes instead of five."""
    return base64.b64encode(zlib.compress(read_plotly().encode(), 9)).decode("ascii")


def write_security_policy(*scripts: str) -> str:
    """Return the content security policy: these scripts, inline styles, images of the page."""
    hashes = " ".join(f"'sha256-{hash_text(text)}'" for text in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


@functools.cache
def hash_text(text: str) -> str:
    """Return the SHA-256 of a text in the base64 form of a content security policy."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def collect_script_data(page: Page) -> dict[str, Any]:
    """Return the data of the script: the figures, the ledgers, the colors."""
    blocks = [block for section in page.sections for block in section.blocks]
    ledgers = [block.table for block in blocks if isinstance(block, SearchTable)]
    return {
        "charts": {chart.key: encode_figure(chart.figure) for chart in page.charts},
        "ledgers": [encode_figure(table.rows) for table in ledgers],
        "numbers": [[column.is_number for column in table.columns] for table in ledgers],
        "first": FIRST_ROWS,
        "template": {"layout": TEMPLATE},
        "light": LIGHT,
        "dark": DARK,
    }
