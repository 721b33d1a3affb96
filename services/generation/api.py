"""The HTTP face of generation: OpenAI's chat completions over prompts, cache and providers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import Response
from starlette.types import Send

from services.chassis import Problem, create_service, current, encode_event, get_logger
from services.chassis.problems import validation_problem
from services.chassis.sse import HEADERS as SSE_HEADERS
from services.chassis.sse import MEDIA_TYPE as SSE
from services.chassis.until_gone import UntilGone, send_json

from . import domain
from .cache import MakeKey, cache_key
from .completion import Completer, Served
from .metrics import GenerationMetrics
from .providers import connect
from .reading import Piece, ReadAnswer, read_answer
from .routing import NextStep, next_step
from .schemas import ChatCompletion, ChatRequest, ModelList, PromptList
from .settings import Settings
from .warming import wait_for_llm, warm_prompts

DEFAULT = "default"
"""The model name that means: whatever is set as the default."""


def create_app(
    settings: Settings,
    *,
    make_key: MakeKey = cache_key,
    next_step: NextStep = next_step,
    read: ReadAnswer = read_answer,
) -> FastAPI:
    """The app: `make_key` for the prompt cache, `next_step` after a failure, `read` for streams."""

    @asynccontextmanager
    async def resources(app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(_check_prompts, settings)
        served = await _connect(settings, read)
        metrics = GenerationMetrics(app.state.metrics.registry)
        app.state.completer = Completer(settings, served, metrics, make_key, next_step)
        warming = None
        try:
            if settings.provider == "llm-server":
                await wait_for_llm(settings.llm_url, app.state.readiness.set_missing)
                if settings.warm_prompts:
                    warming = asyncio.create_task(warm_prompts(settings, served[DEFAULT]))
            yield
        finally:
            if warming is not None:
                warming.cancel()
                await asyncio.gather(warming, return_exceptions=True)
            for one in served.values():
                await one.provider.aclose()

    app = create_service(
        settings,
        title="generation",
        description="One chat API over many LLM providers, with versioned prompts and a cache.",
        router=_router(settings),
        resources=resources,
    )
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(RequestValidationError, _on_validation)
    return app


def _check_prompts(settings: Settings) -> None:
    """Read the prompts once, so that a broken file or an unknown version shows at start."""
    known = domain.prompts(settings.prompts_dir)
    for template, version in settings.prompt_versions.items():
        if not any(key[:2] == (template, version) for key in known):
            raise ValueError(
                f"GENERATION_PROMPT_VERSIONS: there is no version {version} of {template}"
            )


async def _connect(settings: Settings, read: ReadAnswer) -> dict[str, Served]:
    served = {}
    for name, route in {DEFAULT: settings.default_route, **settings.routes}.items():
        if route.provider == "langchain":
            provider = await asyncio.to_thread(connect, name, route, read)
        else:
            provider = connect(name, route, read)
        served[name] = Served(name, provider, route.provider, route.concurrency)
    if settings.model:
        served.setdefault(settings.model, served[DEFAULT])
    return served


def _router(settings: Settings) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/chat/completions", response_model=ChatCompletion, summary="Answer a conversation"
    )
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        completer: Completer = request.app.state.completer
        served = completer.served.get(body.model or DEFAULT)
        if served is None:
            known = ", ".join(completer.served)
            raise Problem(
                404,
                "unknown-model",
                f"model: there is no such model here; known: {known}.",
                code="model_not_found",
                errors=[{"field": "model", "problem": f"known: {known}"}],
            )
        work = _stream if body.stream else _whole
        pieces = completer.pieces(served, _provider_request(body, settings), _about(body))
        return UntilGone(lambda send: work(pieces, served, body, send))

    @router.get("/models", response_model=ModelList, summary="Models that can be asked for")
    async def models(request: Request) -> dict[str, object]:
        served: dict[str, Served] = request.app.state.completer.served
        return {
            "object": "list",
            "data": [
                {"id": name, "object": "model", "created": 0, "owned_by": one.kind}
                for name, one in served.items()
            ],
        }

    @router.get("/prompts", response_model=PromptList, summary="Prompt templates")
    async def prompts() -> dict[str, object]:
        return {
            "data": [
                {
                    "template": prompt.template,
                    "version": prompt.version,
                    "language": prompt.language,
                    "description": prompt.description,
                    "variables": prompt.variables,
                    "sha256": prompt.sha256,
                }
                for prompt in domain.prompts(settings.prompts_dir).values()
            ]
        }

    return router


def _about(body: ChatRequest) -> dict[str, Any]:
    """What the caller said that the provider does not get: the cache's key may look at it."""
    said = body.model_dump(include={"prompt", "stream", "stream_options", "user"})
    return said | {"request_id": current().request_id}


def _provider_request(body: ChatRequest, settings: Settings) -> dict[str, Any]:
    """The fields that go to the provider, with this service's defaults filled in."""
    request = body.model_dump(
        include={
            "top_p",
            "stop",
            "frequency_penalty",
            "presence_penalty",
            "response_format",
            "max_tokens",
            "max_completion_tokens",
        },
        exclude_none=True,
    )
    if "max_completion_tokens" in request:
        request.setdefault("max_tokens", request.pop("max_completion_tokens"))
    request.setdefault("max_tokens", settings.max_tokens)
    request["temperature"] = settings.temperature if body.temperature is None else body.temperature
    request["seed"] = settings.seed if body.seed is None else body.seed
    request["messages"] = _messages(body, settings)
    return request


def _messages(body: ChatRequest, settings: Settings) -> list[domain.Message]:
    if body.prompt is None:
        assert body.messages is not None
        return [
            {
                "role": "system" if message.role == "developer" else message.role,
                "content": message.text,
            }
            for message in body.messages
        ]
    wanted = body.prompt
    try:
        return domain.render(
            wanted.template,
            wanted.language,
            wanted.variables,
            wanted.version or settings.prompt_versions.get(wanted.template),
            settings.prompts_dir,
        )
    except domain.UnknownPrompt as error:
        field, reason = f"prompt.{error.field}", f"known: {', '.join(error.known)}"
    except domain.WrongVariables as error:
        field, reason = "prompt.variables", str(error)
    raise Problem(
        422, "invalid-field", f"{field}: {reason}.", errors=[{"field": field, "problem": reason}]
    )


async def _whole(
    pieces: AsyncGenerator[Piece, None], served: Served, body: ChatRequest, send: Send
) -> None:
    texts, reason, usage, model = [], "stop", None, served.name
    async with aclosing(pieces) as stream:
        async for piece in stream:
            texts.append(piece.text)
            reason = piece.finish_reason or reason
            usage, model = piece.usage or usage, piece.model or model
    answer = {
        "id": _id(),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "".join(texts)},
                "finish_reason": reason,
                "logprobs": None,
            }
        ],
        "usage": usage,
    }
    await send_json(send, answer)


async def _stream(
    pieces: AsyncGenerator[Piece, None], served: Served, body: ChatRequest, send: Send
) -> None:
    """Chunks as they come. Fails with a Problem before the first, with an error event after it."""
    head = {
        "id": _id(),
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": served.name,
    }
    begun = False
    usage: dict[str, Any] | None = None
    wants_usage = body.stream_options is not None and body.stream_options.include_usage

    async def emit(data: bytes) -> None:
        await send({"type": "http.response.body", "body": data, "more_body": True})

    def chunk(delta: dict[str, str], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return encode_event(head | {"choices": [choice]})

    try:
        async with aclosing(pieces) as stream:
            async for piece in stream:
                usage = piece.usage or usage
                if not piece.text and piece.finish_reason is None:
                    continue
                if not begun:
                    begun = True
                    head["model"] = piece.model or served.name
                    await send(
                        {"type": "http.response.start", "status": 200, "headers": _SSE_START}
                    )
                    await emit(chunk({"role": "assistant", "content": ""}))
                if piece.text:
                    await emit(chunk({"content": piece.text}))
                if piece.finish_reason is not None:
                    await emit(chunk({}, piece.finish_reason))
        last = encode_event(head | {"choices": [], "usage": usage}) if wants_usage else b""
        await emit(last + b"data: [DONE]\n\n")
    except Problem as problem:
        if not begun:
            raise
        await emit(encode_event(_with_error(problem)))
    except Exception as error:
        if not begun:
            raise
        get_logger().error("stream_failed", exc_info=error)
        await emit(
            encode_event(
                _with_error(Problem(500, "internal", "The answer broke off: an unexpected error."))
            )
        )
    await send({"type": "http.response.body", "body": b"", "more_body": False})


_SSE_START = [
    (b"content-type", f"{SSE}; charset=utf-8".encode()),
    *((name.encode(), value.encode()) for name, value in SSE_HEADERS.items()),
]


def _id() -> str:
    return f"chatcmpl-{current().request_id}"


def _with_error(problem: Problem) -> dict[str, Any]:
    """The problem document with OpenAI's `error` member, which its clients read."""
    document = problem.document(current().request_id)
    errors = document.get("errors")
    document["error"] = {
        "message": document["detail"],
        "type": "invalid_request_error" if problem.status < 500 else "server_error",
        "param": errors[0]["field"] if errors else None,
        "code": document.get("code", problem.kind),
    }
    return document


async def _on_problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    error.extra = {
        name: value
        for name, value in _with_error(error).items()
        if name not in ("type", "title", "status", "detail", "request_id")
    }
    return error.response()


async def _on_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return await _on_problem(request, validation_problem(error.errors()))
