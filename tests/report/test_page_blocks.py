"""Every kind of block is written into a page."""

from typing import get_args

from backtest.report.page.formats import write_html
from backtest.report.page.page import (
    Block,
    Chart,
    Code,
    Column,
    Page,
    Paragraph,
    SearchTable,
    Section,
    Table,
)

DATA = {
    "bars": 1,
    "interval": "1h",
    "instrument": "BTC",
    "start": "2020-01-01",
    "end": "2020-01-01",
}
TABLE = Table("a caption", (Column("name"), Column("value")), (("a head", "a cell"),))
BLOCKS = {
    "a paragraph": Paragraph("a paragraph"),
    "a cell": TABLE,
    "a chart": Chart("chart", "a chart", "how to read it", {"data": [], "layout": {}}),
    'type="search"': SearchTable(TABLE, ()),
    "a command": Code("a label", "a command"),
}


def test_a_page_shows_blocks_of_every_kind():
    assert {type(each) for each in BLOCKS.values()} == set(get_args(Block))
    for text, block in BLOCKS.items():
        sections = [Section("one", "One", "A lead.", [block])]
        page = Page("run", {"id": "0", "data": DATA}, "A page", [], "", [], lambda s=sections: s)
        assert text in write_html(page)
