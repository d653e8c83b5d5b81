import pytest


@pytest.fixture(autouse=True)
def _in_an_empty_folder(empty_folder, quick_figures):
    """Runs leave what they leave in a folder of their own."""
