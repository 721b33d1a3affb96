"""Break one part of the running system, for as long as a block lasts:

with workshop.kill("reranking"): ...              # SIGKILL; it stays dead until the block ends
with workshop.pause("reranking"): ...             # it takes calls, and does nothing
with workshop.slow("reranking", seconds=2): ...   # each call waits so long on its way to it
with workshop.disconnect("reranking"): ...        # it lives, and no call gets there

Afterwards the block waits until all that was ready before is ready again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from anyio.from_thread import start_blocking_portal

from . import catalogue, system
from .container_faults import cut, late
from .containers import Containers
from .errors import WorkshopError
from .fault_proxy import FaultProxy


@contextmanager
def kill(name: str) -> Iterator[None]:
    """SIGKILL: no goodbye, no draining. Callers are refused at once."""
    with _mended() as here:
        here.kill(name)
        try:
            yield
        finally:
            here.start(name)


@contextmanager
def pause(name: str) -> Iterator[None]:
    """SIGSTOP, in containers `docker pause`. Callers are heard, and wait."""
    with _mended() as here:
        here.pause(name)
        try:
            yield
        finally:
            here.resume(name)


@contextmanager
def slow(name: str, *, seconds: float) -> Iterator[None]:
    """Each call takes so much longer on its way to `name`."""
    with _mended() as here:
        if isinstance(here, Containers):
            with late(here, name, seconds) as url, _rerouted(here, name, url):
                yield
        else:
            with proxied(name) as proxy, _rerouted(here, name, proxy.url):
                proxy.delay = seconds
                yield


@contextmanager
def disconnect(name: str) -> Iterator[None]:
    """The network between `name` and its callers is gone: they hear nothing, not even a refusal."""
    with _mended() as here:
        if isinstance(here, Containers):
            with cut(here, name):
                yield
        else:
            with proxied(name) as proxy, _rerouted(here, name, proxy.url):
                proxy.silent = True
                yield


@contextmanager
def proxied(name: str) -> Iterator[FaultProxy]:
    """A `FaultProxy` on this machine for whoever calls its `url`; it passes calls on to `name`."""
    url = system.require_running().url(name)
    if not url.startswith("http"):
        raise WorkshopError(f"{name} does not speak HTTP.", "It can be killed or paused.")
    proxy = FaultProxy(url)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(proxy):
        yield proxy


@contextmanager
def _rerouted(here: system.System, name: str, url: str) -> Iterator[None]:
    """Everybody who calls `name` calls `url` in its place."""
    running = here.refresh().pids
    routes = {c: s for c, s in catalogue.routes(name, url).items() if c in running}
    try:
        for caller, settings in routes.items():
            here.configure(caller, settings)
        system.wait_ready(here, only=routes)
        yield
    finally:
        for caller, settings in routes.items():
            here.configure(caller, dict.fromkeys(settings))


@contextmanager
def _mended() -> Iterator[system.System]:
    """The system; at the end, everything that was ready is so again."""
    here = system.require_running()
    ready = {status.name for status in here.statuses() if status.ok}
    try:
        yield here
    finally:
        missing = [s.name for s in system.wait_ready(here, only=ready) if not s.ok]
    if missing:
        raise WorkshopError(
            f"{', '.join(missing)} did not come back.", f"See `workshop logs {missing[0]}`."
        )
