"""The cache folder, which keeps compiled code between processes, and access to its files."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from backtest.base.atomic_files import write_file
from backtest.base.errors import warn_caller

ENVIRONMENT_NAME = "BACKTEST_CACHE_DIR"


def find_cache_folder() -> Path:
    lasting = find_lasting_folder()
    return Path(tempfile.mkdtemp(prefix="leverage-backtest-")) if lasting is None else lasting


def find_lasting_folder() -> Path | None:
    given = os.environ.get(ENVIRONMENT_NAME)
    home = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    candidates = [Path(given)] if given else [Path(home) / "leverage-backtest"]
    user = os.getuid() if hasattr(os, "getuid") else 0  # as st_uid is on Windows
    candidates.append(Path(tempfile.gettempdir()) / f"leverage-backtest-{user}")
    for folder in candidates:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if os.access(folder, os.W_OK) and folder.stat().st_uid == user:
                return folder
    return None


def write_once(path: Path, text: str) -> Path:
    content = text.encode()
    found = read_bytes(path)
    if found != content:
        if found is not None:
            warn_of_damage(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, content)
    return path


def read_bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


_damaged: list[Path] = []


def warn_of_damage(path: Path) -> None:
    _damaged.append(path)
    if len(_damaged) == 1:
        warn_caller(
            f"the compile cache is damaged ({path}): compiling again, which takes some seconds"
        )
