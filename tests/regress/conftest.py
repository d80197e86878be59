"""The baseline that changes are compared with."""

import pytest

from tests.regress.baselines import take


@pytest.fixture(scope="session")
def was():
    """The baseline of the unchanged project."""
    return take()
