"""Answers in the shapes of OpenAI's chat API (https://platform.openai.com/docs/api-reference/chat)."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import orjson

from services.chassis import CallFailed, Problem, ServerSentEvent, current
from services.chassis.problems import internal_problem

from .domain import scrubbed
from .upstream import problem_of

CHECKED = "rag-workshop"
"""Streams the text that post-processing has checked, once it stands."""
DRAFT = "rag-workshop-draft"
"""Streams the text as it is generated, unchecked; `rag.answer` of the last chunk is checked."""
MODELS = (CHECKED, DRAFT)
CREATED = 1_767_225_600  # a constant: the pipeline is not a file with a date

_WORDS = re.compile(r"\S+\s*|\s+")
_DONE = b"data: [DONE]\n\n"


def model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "rag-workshop"}


def finish_reason(answer: dict[str, Any]) -> str:
    return "content_filter" if answer["kind"] == "blocked" else "stop"


def usage(answer: dict[str, Any]) -> dict[str, int]:
    """Tokens of the generation; zero where no model was asked (a greeting, an extract)."""
    counted = answer.get("usage") or {}
    prompt = int(counted.get("prompt_tokens", 0))
    completion = int(counted.get("completion_tokens", 0))
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def completion(answer: dict[str, Any], model_name: str, created: int) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{answer['id']}",
        "object": "chat.completion",
        "created": created,
        "model": model_name,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": answer["answer"], "refusal": None},
                "logprobs": None,
                "finish_reason": finish_reason(answer),
            }
        ],
        "usage": usage(answer),
        "rag": answer,
    }


async def chunks(
    events: AsyncGenerator[ServerSentEvent, None],
    model_name: str,
    created: int,
    *,
    include_usage: bool,
) -> AsyncGenerator[bytes, None]:
    """The answer's events as `chat.completion.chunk`s.

    An OpenAI stream can not take text back, so the default model waits for the checked answer
    and then sends it word by word; the first chunk, which only names the role, comes at once.
    """
    draft = model_name == DRAFT
    request_id = current().request_id

    def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        body = {
            "id": f"chatcmpl-{request_id}",
            "object": "chat.completion.chunk",
            "created": created,
            "model": model_name,
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
        }
        if include_usage:
            body["usage"] = None
        return b"data: " + orjson.dumps(body | more) + b"\n\n"

    sent = ""
    try:
        async with aclosing(events):
            yield chunk({"role": "assistant", "content": ""})
            async for event in events:
                data: Any = event.json()
                if event.event == "token" and draft:
                    sent += data["text"]
                    yield chunk({"content": data["text"]})
                elif event.event == "error":
                    yield _error(data)
                elif event.event == "answer":
                    if not sent:
                        for word in _WORDS.findall(data["answer"]):
                            yield chunk({"content": word})
                    yield chunk({}, finish_reason(data), rag=data)
                    if include_usage:
                        yield chunk({}, choices=[], usage=usage(data))
            yield _DONE
    except CallFailed as error:
        yield _error(problem_of(error).document(request_id))
    except Problem as problem:
        yield _error(problem.document(request_id))
    except Exception as error:  # noqa: BLE001 - the status line is gone; a chunk must say it
        yield _error(internal_problem(error).document(request_id))


def _error(document: dict[str, Any]) -> bytes:
    """A failure after the start: OpenAI's clients raise what stands in `error`."""
    return b"data: " + orjson.dumps(with_error(scrubbed(document))) + b"\n\n"


def with_error(document: dict[str, Any]) -> dict[str, Any]:
    """A problem document with the member `error`, which OpenAI's clients read."""
    fields = document.get("errors") or [{}]
    return document | {
        "error": {
            "message": document.get("detail"),
            "type": "server_error"
            if document.get("status", 500) >= 500
            else "invalid_request_error",
            "param": fields[0].get("field"),
            "code": str(document.get("type", "")).rpartition(":")[2],
        }
    }
