"""The contract suites run against *any* base URL: the reference service or one that replaces it.

    pytest tests/contract/test_hybrid_search_contract.py --service-url http://127.0.0.1:8006

Without the option, the whole system is started once and its service is held to the contract.
"""

from __future__ import annotations

import httpx2
import pytest


def service_of(request: pytest.FixtureRequest) -> str:
    """`test_hybrid_search_contract.py` is the contract of `hybrid_search`."""
    return request.path.stem.removeprefix("test_").removesuffix("_contract")


def pytest_make_parametrize_id(val: object) -> str | None:
    """What is sent names the case, not `body0`: learners read these names."""
    if not isinstance(val, dict | list | tuple | bytes):
        return None
    text = val.decode("latin-1") if isinstance(val, bytes) else str(val)
    return text if len(text) <= 60 else f"{text[:57]}..."


@pytest.fixture(scope="module")
def service_url(request: pytest.FixtureRequest) -> str:
    given = request.config.getoption("--service-url")
    if given:
        return given.rstrip("/")
    return request.getfixturevalue("indexed").url(service_of(request))


@pytest.fixture(scope="module")
def http(service_url: str):
    with httpx2.Client(base_url=service_url, timeout=60) as client:
        yield client
