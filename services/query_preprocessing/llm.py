"""Rewriting a question with a language model behind an OpenAI-compatible API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.chassis import CallFailed, ServiceClient

_INSTRUCTION = {
    "en": "Rewrite the last question as one short search query that can be understood without the "
    "earlier questions. Keep names, numbers and technical terms. Write the query only.",
    "pt": "Reescreva a última pergunta como uma consulta de busca curta, compreensível sem as "
    "perguntas anteriores. Mantenha nomes, números e termos técnicos. Escreva só a consulta.",
}
_LONGEST = 300


class LlmRewriter:
    """Asks for a rewrite and gives None whenever there is none in time: it is never needed."""

    def __init__(self, url: str, model: str, api_key: str, timeout: float) -> None:
        headers = {"authorization": f"Bearer {api_key}"} if api_key else None
        self._client = ServiceClient("llm", url, timeout=timeout, headers=headers)
        self._model = model

    async def aclose(self) -> None:
        await self._client.aclose()

    async def rewrite(
        self, question: str, history: Sequence[str], language: str
    ) -> tuple[str | None, str]:
        """The rewritten query, or None; and what happened, in words."""
        asked = "\n".join([*history[-3:], question])
        body = {
            "model": self._model,
            "messages": [
                {"role": "system", "content": _INSTRUCTION[language]},
                {"role": "user", "content": asked},
            ],
            "temperature": 0,
            "seed": 0,
            "max_tokens": 64,
        }
        try:
            text = _text(await self._client.post("/chat/completions", body))
        except CallFailed as error:
            return None, f"no rewrite: {error.reason}"
        if not text or len(text) > _LONGEST:
            return None, "no rewrite: the model's answer is not a query"
        return text, "rewritten by the model"


def _text(answer: Any) -> str:
    """The first line of a chat completion; empty when the answer has another form."""
    try:
        content = answer["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return ""
    lines = content.strip().splitlines() if isinstance(content, str) else []
    return lines[0].strip(" \"'“”") if lines else ""
