"""Where compiled code is kept between processes, and how its files come to be."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

ENVIRONMENT_NAME = "BACKTEST_CACHE_DIR"


def find_cache_folder() -> Path:
    """Return the cache folder: ``BACKTEST_CACHE_DIR``, else the user's, else a temporary one."""
    given = os.environ.get(ENVIRONMENT_NAME)
    home = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    candidates = [Path(given)] if given else [Path(home) / "leverage-backtest"]
    candidates.append(Path(tempfile.gettempdir()) / f"leverage-backtest-{os.getuid()}")
    for folder in candidates:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if os.access(folder, os.W_OK) and folder.stat().st_uid == os.getuid():
                return folder
    return Path(tempfile.mkdtemp(prefix="leverage-backtest-"))


def write_once(path: Path, text: str) -> Path:
    """Write a file unless it stands there already; readers never see half of it."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=".new-", delete=False, encoding="utf-8"
        ) as file:
            file.write(text)
        Path(file.name).replace(path)
    return path
