"""Warnings that name the line of the user's that led to them."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

PACKAGE = str(Path(__file__).parents[1]) + os.sep


def warn_caller(text: str, category: type[Warning] = UserWarning) -> None:
    """Warn with the file and the line of the nearest caller outside the package."""
    level, frame = 2, sys._getframe(1)
    while frame.f_code.co_filename.startswith(PACKAGE) and frame.f_back is not None:
        level, frame = level + 1, frame.f_back
    warnings.warn(text, category, stacklevel=level)
