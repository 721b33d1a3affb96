"""`python -m services.chassis.openapi [NAME…]`: write the committed `openapi.json` of services."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import orjson

SERVICES = Path(__file__).parent.parent


def service_names() -> list[str]:
    """Every service that has an API, in alphabetical order."""
    return sorted(path.parent.name for path in SERVICES.glob("*/api.py"))


def openapi_document(name: str) -> bytes:
    """The OpenAPI document that the code of service `name` describes now, as stable JSON."""
    settings = importlib.import_module(f"services.{name}.settings").Settings()
    app = importlib.import_module(f"services.{name}.api").create_app(settings)
    options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
    return orjson.dumps(app.openapi(), option=options)


if __name__ == "__main__":
    for service in sys.argv[1:] or service_names():
        (SERVICES / service / "openapi.json").write_bytes(openapi_document(service))
        print(f"wrote services/{service}/openapi.json")
