"""Write a page: as text for a terminal, HTML, Markdown or JSON."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import json
import os
import re
import shutil
import sys
import textwrap
import zlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backtest import core
from backtest.core.code_names import LateModule, rich
from backtest.core.number_text import HARD_SPACE, MARKED, Measured
from backtest.report.figures import DARK, LIGHT, TEMPLATE
from backtest.report.packing import encode_figure
from backtest.report.page import (
    Block,
    Cell,
    Chart,
    Column,
    Explorer,
    Page,
    Paragraph,
    Section,
    Table,
)

if TYPE_CHECKING:
    import jinja2
    import markupsafe
else:
    jinja2, markupsafe = map(LateModule, ("jinja2", "markupsafe"))


PACKAGE = str(__package__)
FORMATS = ("html", "md", "json")
LEDGER_ROWS = 30
"""Rows of a ledger that are written in Markdown."""


def write_page(page: Page, path: Path, format_: str | None = None) -> Path:
    return save_text(write_text(page, choose_format(path, format_)), path)


def save_text(text: str, path: Path) -> Path:
    with core.writing(path, "report"):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():  # a pipe or a terminal
            path.write_text(text, encoding="utf-8", newline="\n")
        else:
            core.write_file(path.resolve(), text.encode("utf-8"))
    return path


def choose_format(path: Path, format_: str | None) -> str:
    named = path.suffix.lstrip(".").lower() or "html"
    return str(core.Choice(*FORMATS).check("the format of a report", format_ or named))


def write_text(page: Page, format_: str) -> str:
    return {"html": write_html, "md": write_markdown, "json": write_json}[format_](page)


WIDTH = 80
"""Characters of a line of text in a terminal, at most."""
PIPED_WIDTH, LEAST_WIDTH, MOST_WIDTH = 100, 40, 120
"""Characters of a table where the output is no terminal, and in a narrow and in a wide one."""
MAX_SHOWN = 12
"""Rows of a table in a terminal, and rows above which a page folds a table."""


def find_width() -> int:
    """Return the characters that a table may take: those of the terminal, or of ``COLUMNS``."""
    columns = os.environ.get("COLUMNS", "")
    width = PIPED_WIDTH
    if columns.isdigit():
        width = int(columns)
    elif sys.stdout is not None and sys.stdout.isatty():
        width = shutil.get_terminal_size((PIPED_WIDTH, 24)).columns
    return min(max(width, LEAST_WIDTH), MOST_WIDTH)


def write_terminal(page: Page, sections: Sequence[Section], *, is_colored: bool = False) -> str:
    """Return a page as lines for a terminal: verdict, figures, details, and some sections.

    In color what ruins an account is bold red, and notes are dim.
    """
    width = find_width()
    parts: list[Any] = [wrap(core.clip(page.title, MAX_TITLE)), wrap(page.subtitle)]
    parts += [paint(wrap(f"! {notice}"), warn(notice)) for notice in page.notices]
    parts += ["", wrap(page.verdict)]
    if page.facts:
        parts += ["", lay_out(Table("", FACTS, tuple(page.facts)), width)[0]]
    if page.details:
        parts += ["", wrap(page.details)]
    for section in sections:
        for block in section.blocks:
            if isinstance(block, Paragraph):
                parts.append(wrap(block.text))
            elif isinstance(block, Table) and block.is_pairs:
                pairs = ", ".join(f"{name} {value}" for name, value in block.rows)
                parts.append(paint(wrap(f"{block.caption}: {pairs}", "  "), DIM))
            elif isinstance(block, Table):
                grid, unseen = lay_out(block, width)
                parts += ["", block.caption or section.title, grid]
                if (left := len(block.rows) - MAX_SHOWN) > 0:
                    parts.append(paint(f"and {left:,} more rows", DIM))
                if unseen:
                    more = "a wider terminal or --json shows them"
                    line = wrap(f"hidden columns: {', '.join(unseen)} ({more})")
                    parts.append(paint(line, DIM))
    stream = io.StringIO()
    console = rich.console.Console(
        file=stream,
        width=width,
        color_system="standard" if is_colored else None,
        force_terminal=is_colored,
        legacy_windows=False,
    )
    lines = (paint(each) if isinstance(each, str) else each for each in parts)
    console.print(rich.console.Group(*lines), markup=False, highlight=False)
    shown = (line.rstrip() for line in stream.getvalue().splitlines())
    return "\n".join(shown).strip("\n").replace(HARD_SPACE, " ")


MAX_TITLE = 200
FACTS = (Column("", is_number=False), Column(""), Column("", is_number=False))
BOLD_RED, DIM = "bold red", "dim"
RUIN = re.compile(r"\b(ruin|liquidat|wiped|default of|bad debt|lost the)", re.IGNORECASE)
"""Words of what ruins an account, in notices and labels."""
AROUND = re.compile(r"distance|price|fee|leverage|day|time", re.IGNORECASE)
"""Words of figures about it that are none of its own."""
HAPPENED = re.compile(r"yes|[1-9][\d,]*")
"""Cells that say that it happened."""


def paint(text: str, style: str = "") -> Any:
    return rich.text.Text(core.escape_directions(text), style)


def warn(text: str) -> str:
    """Return the style of a notice."""
    return BOLD_RED if RUIN.search(text) else "bold"


def choose_style(column: Column, label: str, cell: str) -> str:
    """Return the style of a cell: what ruins an account is bold red where it happened."""
    name = column.title or label
    if RUIN.search(name) and not AROUND.search(name) and HAPPENED.fullmatch(cell):
        return BOLD_RED
    return ""


def wrap(text: str, indent: str = "") -> str:
    return textwrap.fill(core.keep_units(text), min(WIDTH, find_width()), break_on_hyphens=False,
                         subsequent_indent=indent, break_long_words=False)  # fmt: skip


def lay_out(table: Table, room: int) -> tuple[Any, list[str]]:
    """Return a grid of the columns that have room, and the titles of the others."""
    is_facts = table.columns is FACTS
    most = None if is_facts else MAX_SHOWN
    columns: list[tuple[Column, str, list[str]]] = []
    widths: list[int] = []
    for place, column in enumerate(table.columns):
        rows = (row[place] for row in table.rows[:most])
        cells = [core.escape_directions(x.text if isinstance(x, Cell) else x) for x in rows]
        head = " ".join(filter(None, (column.title, column.unit)))
        longest = max(map(len, [*cells, *head.split()]), default=1)
        heads = textwrap.wrap(core.escape_directions(head), longest, break_on_hyphens=False)
        width, words = max(map(len, cells), default=0), MIN_WORDS if place else MAX_NAME
        width = width if column.is_number else min(width, words)
        widths.append(GAP + max(width, *map(len, heads), 0))
        columns.append((column, "\n".join(heads), cells))

    places = range(len(columns)) if is_facts else choose_columns(table.columns, widths, room)
    shown = [columns[place] for place in places]
    unseen = [x.title for place, x in enumerate(table.columns) if place not in places]
    is_narrow = sum(widths[place] for place in places) - GAP <= room
    grid = rich.table.Table(box=rich.box.SIMPLE_HEAD, show_edge=False, pad_edge=False,
                            show_header=any(head for _, head, _ in shown))  # fmt: skip
    for column, head, _ in shown:
        side: Any = "right" if column.is_number else "left"
        is_whole = column.is_number and is_narrow
        grid.add_column(rich.text.Text(head), justify=side, no_wrap=is_whole, overflow="fold")
    for row in zip(*(cells for _, _, cells in shown), strict=True):
        styled = []
        for place, ((column, _, _), cell) in enumerate(zip(shown, row, strict=True)):
            is_note = is_facts and place == len(FACTS) - 1
            style = DIM if is_note else choose_style(column, row[0] if place else "", cell)
            styled.append(rich.text.Text(cell, style))
        grid.add_row(*styled)
    return grid, unseen


def choose_columns(
    columns: Sequence[Column], widths: Sequence[int], most: int = WIDTH
) -> list[int]:
    """Return the columns that fit: the labels, those with what can ruin, then the first others."""
    chosen = [place for place, column in enumerate(columns) if place == 0 or column.can_ruin]
    room = most + GAP - sum(widths[place] for place in chosen)
    for place, width in enumerate(widths):
        if place in chosen:
            continue
        if width > room:
            break
        room -= width
        chosen.append(place)
    return sorted(chosen)


GAP = 3
"""Characters between two columns."""
MIN_WORDS, MAX_NAME = 24, 40
"""Characters that a table keeps room for, of a column of words and of the first."""


def write_json(page: Page) -> str:
    content = {
        "kind": page.kind,
        "id": str(page.manifest["id"]),
        "title": page.title,
        "subtitle": page.subtitle,
        "notices": list(page.notices),
        "summary": page.summary,
        "headlines": [fact._asdict() for fact in page.facts],
        **page.collect(),
    }
    return json.dumps(core.to_json(content), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def write_markdown(page: Page) -> str:
    text = (
        start_jinja()
        .get_template("page.md")
        .render(
            page=page,
            facts=Table("", FACTS, tuple(page.facts)),
            ledger=LEDGER_ROWS,
        )
    )
    return text.strip() + "\n"


def escape_markdown(text: str) -> markupsafe.Markup:
    line = " ".join(str(text).split())
    for mark in ("\\", "|", "*", "_", "`", "[", "]", "#"):
        line = line.replace(mark, f"\\{mark}")
    return markupsafe.Markup(line.replace("&", "&amp;").replace("<", "&lt;"))


def fence_code(text: str) -> markupsafe.Markup:
    longest = max(map(len, re.findall("`+", text)), default=0)
    marks = "`" * max(3, longest + 1)
    return markupsafe.Markup(f"{marks}\n{text}\n{marks}")


FEW_NOTICES = 2
"""Notices that stand before the first number; more stand after the figures."""
FIRST_ROWS = 50
"""Rows of a ledger that are shown before it is searched."""


def write_html(page: Page, *, shares_library: bool = False) -> str:
    """Return a page as one file, or with the library of charts in a file beside it.

    Its scripts are ours and the library, each by its hash; of a shared library the page also lets
    the file beside it give the packed text, whose content is checked by the same hash. A page
    without charts has no library.
    """
    script = read_scripts()
    library = read_plotly() if page.charts else ""
    blocks = [block for section in page.sections for block in section.blocks]
    ledgers = [block for block in blocks if isinstance(block, Table) and block.is_searched]
    explorers = [block for block in blocks if isinstance(block, Explorer)]
    data = {
        "charts": {chart.key: encode_figure(chart.figure) for chart in page.charts},
        "ledgers": [encode_figure(table.rows) for table in ledgers],
        "numbers": [[column.is_number for column in table.columns] for table in ledgers],
        "explorers": [encode_figure(each.data) for each in explorers],
        "first": FIRST_ROWS,
        "window": encode_figure(page.collect_window()),
        "template": {"layout": TEMPLATE},
        "light": LIGHT,
        "dark": DARK,
    }
    template = start_jinja().get_template("page.html")
    try:
        return template.render(
            page=page,
            tagged=tag_value,
            is_plain=is_plain,
            is_beside=is_beside,
            first=FIRST_ROWS,
            most=MAX_SHOWN,
            few_notices=FEW_NOTICES,
            policy=write_security_policy(script, library, shares_library=shares_library),
            style=read_template("page.css"),
            script=script,
            data=pack_text(json.dumps(data, allow_nan=False, separators=(",", ":"))),
            library=pack_text(library) if library and not shares_library else "",
            shared=LIBRARY if library and shares_library else "",
        )
    except jinja2.UndefinedError as error:  # a cell of a forged result is no text
        raise AttributeError(str(error)) from error


@functools.cache
def start_jinja() -> jinja2.Environment:
    def escape_value(value: Any) -> Any:
        is_text = isinstance(value, str) and not hasattr(value, "__html__")
        return core.escape_directions(value) if is_text else value

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(PACKAGE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=escape_value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["name"] = lambda block: type(block).__name__.lower()
    environment.filters["unbroken"] = core.keep_units
    environment.filters["measured"] = tag_measures
    environment.filters["markdown"], environment.filters["fenced"] = escape_markdown, fence_code
    return environment


def tag_value(value: object) -> markupsafe.Markup | str:
    """Return the attributes of an element that shows one measure; nothing of any other text."""
    if not isinstance(value, Measured):
        return ""
    form = markupsafe.Markup(' data-measure="{}" data-format="{}"')
    return form.format(value.measure, value.style)


def tag_measures(text: str) -> markupsafe.Markup:
    """Return escaped text with its marked measures in elements that name them."""
    escaped = str(markupsafe.escape(core.escape_directions(text)))
    tag = r'<span data-measure="\1" data-format="\2">\3</span>'
    return markupsafe.Markup(MARKED.sub(tag, escaped))


def is_plain(block: Block) -> bool:
    """Return whether a block is a table that stands beside others."""
    return isinstance(block, Table) and not block.is_searched


def is_beside(blocks: Sequence[Block], place: int) -> bool:
    """Return whether the tables that begin at a place have the chart after them beside them."""
    after = next((block for block in blocks[place:] if not is_plain(block)), None)
    return isinstance(after, Chart) and after.size == "beside"


SCRIPTS = ("charts", "window", "ledger", "explorer", "page")
"""The parts of the script of a page, in their order; each may use what those before it define."""


@functools.cache
def read_scripts() -> str:
    parts = "".join(read_template(f"{name}.js") for name in SCRIPTS)
    return f'"use strict";\n(async () => {{\n{parts}}})();\n'


def read_template(name: str) -> str:
    return (resources.files(PACKAGE) / "templates" / name).read_text(encoding="utf-8")


LIBRARY = "charts-library.js"
"""The file beside pages that share the library of charts."""


def write_library() -> str:
    """Return the file that gives pages the packed library."""
    return f'window.packedLibrary = "{pack_text(read_plotly())}";\n'


@functools.cache
def read_plotly() -> str:
    text = (resources.files("plotly") / "package_data" / "plotly.min.js").read_text("utf-8")
    return text.replace("\r\n", "\n")


MARKS_OF_HTML, SAFE = "<>&", ",.:"


@functools.lru_cache(maxsize=2)
def pack_text(text: str) -> str:
    """Return text compressed, in letters that can stand in an element of a page.

    Five letters of 85 hold four bytes, a sixteenth less than base 64 needs. The three that HTML
    reads as marks are other ones.
    """
    packed = base64.b85encode(zlib.compress(text.encode(), 9)).decode("ascii")
    return packed.translate(str.maketrans(MARKS_OF_HTML, SAFE))


def unpack_text(packed: str) -> str:
    """Return the text that :func:`pack_text` packed, as a page does."""
    letters = packed.translate(str.maketrans(SAFE, MARKS_OF_HTML))
    return zlib.decompress(base64.b85decode(letters)).decode()


def pack_plain(text: str) -> str:
    """Return JSON that can stand in an element of a page: without what could end it."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def write_security_policy(*scripts: str, shares_library: bool = False) -> str:
    digests = (hashlib.sha256(text.encode()).digest() for text in scripts if text)
    hashes = " ".join(f"'sha256-{base64.b64encode(each).decode('ascii')}'" for each in digests)
    if shares_library:
        hashes += " 'self'"
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
