"""Errors as problem documents (RFC 9457), the same from every service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from .context import current
from .logs import get_logger

MEDIA_TYPE = "application/problem+json"
TYPE_BASE = "urn:rag-workshop:problem:"

_TITLES = {
    400: "The request could not be read",
    401: "Authentication is needed",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict with the present state",
    413: "The request is too large",
    415: "Unsupported media type",
    422: "A field of the request is not valid",
    429: "Too many requests",
    500: "The service failed",
    502: "A service behind this one answered badly",
    503: "Not available right now",
    504: "The deadline passed",
}


class Problem(Exception):
    """An error to be answered as a problem document.

    `kind` is the stable last part of `type`; `detail` says what happened and what the caller can
    do; `extra` adds members to the document.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})
        self.extra = extra

    def document(self, request_id: str) -> dict[str, Any]:
        return {
            "type": TYPE_BASE + self.kind,
            "title": _TITLES.get(self.status, "Error"),
            "status": self.status,
            "detail": self.detail,
            "request_id": request_id,
            **self.extra,
        }

    def response(self) -> Response:
        request_id = current().request_id
        return Response(
            orjson.dumps(self.document(request_id)),
            self.status,
            {**self.headers, "x-request-id": request_id},
            MEDIA_TYPE,
        )


def validation_problem(errors: Sequence[Mapping[str, Any]]) -> Problem:
    """422 that names each field, without echoing what was sent (it may hold personal data)."""
    fields = []
    for error in errors:
        location = [str(part) for part in error.get("loc", ()) if part != "body"]
        message = str(error.get("msg", "")).removeprefix("Value error, ")
        fields.append({"field": ".".join(location) or "body", "problem": message})
    if any(error.get("type") == "json_invalid" for error in errors):
        return Problem(400, "malformed-json", "The body is not valid JSON.", errors=fields)
    first = fields[0]
    return Problem(
        422,
        "invalid-field",
        f"{first['field']}: {first['problem']}. See /docs for the accepted fields.",
        errors=fields,
    )


def install_problem_handlers(app: FastAPI) -> None:
    async def on_problem(_: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return error.response()

    async def on_validation(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return validation_problem(error.errors()).response()

    async def on_http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        kind = {
            400: "malformed-body",
            404: "not-found",
            405: "method-not-allowed",
            413: "body-too-large",
        }
        return Problem(
            error.status_code,
            kind.get(error.status_code, "http-error"),
            str(error.detail),
            headers=error.headers,
        ).response()

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(HTTPException, on_http)


def internal_problem(error: BaseException) -> Problem:
    """An unexpected failure: all of it goes to the log, none of it to the caller."""
    get_logger().error("unhandled_error", exc_info=error)
    return Problem(
        500,
        "internal",
        "An unexpected error; it is in the log under this request id. Trying again may help.",
    )
