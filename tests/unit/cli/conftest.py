import pytest


@pytest.fixture(autouse=True)
def _no_signs_of_life(no_signs_of_life):
    """Tests of commands count what is printed."""
