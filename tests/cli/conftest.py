import pytest


@pytest.fixture(autouse=True)
def _in_an_empty_folder(empty_folder):
    """Runs leave what they leave in a folder of their own."""
