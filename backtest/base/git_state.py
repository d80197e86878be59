"""What git says of a source file: the commit, and whether more is there than was committed."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

TIMEOUT = 2.0
"""Seconds after which git is not waited for, nor asked again."""
FRESH = 5.0
"""Seconds for which an answer holds: many results saved in a row ask once."""
GIT = ("git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "core.quotepath=false")
BRANCH = "# branch.oid "
PLACES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY",
          "GIT_COMMON_DIR", "GIT_NAMESPACE")  # fmt: skip
"""What a hook of another repository has in its environment."""


class Checkout(NamedTuple):
    """The state of a checkout.

    Attributes
    ----------
    commit : str
        The full hash; empty where nothing has been committed yet.
    is_dirty : bool
        Whether a file that git knows differs from the commit, or the source is not in it.
    """

    commit: str
    is_dirty: bool


class _Answer(NamedTuple):
    until: float
    found: Checkout | None


_ANSWERS: dict[Path, _Answer] = {}


def find_checkout(source: Path) -> Checkout | None:
    """Return the state of the checkout that a source file is in.

    None where there is no git, no checkout, the file is one that git ignores (installed inside
    another project), or git does not answer within two seconds.
    """
    known = _ANSWERS.get(source)
    if known is not None and time.monotonic() < known.until:
        return known.found
    try:
        found, until = ask_git(source), time.monotonic() + FRESH
    except subprocess.TimeoutExpired:
        found, until = None, float("inf")
    _ANSWERS[source] = _Answer(until, found)
    return found


def ask_git(source: Path) -> Checkout | None:
    """Return what git says of a source file now.

    Raise subprocess.TimeoutExpired if it takes too long.
    """
    told = run_git(source.parent, "status", "--porcelain=v2", "--branch", "--untracked-files=no")
    if told is None:
        return None
    lines = told.splitlines()
    oid = next((each.removeprefix(BRANCH) for each in lines if each.startswith(BRANCH)), "")
    commit = "" if oid == "(initial)" else oid
    if run_git(source.parent, "ls-files", "--error-unmatch", "--", source.name) is None:
        is_ignored = run_git(source.parent, "check-ignore", "-q", "--", source.name) is not None
        return None if is_ignored else Checkout(commit, is_dirty=True)
    return Checkout(commit, is_dirty=any(not each.startswith("#") for each in lines))


def run_git(folder: Path, *words: str) -> str | None:
    """Return what a git command prints; None where it fails, or there is no git."""
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
