"""Names that are in ``kit.py``."""

from tests.kit import (  # noqa: F401
    every_nth,
    first_only,
)
