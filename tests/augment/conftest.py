import fake_entry
import pytest


@pytest.fixture
def make_entry():
    """A function of shape, and more, that returns an entry with the images "image" and "label"."""
    return fake_entry.make_entry
