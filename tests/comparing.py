"""Names that are in ``kit.py``."""

from tests.kit import (  # noqa: F401
    RULES,
    compare_policies,
)
