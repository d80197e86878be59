"""Names that are in ``kit.py``."""

from tests.kit import (  # noqa: F401
    Estimate,
    check_knows_the_past_only,
    check_lanes_are_each_alone,
)
