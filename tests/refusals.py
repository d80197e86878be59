"""Names that are in ``kit.py``."""

from tests.kit import (  # noqa: F401
    check_refused,
)
