"""Request and response bodies of generation: OpenAI's chat completions, with `prompt` added."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from services.chassis import ApiModel

MAX_TEXT = 200_000
Name = Annotated[str, Field(max_length=200)]
Content = Annotated[str, Field(max_length=MAX_TEXT)]


class TextPart(ApiModel):
    type: Literal["text"] = Field(description="only text is read")
    text: Content = Field(description="the text itself")


class ChatMessage(ApiModel):
    role: Literal["system", "developer", "user", "assistant"] = Field(description="who speaks")
    content: Content | Annotated[list[TextPart], Field(min_length=1, max_length=100)] = Field(
        description="the text, or its parts"
    )
    name: Name | None = Field(None, description="accepted and not used")

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class PromptReference(ApiModel):
    """A prompt of this service, by name, in place of `messages`."""

    template: Name = Field(description="name of the template, such as `answer`")
    version: Name | None = Field(
        None, description="such as `v1`; default: by setting, else the newest"
    )
    language: Name = Field("en", description="`en` or `pt`")
    variables: dict[Name, Content] = Field(
        default_factory=dict, max_length=20, description="a value for each variable it has"
    )


class StreamOptions(ApiModel):
    include_usage: bool = Field(False, description="end with a chunk that holds the usage")
    include_obfuscation: bool | None = Field(None, description="accepted and not used")


class ChatRequest(ApiModel):
    model: Name | None = Field(
        None, description="`default`, or one of GET /v1/models; default: the default model"
    )
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=200)] | None = Field(
        None, description="the conversation; or give `prompt`"
    )
    prompt: PromptReference | None = Field(None, description="a template; or give `messages`")
    stream: bool | None = Field(False, description="answer as server-sent events")
    stream_options: StreamOptions | None = Field(None, description="only with stream")
    temperature: float | None = Field(
        None, ge=0, le=2, description="default: the setting, which is 0"
    )
    top_p: float | None = Field(None, gt=0, le=1, description="nucleus sampling")
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1, description="default: the setting")
    max_tokens: int | None = Field(None, ge=1, le=32_768, description="longest answer, in tokens")
    max_completion_tokens: int | None = Field(
        None, ge=1, le=32_768, description="the newer name of max_tokens"
    )
    stop: (
        Annotated[str, Field(min_length=1, max_length=200)]
        | Annotated[
            list[Annotated[str, Field(min_length=1, max_length=200)]],
            Field(min_length=1, max_length=4),
        ]
        | None
    ) = Field(None, description="the answer ends before any of these")
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    n: Literal[1] | None = Field(None, description="one answer a request")
    response_format: dict[str, Any] | None = Field(
        None, max_length=10, description="passed on, where the provider can"
    )
    user: Name | None = Field(None, description="accepted and not used")

    @model_validator(mode="after")
    def _one_source_of_messages(self) -> ChatRequest:
        if (self.messages is None) == (self.prompt is None):
            raise ValueError("give either messages or prompt")
        return self


class PromptTokensDetails(ApiModel):
    cached_tokens: int = Field(description="prompt tokens that the provider did not read again")


class Usage(ApiModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails | None = None


class AnswerMessage(ApiModel):
    role: Literal["assistant"]
    content: str


class Choice(ApiModel):
    index: int
    message: AnswerMessage
    finish_reason: str = Field(description="`stop`, or `length` when max_tokens ended it")
    logprobs: None = None


class ChatCompletion(ApiModel):
    """The answer; as a stream, OpenAI's `chat.completion.chunk` events, then `[DONE]`."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | None


class ModelCard(ApiModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str = Field(description="the provider that answers for it")


class ModelList(ApiModel):
    object: Literal["list"]
    data: list[ModelCard]


class PromptCard(ApiModel):
    template: str
    version: str
    language: str
    description: str
    variables: list[str]
    sha256: str = Field(description="of the file: the same hash is the same prompt")


class PromptList(ApiModel):
    data: list[PromptCard]
