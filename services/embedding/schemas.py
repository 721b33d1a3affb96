"""Request and response bodies of embedding: OpenAI's shapes, with `input_type` added."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from services.chassis import ApiModel

MAX_INPUTS = 2048
Text = Annotated[str, Field(min_length=1, max_length=100_000)]


class EmbeddingsRequest(ApiModel):
    input: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS)] = Field(
        description=f"a text, or a list of up to {MAX_INPUTS} texts"
    )
    model: str | None = Field(
        None, max_length=200, description="model name or alias; default: the bilingual model"
    )
    encoding_format: Literal["float", "base64"] = Field(
        "float", description="`base64` is little-endian float32, and a third of the bytes"
    )
    dimensions: int | None = Field(
        None, ge=1, le=100_000, description="refused unless it is the model's own dimension"
    )
    user: str | None = Field(None, max_length=200, description="accepted and not used")
    input_type: Literal["query", "passage"] = Field(
        "query", description="whether the texts are questions or what is searched"
    )

    @field_validator("input", mode="before")
    @classmethod
    def _text_only(cls, value: Any) -> Any:
        first = value[0] if isinstance(value, list) and value else value
        if isinstance(first, (int, list)):
            raise ValueError(
                "token numbers are not accepted, because they belong to another model's "
                "tokenizer; send the text itself (langchain-openai: "
                "check_embedding_ctx_length=False)"
            )
        return value


class Embedding(ApiModel):
    object: Literal["embedding"] = "embedding"
    index: int = Field(description="place of the text in the request, from 0")
    embedding: list[float] | str = Field(description="the vector, of length 1, as asked for")


class Usage(ApiModel):
    prompt_tokens: int = Field(description="tokens read, special tokens and prefix included")
    total_tokens: int


class EmbeddingsResponse(ApiModel):
    object: Literal["list"] = "list"
    model: str = Field(description="name of the model that answered")
    data: list[Embedding]
    usage: Usage
    truncated: list[int] = Field(
        description="indexes of texts that were longer than the model reads and were cut"
    )


class Model(ApiModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    aliases: list[str]
    dimension: int
    max_tokens: int = Field(description="longer texts are cut here")
    runtime: str


class ModelList(ApiModel):
    object: Literal["list"] = "list"
    data: list[Model]
