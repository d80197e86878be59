"""Names that are in ``kit.py``."""

from tests.kit import (  # noqa: F401
    YEAR,
    bars_market,
    find_touches,
    free_venue,
    live,
    market_of,
    walk,
)
