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
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from backtest import core
from backtest.core.code_names import LateModule, rich
from backtest.core.number_text import HARD_SPACE, MARKED, Measured
from backtest.report.chart_library import read_library
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
    jinja2 = LateModule("jinja2")
    markupsafe = LateModule("markupsafe")


PACKAGE = str(__package__)
FORMATS = ("html", "md", "json")
LEDGER_ROWS = 30
"""Rows of a ledger that are written in Markdown."""


def write_page(page: Page, path: Path, format_: str | None = None) -> Path:
    return save_text(write_text(page, choose_format(path, format_)), path)


def save_text(text: str, path: Path) -> Path:
    """Write a text into a file, by one rename, or into a pipe; return the path."""
    with core.writing(path, "report"):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():  # a pipe or a terminal
            path.write_text(text, encoding="utf-8", newline="\n")
        else:
            core.write_file(path.resolve(), text.encode("utf-8"))
    return path


def choose_format(path: Path, format_: str | None) -> str:
    """Return the format that is given, or that of the name of a file; HTML of another name."""
    named = path.suffix.lstrip(".").lower() or "html"
    return str(core.Choice(*FORMATS).check("the format of a report", format_ or named))


def write_text(page: Page, format_: str) -> str:
    writers = {
        "html": write_html,
        "md": write_markdown,
        "json": write_json,
    }
    return writers[format_](page)


WIDTH = 80
"""Characters of a line of text in a terminal, at most."""
PIPED_WIDTH = 100
"""Characters of a table where the output is no terminal."""
LEAST_WIDTH = 40
MOST_WIDTH = 120
"""Characters of a table in a narrow and in a wide terminal."""
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


def write_terminal(
    page: Page,
    sections: Sequence[Section],
    *,
    is_colored: bool = False,
) -> str:
    """Return a page as lines for a terminal: verdict, figures, details, and some sections.

    In color what ruins an account is bold red, and notes are dim.
    """
    width = find_width()
    parts: list[Any] = [wrap(core.clip(page.title, MAX_TITLE))]
    if page.subtitle:
        parts.append(wrap(page.subtitle))
    parts += [paint(wrap(f"! {notice}"), warn(notice)) for notice in page.notices]
    parts += ["", wrap(page.verdict)]
    if page.facts:
        grid, _ = lay_out(Table("", FACTS, tuple(page.facts)), width)
        parts += ["", grid]
    if page.details:
        parts += ["", wrap(page.details)]

    for section in sections:
        for block in section.blocks:
            if isinstance(block, Paragraph):
                parts.append(wrap(block.text))
            elif isinstance(block, Table) and block.is_pairs:
                parts.append(paint(write_pairs(block), DIM))
            elif isinstance(block, Table):
                parts += ["", block.caption or section.title, *list_table_lines(block, width)]
    return print_parts(parts, width, is_colored=is_colored)


def write_pairs(table: Table) -> str:
    """Return a table of names and values as one wrapped line."""
    pairs = ", ".join(f"{name} {value}" for name, value in table.rows)
    return wrap(f"{table.caption}: {pairs}", "  ")


def list_table_lines(table: Table, width: int) -> Iterator[Any]:
    """Yield the grid of a table, and what of it is not shown."""
    grid, hidden = lay_out(table, width)
    yield grid
    n_left = len(table.rows) - MAX_SHOWN
    if n_left > 0:
        yield paint(f"and {n_left:,} more rows", DIM)

    if hidden:
        cure = "a wider terminal or --json shows them"
        yield paint(wrap(f"hidden columns: {', '.join(hidden)} ({cure})"), DIM)


def print_parts(parts: Sequence[Any], width: int, *, is_colored: bool) -> str:
    """Return texts and grids as lines, without spaces at their ends."""
    stream = io.StringIO()
    console = rich.console.Console(
        file=stream,
        width=width,
        color_system="standard" if is_colored else None,
        force_terminal=is_colored,
        legacy_windows=False,
    )
    lines = [paint(part) if isinstance(part, str) else part for part in parts]
    console.print(rich.console.Group(*lines), markup=False, highlight=False)

    # What kept numbers and units together is a space again.
    shown = [line.rstrip() for line in stream.getvalue().splitlines()]
    text = "\n".join(shown).strip("\n")
    return text.replace(HARD_SPACE, " ").replace(UNBROKEN, " ")


UNBROKEN = "\N{BRAILLE PATTERN BLANK}"
"""What stands between a number and its unit in a cell: rich breaks words at a no-break space."""
MAX_TITLE = 200
FACTS = (Column("", is_number=False), Column(""), Column("", is_number=False))
"""Columns of the figures at the top."""
BOLD_RED = "bold red"
DIM = "dim"
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
    if RUIN.search(text):
        return BOLD_RED
    return "bold"


def choose_style(column: Column, label: str, cell: str) -> str:
    """Return the style of a cell: what ruins an account is bold red where it happened."""
    name = column.title or label
    if RUIN.search(name) and not AROUND.search(name) and HAPPENED.fullmatch(cell):
        return BOLD_RED
    return ""


def wrap(text: str, indent: str = "") -> str:
    return textwrap.fill(
        core.keep_units(text),
        min(WIDTH, find_width()),
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


class Laid(NamedTuple):
    """A column of a grid: what it is, its head in lines, its cells, and the room it takes."""

    column: Column
    head: str
    cells: list[str]
    width: int


def lay_out(table: Table, room: int) -> tuple[Any, list[str]]:
    """Return a grid of the columns that have room, and the titles of the others."""
    is_facts = table.columns is FACTS
    laid = [lay_out_column(table, place) for place in range(len(table.columns))]
    widths = [column.width for column in laid]
    places = [*range(len(laid))]
    if not is_facts:
        places = choose_columns(table.columns, widths, room)

    shown = []
    hidden = []
    for place, column in enumerate(laid):
        if place in places:
            shown.append(column)
        else:
            hidden.append(column.column.title)
    width = sum(column.width for column in shown) - GAP
    grid = start_grid(shown, is_narrow=width <= room)

    for row in zip(*(column.cells for column in shown), strict=True):
        texts = []
        for place, (column, cell) in enumerate(zip(shown, row, strict=True)):
            if is_facts and place == len(FACTS) - 1:  # the note of a figure
                style = DIM
            else:
                style = choose_style(column.column, row[0] if place else "", cell)
            texts.append(rich.text.Text(cell, style))
        grid.add_row(*texts)
    return grid, hidden


def lay_out_column(table: Table, place: int) -> Laid:
    """Return a column with its head broken to the width of its cells and longest word."""
    column = table.columns[place]
    most = None if table.columns is FACTS else MAX_SHOWN
    cells = []
    for row in table.rows[:most]:
        cell = row[place]
        text = cell.text if isinstance(cell, Cell) else cell
        shown = core.keep_units(core.escape_directions(text))
        cells.append(shown.replace(HARD_SPACE, UNBROKEN))

    # The head is as wide as the widest cell, or its longest word.
    head = " ".join(filter(None, (column.title, column.unit)))
    longest = max(1, *map(len, [*cells, *head.split()]))
    lines = textwrap.wrap(core.escape_directions(head), longest, break_on_hyphens=False)

    width = max(map(len, cells), default=0)
    if not column.is_number:  # words may be broken
        room = MIN_WORDS if place else MAX_NAME
        width = min(width, room)
    width = max(width, *map(len, lines), 0)
    return Laid(
        column,
        head="\n".join(lines),
        cells=cells,
        width=GAP + width,
    )


def start_grid(shown: Sequence[Laid], *, is_narrow: bool) -> Any:
    """Return a grid without rows; numbers are not broken where all columns have room."""
    grid = rich.table.Table(
        box=rich.box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        show_header=any(column.head for column in shown),
    )
    for column in shown:
        is_number = column.column.is_number
        grid.add_column(
            rich.text.Text(column.head),
            justify="right" if is_number else "left",
            no_wrap=is_number and is_narrow,
            overflow="fold",
        )
    return grid


def choose_columns(
    columns: Sequence[Column],
    widths: Sequence[int],
    most: int = WIDTH,
) -> list[int]:
    """Return the columns that fit: the labels, those with what can ruin, then the first others."""
    chosen = [place for place, column in enumerate(columns) if place == 0 or column.can_ruin]
    taken = sum(widths[place] for place in chosen)
    room = most + GAP - taken

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
MIN_WORDS = 24
MAX_NAME = 40
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
    template = start_jinja().get_template("page.md")
    facts = Table("", FACTS, tuple(page.facts))
    text = template.render(page=page, facts=facts, ledger=LEDGER_ROWS)
    return text.strip() + "\n"


def escape_markdown(text: str) -> markupsafe.Markup:
    return markupsafe.Markup(escape_marks(join_lines(str(text))))


def write_sentences(text: str) -> markupsafe.Markup:
    """Return escaped sentences in which code between backticks stays code."""
    parts = CODE.split(join_lines(text))
    for place, part in enumerate(parts):
        is_code = place % 2 == 1  # the split keeps what the pattern found between two other parts
        parts[place] = f"`{part}`" if is_code else escape_marks(part)
    return markupsafe.Markup("".join(parts))


def join_lines(text: str) -> str:
    """Return a text on one line, in which nothing changes the direction of writing."""
    return core.escape_directions(" ".join(text.split()))


def escape_marks(line: str) -> str:
    """Return a line whose marks of Markdown and of HTML are text."""
    for mark in ("\\", "|", "*", "_", "`", "[", "]", "#"):
        line = line.replace(mark, f"\\{mark}")
    return line.replace("&", "&amp;").replace("<", "&lt;")


def fence_code(text: str) -> markupsafe.Markup:
    longest = max(map(len, re.findall("`+", text)), default=0)
    marks = "`" * max(3, longest + 1)
    return markupsafe.Markup(f"{marks}\n{text}\n{marks}")


FEW_NOTICES = 2
"""Notices that are printed before the first number; the others follow the figures."""
FIRST_ROWS = 50
"""Rows of a ledger that are shown before it is searched."""


def write_html(page: Page, *, shares_library: bool = False) -> str:
    """Return a page as one file, or with the library of charts in a file beside it.

    Its scripts are ours and the library, each by its hash; of a shared library the page also lets
    the file beside it give the packed text, whose content is checked by the same hash. A page
    without charts has no library.
    """
    script = read_scripts()
    library = ""
    if page.charts:
        library = read_library()
    packed = ""
    shared = ""
    if library and shares_library:
        shared = LIBRARY
    elif library:
        packed = pack_text(library)

    data = json.dumps(collect_data(page), allow_nan=False, separators=(",", ":"))
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
            data=pack_text(data),
            library=packed,
            shared=shared,
        )
    except jinja2.UndefinedError as error:  # a cell of a forged result is no text
        raise AttributeError(str(error)) from error


def collect_data(page: Page) -> dict[str, Any]:
    """Return what the script of a page reads: charts, ledgers, explorers, colors."""
    blocks = [block for section in page.sections for block in section.blocks]
    ledgers = [block for block in blocks if isinstance(block, Table) and block.is_searched]
    explorers = [block for block in blocks if isinstance(block, Explorer)]
    return {
        "charts": {chart.key: encode_figure(chart.figure) for chart in page.charts},
        "ledgers": [encode_figure(table.rows) for table in ledgers],
        "numbers": [[column.is_number for column in table.columns] for table in ledgers],
        "explorers": [encode_figure(explorer.data) for explorer in explorers],
        "first": FIRST_ROWS,
        "window": encode_figure(page.collect_window()),
        "template": {"layout": TEMPLATE},
        "light": LIGHT,
        "dark": DARK,
    }


@functools.cache
def start_jinja() -> jinja2.Environment:
    def escape_value(value: Any) -> Any:
        is_text = isinstance(value, str) and not hasattr(value, "__html__")
        if is_text:
            return core.escape_directions(value)
        return value

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(PACKAGE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=escape_value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["name"] = lambda block: type(block).__name__.lower()
    environment.filters["unbroken"] = keep_together
    environment.filters["prose"] = tag_prose
    environment.filters["markdown"] = escape_markdown
    environment.filters["sentences"] = write_sentences
    environment.filters["fenced"] = fence_code
    return environment


def tag_value(value: object) -> markupsafe.Markup | str:
    """Return the attributes of an element that shows one measure; nothing of any other text."""
    if not isinstance(value, Measured):
        return ""
    form = markupsafe.Markup(' data-measure="{}" data-format="{}"')
    return form.format(value.measure, value.style)


CODE = re.compile("`([^`]+)`")
DATE = re.compile(r"\b\d{4}-\d{2}-\d{2}\b")


def tag_prose(text: str) -> markupsafe.Markup:
    """Return an escaped sentence with its measures, code and dates in elements of their own.

    An element of a measure names it. A date does not break at its hyphens.
    """
    tagged = MARKED.sub(r'<span data-measure="\1" data-format="\2">\3</span>', escape_text(text))
    tagged = CODE.sub(r"<code>\1</code>", tagged)
    return markupsafe.Markup(tag_dates(tagged))


def keep_together(text: str) -> markupsafe.Markup:
    """Return an escaped cell in which no number leaves its unit, and no date breaks."""
    return markupsafe.Markup(tag_dates(escape_text(text)))


def escape_text(text: str) -> str:
    """Return a text escaped for HTML, in which no number leaves its unit."""
    return str(markupsafe.escape(core.escape_directions(core.keep_units(text))))


def tag_dates(escaped: str) -> str:
    return DATE.sub(r'<span class="date">\g<0></span>', escaped)


def is_plain(block: Block) -> bool:
    """Return whether a block is a table that is laid out beside others."""
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
    return f'window.packedLibrary = "{pack_text(read_library())}";\n'


MARKS_OF_HTML = "<>&"
SAFE = ",.:"
"""Letters of base 85 that HTML reads as marks, and those that replace them."""


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
    """Return the policy of a page: no script runs whose hash is not in it."""
    sources = []
    for text in filter(None, scripts):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest())
        sources.append(f"'sha256-{digest.decode('ascii')}'")
    if shares_library:
        sources.append("'self'")
    return (
        f"default-src 'none'; script-src {' '.join(sources)}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
