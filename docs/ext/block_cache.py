"""What blocks of pages printed, kept under build/blocks until text or package change.

python -m docs.ext.block_cache prints the dearest pages, and the CPU seconds of their blocks.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from docs.ext.blocks import Block, Output, run_block

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "blocks"
SOURCES = ("backtest", "strategies", "docs/ext")
"""What a block can read of the checkout."""
KINDS = (".py", ".json", ".toml", ".csv", ".html", ".css", ".js", ".md")
FILES = ("pyproject.toml", "constraints.txt")
SHOWN = 10
"""Pages in the table of the dearest."""


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


def time_block(block: Block, folder: Path, page: str, module: ModuleType | None) -> Output:
    """Run a block; its output says the seconds of CPU that it took."""
    before = sum(os.times()[:4])
    output = run_block(block, folder, page, module)
    return output._replace(seconds=round(sum(os.times()[:4]) - before, 2))


def read_outputs(path: Path) -> list[Output] | None:
    """Return the outputs that were written; None if there are none."""
    if not path.is_file():
        return None
    return [Output(*row) for row in json.loads(path.read_text(encoding="utf-8"))["outputs"]]


def write_outputs(path: Path, page: str, outputs: Sequence[Output]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps({"page": page, "outputs": outputs}), encoding="utf-8")
    draft.replace(path)


def list_costs() -> dict[str, list[float]]:
    """Return the CPU seconds of the blocks of each page, as it was last run, the dearest first."""
    costs = {}
    for path in sorted(FOLDER.glob("*.json"), key=lambda path: path.stat().st_mtime):
        kept = json.loads(path.read_text(encoding="utf-8"))
        costs[kept["page"]] = [Output(*row).seconds for row in kept["outputs"]]
    return dict(sorted(costs.items(), key=lambda item: -sum(item[1])))


def main() -> None:
    costs = list_costs()
    for page, seconds in [*costs.items()][:SHOWN]:
        sys.stdout.write(f"{sum(seconds):8.1f}  {page}: {' '.join(map(str, seconds))}\n")
    total = sum(sum(seconds) for seconds in costs.values())
    sys.stdout.write(f"{total:8.1f}  all {len(costs)} pages\n")


if __name__ == "__main__":
    main()
