"""Hashes of texts, and versions of packages."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import re


def hash_texts(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:20]


@functools.cache
def find_version(name: str) -> str:
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"

    match = re.search(r"^Version: (\S+)", found.read_text("METADATA") or "", re.MULTILINE)
    if match:
        return match[1]
    return found.version  # which parses all of the text: 10 ms
