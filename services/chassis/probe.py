"""HEALTHCHECK of the images: exit code 0 if the URL answers 200.

    python -IS services/chassis/probe.py http://127.0.0.1:8000/readyz

Imports the standard library only: the chassis itself would cost a second of CPU at each probe.
"""

from __future__ import annotations

import http.client
import sys
from urllib.parse import urlsplit


def main(url: str) -> str | None:
    """What is wrong, or None."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.netloc, timeout=3)
    try:
        connection.request("GET", address.path)
        answer = connection.getresponse()
        text = answer.read(500).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        return f"{url}: {error}"
    finally:
        connection.close()
    return None if answer.status == 200 else f"{url}: HTTP {answer.status} {text}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
