import pytest


@pytest.fixture(scope="session")
def lexicon_folder(tmp_path_factory):
    """The service's own folder: dictionaries are made there once for all tests."""
    folder = tmp_path_factory.mktemp("data") / "query_preprocessing"
    folder.mkdir()
    return folder
