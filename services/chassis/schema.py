"""Base class of request and response bodies."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator


class ApiModel(BaseModel):
    """Unknown fields are an error that names the field: a typo never passes in silence."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _is_unicode(cls, value: Any) -> Any:
        """JSON can spell half a character (`\\ud800`), which no later stage could encode."""
        texts = (value,) if isinstance(value, str) else value if isinstance(value, list) else ()
        for text in texts:
            if isinstance(text, str) and not text.isascii():
                try:
                    text.encode()
                except UnicodeEncodeError:
                    raise ValueError("the text holds half a surrogate pair") from None
        return value
