"""What blocks of pages printed, kept under build/blocks until text or package change."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from docs.ext.blocks import Block, Output

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "blocks"
SOURCES = ("backtest", "strategies", "docs/ext")
"""What a block can read of the checkout."""
KINDS = (".py", ".json", ".toml", ".csv", ".html", ".css", ".js", ".md")
FILES = ("pyproject.toml", "constraints.txt")


@functools.cache
def digest_package() -> str:
    """Return the digest of all that the output of a block may depend on, beside its text."""
    digest = hashlib.sha256()
    paths = [ROOT / name for name in FILES]
    for source in SOURCES:
        paths += [path for path in sorted((ROOT / source).rglob("*")) if path.suffix in KINDS]
    for path in paths:
        if "_built" in path.parts:
            continue
        digest.update(path.relative_to(ROOT).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def find_file(blocks: Sequence[Block], *, is_shared: bool) -> Path:
    """Return the file of the outputs of a page: its blocks may use each other's files and names."""
    texts = [[block.language, block.code] for block in blocks]
    key = json.dumps([digest_package(), is_shared, texts])
    return FOLDER / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


def read_outputs(path: Path) -> list[Output] | None:
    """Return the outputs that were written; None if there are none."""
    if not path.is_file():
        return None
    return [Output(*row) for row in json.loads(path.read_text(encoding="utf-8"))]


def write_outputs(path: Path, outputs: Sequence[Output]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(outputs), encoding="utf-8")
    draft.replace(path)
