"""The pages that are made from the code, which only the site has; ``make docs`` writes them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from docs.ext import api, commands, gallery, venues
from docs.ext.links import REPOSITORY
from docs.ext.markdown import escape, write_table

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "notebook.ipynb"


def list_keys() -> dict[str, str]:
    from backtest.cli.experiment import TABLES, read_keys
    from backtest.experiments.tables import describe_kinds

    parts = []
    for table in TABLES:
        rows = []
        for key in read_keys(table).values():
            kind = describe_kinds(key.kinds) if key.default is None else str(key.default)
            rows.append([f"`{key.name}`", kind, key.text])
        head = ["key", "default or type", "meaning"]
        parts.append(f"## `[{table}]`\n\n" + write_table(head, rows))
    return {"keys": "# Keys of an experiment\n\n" + "\n".join(parts)}


def list_measures() -> dict[str, str]:
    from backtest.results import name_measure
    from backtest.results.measure_table import ABOUT

    rows = []
    for name, measure in ABOUT.items():
        rows.append([f"`{name}`", name_measure(name), measure.unit, measure.meaning])
    head = ["key of `result.metrics`", "name", "unit", "meaning"]
    lead = "The page of metrics has the formulas, that of attribution how money adds up."
    return {"measures": f"# Measures\n\n{lead}\n\n{write_table(head, rows)}"}


def list_exchanges() -> dict[str, str]:
    from backtest.venue.account_fields import read_account_fields

    rows = []
    for field in read_account_fields():
        money = f" ({field.settles})" if field.settles else ""
        has_profit = "yes" if field.has_profit else "no"
        exchanges = ", ".join(field.exchanges)
        rows.append([exchanges, f"`{field.field}`{money}", has_profit, escape(field.source)])
    head = ["exchange", "field", "with unrealized profit", "source"]
    lead = "What ccxt's fields of money contain, for snapshots of accounts."
    return {"exchanges": f"# Accounts of exchanges\n\n{lead}\n\n{write_table(head, rows)}"}


def list_cells() -> dict[str, str]:
    """Return the notebook as a page, which only the site has: the notebook is committed."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    texts = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    parts = [f"```python\n{text}\n```" if kind == "code" else text for kind, text in texts]
    return {"notebook": "---\nshared: true\n---\n\n" + "\n\n".join(parts) + "\n"}


def write_readme(text: str) -> str:
    """Return the README as a page of ``docs/generated``: links lead to pages, else to files."""
    text = text.replace("](docs/", "](../")
    return re.sub(r"\]\((?![./#]|https?:)", f"]({REPOSITORY}", text)


def list_committed() -> dict[str, str]:
    """Return the pages of ``docs/generated``: the notebook and the README, which are committed."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return list_cells() | {"readme": write_readme(readme)}


GENERATORS: tuple[Callable[[], dict[str, str]], ...] = (
    api.list_pages, commands.list_pages, list_keys, list_measures, list_exchanges,
    venues.list_pages, gallery.list_pages,
)  # fmt: skip
"""Each returns the texts of its pages by name."""


def list_reference() -> dict[str, str]:
    """Return the pages of ``docs/reference`` by name without ``.md``."""
    pages = {name: text for generate in GENERATORS for name, text in generate().items()}
    return {name: re.sub(r"[ \t]+$", "", text, flags=re.M) for name, text in pages.items()}


def write_pages(folder: Path, pages: Mapping[str, str]) -> None:
    for old in sorted(folder.rglob("*.md")):
        if old.relative_to(folder).with_suffix("").as_posix() not in pages:
            old.unlink()
    for name, text in pages.items():
        path = folder / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
