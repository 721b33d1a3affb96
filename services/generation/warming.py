"""At start: wait for the LLM server, then have it read what all prompts begin with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import aiohttp

from services.chassis import CallFailed, RequestContext, get_logger, use_context

from . import domain
from .completion import Served
from .settings import Settings

_TEMPLATE = "answer"


async def wait_for_llm(url: str, say: Callable[[str], None]) -> None:
    """Return when the LLM server at `url` answers; until then tell `say` what is missing."""
    timeout = aiohttp.ClientTimeout(total=2)
    async with aiohttp.ClientSession(timeout=timeout, trust_env=False) as session:
        pause = 0.05
        while True:
            try:
                async with session.get(f"{url.rstrip('/')}/models") as response:
                    if response.status < 500:
                        return
                    reason = "it is loading its model"
            except (aiohttp.ClientError, TimeoutError) as error:
                reason = str(error) or type(error).__name__
            say(f"waiting for the LLM server at {url}: {reason}")
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 1.0)


async def warm_prompts(settings: Settings, served: Served) -> None:
    """Send the fixed part of each language's prompt once, for the server's prefix cache.

    A question that comes meanwhile goes first: the rest is then left to the questions
    themselves, each of which leaves its prefix in the cache as well.
    """
    prompts = domain.prompts(settings.prompts_dir)
    languages = sorted({language for template, _, language in prompts if template == _TEMPLATE})
    for language in languages:
        if served.active:
            return
        prompt = domain.find(
            _TEMPLATE, language, settings.prompt_versions.get(_TEMPLATE), settings.prompts_dir
        )
        messages = prompt.render(dict.fromkeys(prompt.variables, ""))
        request = {"messages": messages, "max_tokens": 1, "temperature": 0}
        with use_context(RequestContext.new(settings.timeout)):
            try:
                stream = served.provider.stream(request, settings.timeout)
                async with aclosing(stream) as pieces:
                    async for _ in pieces:
                        pass
            except CallFailed as error:
                get_logger().warning("warming_failed", language=language, reason=error.reason)
                return
    get_logger().info("prompts_warmed", languages=languages)
