import pytest


@pytest.fixture(scope="session")
def lexicon_folder(tmp_path_factory):
    """Where the compact dictionaries are made once for all tests."""
    return tmp_path_factory.mktemp("lexicon")
