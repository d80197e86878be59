"""The example notebook as a page, whose blocks share their names."""

from __future__ import annotations

import json
from pathlib import Path

NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebook.ipynb"


def list_pages() -> dict[str, str]:
    """Return the page: its cells, which are run when the site is built."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    parts = [write_cell(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    return {"notebook": "---\nshared: true\n---\n\n" + "\n\n".join(parts) + "\n"}


def write_cell(kind: str, source: str) -> str:
    """Return a cell as Markdown."""
    return f"```python\n{source}\n```" if kind == "code" else source
