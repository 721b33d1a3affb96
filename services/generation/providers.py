"""Those who answer: an OpenAI-compatible server (llama.cpp's among them) or a LangChain model.

Each gives the same thing, an async iterator of `Piece`, and fails with the same errors, those of
the chassis' client. The OpenAI-compatible path goes over aiohttp straight: the official SDK
builds a pydantic object a chunk, which the first token would have to wait for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Protocol

from services.chassis import (
    BadAnswer,
    CallFailed,
    DeadlineExceeded,
    ServiceClient,
    Unavailable,
    current,
)

from .domain import Message
from .reading import BrokenOff, Piece, ReadAnswer
from .settings import Route


class Provider(Protocol):
    """`request` holds OpenAI's fields: messages, temperature, seed, max_tokens, stop…"""

    def stream(self, request: dict[str, Any], timeout: float) -> AsyncGenerator[Piece, None]:
        """Pieces of the answer. Raises CallFailed; leaving the loop early stops the model."""
        ...

    async def aclose(self) -> None: ...


class OpenAICompatible:
    """Any server with OpenAI's /chat/completions."""

    def __init__(self, name: str, route: Route, read: ReadAnswer) -> None:
        self.name = name
        self._read = read
        self._extra: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
        if route.model:
            self._extra["model"] = route.model
        if route.provider == "llm-server":
            self._extra["cache_prompt"] = True
        key = route.api_key.get_secret_value()
        headers = {"authorization": f"Bearer {key}"} if key else None
        self._client = ServiceClient(name, route.url, headers=headers)

    async def aclose(self) -> None:
        await self._client.aclose()

    async def stream(self, request: dict[str, Any], timeout: float) -> AsyncGenerator[Piece, None]:
        body = request | self._extra
        events = self._client.stream("/chat/completions", body, timeout=timeout)
        try:
            async with aclosing(events) as stream:
                data = (event.data async for event in stream)
                async with aclosing(self._read(data)) as pieces:
                    async for piece in pieces:
                        yield piece
        except BrokenOff as error:
            raise BadAnswer(self.name, str(error)) from error
        except ValueError as error:
            raise BadAnswer(self.name, "sent a chunk that is not JSON") from error


class LangChainModel:
    """Any chat model that LangChain's `init_chat_model` can build, such as `openai:gpt-4o-mini`.

    The model's own package (langchain-openai, langchain-anthropic…) must be installed. Building
    it imports LangChain, which takes seconds: do it in a thread.
    """

    def __init__(self, name: str, route: Route) -> None:
        from langchain.chat_models import init_chat_model

        options = dict(route.options)
        if key := route.api_key.get_secret_value():
            options["api_key"] = key
        self.name = name
        self._model_name = route.model
        # Retries are made here, where it is known whether a token has come.
        self._model: Any = init_chat_model(route.model, max_retries=0, **options)

    async def aclose(self) -> None:
        pass

    async def stream(self, request: dict[str, Any], timeout: float) -> AsyncGenerator[Piece, None]:
        from langchain_core.messages import AIMessageChunk, convert_to_messages

        messages: list[Message] = request["messages"]
        # Every provider's package passes these on by OpenAI's names. A seed goes out only if the
        # caller set one: several providers refuse the field.
        names = ("temperature", "top_p", "max_tokens", "stop", "response_format")
        options = {name: request[name] for name in names if name in request}
        seconds = min(timeout, current().deadline.left)
        reason, usage = "stop", None
        try:
            async with asyncio.timeout(seconds):
                chunks = self._model.astream(convert_to_messages(messages), **options)
                async with aclosing(chunks) as stream:
                    async for chunk in stream:
                        if text := chunk.text:
                            yield Piece(text=str(text), model=self._model_name)
                        if isinstance(chunk, AIMessageChunk) and chunk.usage_metadata:
                            usage = _add_usage(usage, chunk.usage_metadata)
                        found = chunk.response_metadata
                        reason = found.get("finish_reason") or found.get("stop_reason") or reason
        except TimeoutError as error:
            raise DeadlineExceeded(
                self.name, f"no answer within {seconds * 1000:.0f} ms"
            ) from error
        except CallFailed:
            raise
        except Exception as error:
            # Each package has its own error classes; what they have in common is a status.
            raise _failure(self.name, error) from error
        length = reason in ("length", "max_tokens", "MAX_TOKENS")
        yield Piece(
            finish_reason="length" if length else "stop", usage=usage, model=self._model_name
        )


def _add_usage(known: dict[str, Any] | None, more: Any) -> dict[str, Any]:
    known = known or {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    return {
        "prompt_tokens": known["prompt_tokens"] + more.get("input_tokens", 0),
        "completion_tokens": known["completion_tokens"] + more.get("output_tokens", 0),
        "total_tokens": known["total_tokens"] + more.get("total_tokens", 0),
    }


def _failure(name: str, error: Exception) -> CallFailed:
    status = getattr(error, "status_code", None)
    reason = f"failed ({type(error).__name__})"
    if status is None or status in (429, 502, 503):
        return Unavailable(name, reason, status=status)
    return BadAnswer(name, reason, status=status)


def connect(name: str, route: Route, read: ReadAnswer) -> Provider:
    """The provider of a route; `read` is how streams of OpenAI's API become pieces.

    Needs a running event loop, except for LangChain models.
    """
    if route.provider == "langchain":
        return LangChainModel(name, route)
    return OpenAICompatible(name, route, read)
