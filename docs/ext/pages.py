"""The pages that are made from the code, each by one module; nothing on them is written twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from docs.ext import (
    api,
    commands,
    experiments,
    gallery,
    notebook,
    venues,
)  # fmt: skip

GENERATORS: tuple[Callable[[], dict[str, str]], ...] = (
    api.list_pages,
    commands.list_pages,
    experiments.list_pages,
    venues.list_pages,
    gallery.list_pages,
    notebook.list_pages,
)
"""Each returns the texts of its pages by name."""


def write_pages(folder: Path) -> None:
    """Write all pages into an empty folder, and leave those alone that are as they were."""
    pages = {name: text for generate in GENERATORS for name, text in generate().items()}
    for old in sorted(folder.rglob("*.md")):
        if old.relative_to(folder).with_suffix("").as_posix() not in pages:
            old.unlink()
    for name, text in pages.items():
        path = folder / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
