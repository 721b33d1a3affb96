"""`workshop call`: one request to a service, past the gateway."""

from __future__ import annotations

import json
from typing import Any

from services.chassis import CallFailed, Rejected, RequestContext, ServiceClient, use_context

from . import show, sync, system
from .catalogue import SERVICES
from .errors import WorkshopError
from .slide_markers import at

_TIMEOUT = 60.0


def show_call(name: str, path: str, body: str | None, only: tuple[str, ...] = ()) -> None:
    """Print the answer as JSON, or of each JSON pointer in `only` a line with its value."""
    here = system.require_running()
    if name not in SERVICES:
        raise WorkshopError(f"There is no service named {name}.", f"Known: {', '.join(SERVICES)}.")
    try:
        data = None if body is None else json.loads(body)
    except ValueError as error:
        raise WorkshopError(f"The body is not JSON: {error}.", "Quote it with '…'.") from None
    answer = sync.wait(_call(name, here.url(name), path, data))
    if not only:
        show.console.print_json(json.dumps(answer, ensure_ascii=False))
    for pointer in only:
        value = json.dumps(at(answer, pointer, "The answer"), ensure_ascii=False)
        show.console.print(f"{pointer}  {value}", markup=False, soft_wrap=True)


async def _call(name: str, base: str, path: str, body: Any) -> Any:
    client = ServiceClient(name, base, timeout=_TIMEOUT)
    try:
        with use_context(RequestContext.new(_TIMEOUT)):
            return await (client.get(path) if body is None else client.post(path, body))
    except Rejected as error:
        raise WorkshopError(
            f"{name} refused: {error.reason}", f"Its API is described at {base}/docs."
        ) from error
    except CallFailed as error:
        raise WorkshopError(
            f"{name} did not answer: {error.reason}.", "See `workshop status`."
        ) from error
    finally:
        await client.aclose()
