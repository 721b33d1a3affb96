"""What every service shares and no service's domain: start-up, health, errors, logs, metrics,
trace context, deadlines, load shedding and the HTTP client.

Read `README.md` in this folder to write the next service.
"""

from .app import Resources, create_service
from .breaker import Breaker, BreakerOpen, Circuit, MayCall, Record, may_call, record
from .client import (
    BadAnswer,
    CallFailed,
    DeadlineExceeded,
    Rejected,
    ServiceClient,
    Unavailable,
    not_to_blame,
)
from .context import Deadline, RequestContext, current, use_context
from .logs import configure_logging, get_logger
from .memory import release_free_memory
from .problems import Problem
from .schema import ApiModel
from .serve import serve
from .settings import ServiceSettings
from .sse import ServerSentEvent, encode_event, parse_events

__version__ = "1.0.0"

__all__ = [
    "ApiModel",
    "BadAnswer",
    "Breaker",
    "BreakerOpen",
    "CallFailed",
    "Circuit",
    "Deadline",
    "DeadlineExceeded",
    "MayCall",
    "Problem",
    "Record",
    "Rejected",
    "RequestContext",
    "Resources",
    "ServerSentEvent",
    "ServiceClient",
    "ServiceSettings",
    "Unavailable",
    "configure_logging",
    "create_service",
    "current",
    "encode_event",
    "get_logger",
    "may_call",
    "not_to_blame",
    "parse_events",
    "record",
    "release_free_memory",
    "serve",
    "use_context",
]
