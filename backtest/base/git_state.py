"""The git state of a source file: its commit, and whether there are uncommitted changes."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

TIMEOUT = 2.0
"""Seconds to wait for git; after a timeout it is not called again for that file."""
FRESH = 5.0
"""Seconds for which an answer is cached: many results saved in a row call git once."""
GIT = ("git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "core.quotepath=false")
BRANCH = "# branch.oid "
PLACES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY",
          "GIT_COMMON_DIR", "GIT_NAMESPACE")  # fmt: skip
"""Environment variables that git sets for hooks, and that would point to another repository."""


class Checkout(NamedTuple):
    """The state of a checkout.

    ``commit`` is the full hash, empty before the first commit. ``is_dirty`` is True if a tracked
    file differs from the commit, or if the source file is not tracked.
    """

    commit: str
    is_dirty: bool


_ANSWERS: dict[Path, tuple[float, Checkout | None]] = {}
"""The cached answers, with the times until which they hold."""


def find_checkout(source: Path) -> Checkout | None:
    """Return the state of the checkout that contains a source file.

    None where there is no git, no checkout, the file is one that git ignores (installed inside
    another project), or git does not answer within two seconds.
    """
    known = _ANSWERS.get(source)
    if known is not None and time.monotonic() < known[0]:
        return known[1]
    try:
        found, until = ask_git(source), time.monotonic() + FRESH
    except subprocess.TimeoutExpired:
        found, until = None, float("inf")
    _ANSWERS[source] = until, found
    return found


def ask_git(source: Path) -> Checkout | None:
    """Return the state of a checkout without the cache.

    Raise subprocess.TimeoutExpired if it takes too long.
    """
    status = run_git(source.parent, "status", "--porcelain=v2", "--branch", "--untracked-files=no")
    if status is None:
        return None
    lines = status.splitlines()
    oid = next((each.removeprefix(BRANCH) for each in lines if each.startswith(BRANCH)), "")
    commit = "" if oid == "(initial)" else oid
    if run_git(source.parent, "ls-files", "--error-unmatch", "--", source.name) is None:
        is_ignored = run_git(source.parent, "check-ignore", "-q", "--", source.name) is not None
        return None if is_ignored else Checkout(commit, is_dirty=True)
    return Checkout(commit, is_dirty=any(not each.startswith("#") for each in lines))


def run_git(folder: Path, *words: str) -> str | None:
    """Return the output of a git command; None if it fails or git is missing."""
    kept = {name: value for name, value in os.environ.items() if name not in PLACES}
    try:
        done = subprocess.run(
            [*GIT, "-C", str(folder), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=kept,
            timeout=TIMEOUT,
            check=False,
        )
    except OSError:
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None
