"""Names that are in ``kit.py``."""

from tests.kit import (  # noqa: F401
    call,
    override,
    run_python,
)
