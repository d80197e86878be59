"""A module in which a peek of another one keeps what it has seen."""

from typing import Any

KEPT: dict[str, Any] = {}
