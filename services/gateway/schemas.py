"""Request and response bodies of gateway."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from services.chassis import ApiModel

from .chat import CHECKED

Names = Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=100)]
ListName = Literal["dense", "dense_english", "sparse"]
Language = Literal["en", "pt"]
Tag = Annotated[str, Field(min_length=1, max_length=100)]
JobStatus = Literal["queued", "running", "done", "failed"]
DOCUMENT_ID = r"^[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,198}[A-Za-z0-9_-])?$"


class Filter(ApiModel):
    """Only passages that match every given field; within a field, any of its values."""

    language: Names | None = Field(None, description="passage languages, such as `pt`")
    document: Names | None = Field(None, description="document ids")
    tag: Names | None = Field(None, description="tags")


class AnswerRequest(ApiModel):
    question: str = Field(min_length=1, max_length=2000, pattern=r"\S", description="the question")
    conversation_id: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_-]{16,64}$",
        description="continues a conversation; whoever has the id can read it",
    )
    history: list[Annotated[str, Field(max_length=2000)]] | None = Field(
        None, max_length=20, description="earlier questions, oldest first; replaces the stored ones"
    )
    language: Language | None = Field(
        None, description="language of the answer; default: that of the question"
    )
    filter: Filter = Field(default_factory=Filter, description="which passages may be used")
    top_k: int | None = Field(None, ge=1, le=50, description="passages offered to the context")
    stream: bool = Field(False, description="answer as server-sent events")


class Citation(ApiModel):
    number: int = Field(description="as in the answer's text: [1]")
    id: str = Field(description="passage id")
    document: str
    title: str
    heading: str
    text: str


class Source(Citation):
    language: str
    passages: list[str] = Field(description="ids of the passages merged into this source")


class Decision(ApiModel):
    check: str
    action: str
    detail: str


class StageTiming(ApiModel):
    stage: str
    start_ms: float = Field(description="from the request's arrival")
    ms: float
    status: Literal["ok", "degraded", "failed", "skipped"]


class Usage(ApiModel):
    prompt_tokens: int
    completion_tokens: int


class Answer(ApiModel):
    id: str = Field(description="the request id; feedback refers to it")
    conversation_id: str
    question: str
    language: str
    answer: str
    kind: Literal["generated", "extractive", "refusal", "small_talk", "blocked"]
    citations: list[Citation]
    sources: list[Source] = Field(description="what the answer could draw on, numbered")
    groundedness: float | None = Field(description="0 to 1; null when it was not measured")
    refused: bool
    degraded: list[str] = Field(description="services that were gone for this answer")
    suggestion: str | None = Field(description="the question with its spelling corrected")
    intent: str
    decisions: list[Decision] = Field(description="what post-processing decided, and why")
    timings: list[StageTiming]
    first_token_ms: float | None = Field(description="from arrival to the first generated text")
    usage: Usage | None


class Turn(ApiModel):
    question: str
    answer: str
    at: float = Field(description="Unix time in seconds")


class Conversation(ApiModel):
    id: str
    turns: list[Turn]


class SearchRequest(ApiModel):
    query: str = Field(min_length=1, max_length=2000, pattern=r"\S", description="what to look for")
    language: Language | None = Field(
        None, description="language of the query; chooses the weights of the lists"
    )
    top_k: int = Field(10, ge=1, le=100, description="passages wanted")
    candidates: int = Field(50, ge=1, le=500, description="passages asked of each list")
    filter: Filter = Field(default_factory=Filter, description="which passages may be found")
    lists: list[ListName] | None = Field(
        None, min_length=1, max_length=3, description="lists to ask; default: those with a weight"
    )
    weights: dict[ListName, Annotated[float, Field(ge=0, le=100)]] | None = Field(
        None, description="weight of each list; default: the setting for the language"
    )
    rerank: bool = Field(False, description="order by the reranking service as well")


class Passage(ApiModel):
    id: str
    document: str
    title: str
    heading: str
    position: int
    language: str
    tags: list[str]
    text: str


class PlaceInList(ApiModel):
    rank: int = Field(description="rank in that list, from 1")
    score: float = Field(description="that list's own score")


class Hit(ApiModel):
    id: str
    score: float = Field(description="fused score; comparable within one answer only")
    rerank_score: float | None = Field(
        None, description="with `rerank`: the reranker's score, null where it ran out of time"
    )
    passage: Passage
    provenance: dict[str, PlaceInList]


class SearchResponse(ApiModel):
    hits: list[Hit]
    reranked: bool = Field(description="whether the reranking service gave the order")
    degraded: list[str] = Field(description="services that did not answer")
    timings_ms: dict[str, float] = Field(description="time each list took, and reranking")


class DocumentRequest(ApiModel):
    """A document as JSON; files go as multipart."""

    document_id: str | None = Field(
        None,
        max_length=200,
        pattern=DOCUMENT_ID,
        description="its id; a document with this id is replaced. Default: made from the title",
    )
    title: str | None = Field(None, min_length=1, max_length=500, description="its title")
    content: str = Field(min_length=1, max_length=20_000_000, description="the text itself")
    media_type: Literal["text/markdown", "text/plain", "text/html"] = Field(
        "text/markdown", description="its form; PDF and DOCX are sent as multipart/form-data"
    )
    language: str | None = Field(
        None,
        pattern="^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})?$",
        max_length=12,
        description="ISO 639-1 code such as `pt`; default: detected",
    )
    tags: list[Tag] | None = Field(None, max_length=50, description="tags to filter by")
    force: bool = Field(False, description="index it again even if nothing has changed")


class Accepted(ApiModel):
    job_id: str = Field(description="ask `/v1/jobs/{id}` how it goes")
    document_id: str
    unchanged: bool = Field(
        False, description="true: the same content is indexed and no job was made"
    )


class Job(ApiModel):
    id: str
    kind: Literal["index", "delete"]
    status: JobStatus
    document_id: str
    progress: float = Field(ge=0, le=1)
    passages: int = Field(description="passages of the document, once it is split")
    error: str | None = Field(description="why it failed, or what it waits for")
    superseded: bool = Field(description="done without work: a newer version or a delete came")
    created_at: str = Field(description="RFC 3339, UTC")
    updated_at: str


class Document(ApiModel):
    id: str
    status: JobStatus = Field(description="of its latest job")
    job_id: str = Field(description="its latest job")
    error: str | None
    title: str | None
    language: str | None
    tags: list[str]
    media_type: str
    filename: str | None
    size: int = Field(description="bytes")
    sha256: str = Field(description="of the file")
    passages: int = Field(description="passages in the indexes")
    models: dict[str, str] = Field(description="embedding models of its vectors")
    created_at: str
    updated_at: str
    indexed_at: str | None = Field(description="when the indexes last got all of it")


class DocumentList(ApiModel):
    documents: list[Document]
    total: int = Field(description="documents in all")
    next: str | None = Field(description="give as `after` for the next page")


class FeedbackRequest(ApiModel):
    request_id: str = Field(
        pattern=r"^[A-Za-z0-9._:-]{1,64}$", description="the `id` of the answer it is about"
    )
    kind: Literal[
        "thumbs",
        "stars",
        "comment",
        "correction",
        "citation_opened",
        "answer_copied",
        "question_reasked",
    ] = Field(description="what happened")
    value: (
        Annotated[int, Field(ge=-1_000_000, le=1_000_000)]
        | Annotated[str, Field(max_length=10_000)]
        | None
    ) = Field(
        None,
        description="thumbs: 1 or -1; stars: 1 to 5; correction: the better answer; "
        "citation_opened: the passage id",
    )
    comment: str | None = Field(None, max_length=10_000, description="in the person's words")
    question: str | None = Field(None, max_length=4000, description="the question asked")
    answer: str | None = Field(None, max_length=20_000, description="the answer given")

    @field_validator("value", "comment", "question", "answer")
    @classmethod
    def _no_nul(cls, value: Any) -> Any:
        if isinstance(value, str) and "\x00" in value:
            raise ValueError("the character U+0000 cannot be stored")
        return value

    @model_validator(mode="after")
    def _value_fits_kind(self) -> FeedbackRequest:
        """Checked here too: what goes to the outbox has been promised to be stored."""
        if self.kind == "thumbs" and self.value not in (1, -1):
            raise ValueError("value must be 1 or -1 for the kind thumbs")
        if self.kind == "stars" and self.value not in (1, 2, 3, 4, 5):
            raise ValueError("value must be 1 to 5 for the kind stars")
        if self.kind == "comment" and not (self.comment or "").strip():
            raise ValueError("comment must not be empty for the kind comment")
        if self.kind == "correction" and not str(self.value or self.comment or "").strip():
            raise ValueError("value must hold the better answer for the kind correction")
        return self


class FeedbackAccepted(ApiModel):
    id: str
    duplicate: bool = False
    queued: bool = Field(
        False, description="it waits in the outbox because the feedback service is gone (202)"
    )


class TextPart(ApiModel):
    type: Literal["text"] = Field(description="only text is understood")
    text: str = Field(max_length=100_000)


class ChatMessage(ApiModel):
    role: Literal["system", "developer", "user", "assistant"] = Field(description="who speaks")
    content: (
        Annotated[str, Field(max_length=100_000)]
        | Annotated[list[TextPart], Field(max_length=50)]
        | None
    ) = Field(None, description="text, or a list of text parts")
    name: str | None = Field(None, max_length=200, description="accepted, not used")
    refusal: str | None = Field(None, max_length=100_000, description="accepted, not used")
    annotations: list[Any] | None = Field(None, max_length=100, description="accepted, not used")

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(ApiModel):
    include_usage: bool = Field(False, description="a last chunk with the token counts")
    include_obfuscation: bool | None = Field(None, description="accepted, not used")


class ResponseFormat(ApiModel):
    type: Literal["text"] = Field(description="only text can be answered")


class ChatRequest(ApiModel):
    """OpenAI's chat request. Sampling belongs to the pipeline: those fields are not used."""

    model: str = Field(CHECKED, max_length=200, description="see GET /v1/models")
    messages: list[ChatMessage] = Field(
        min_length=1,
        max_length=200,
        description="the last user message is the question, earlier ones are its history; "
        "system and assistant messages are not used",
    )
    stream: bool = Field(False, description="answer as server-sent events")
    stream_options: StreamOptions | None = Field(None, description="with `stream` only")
    n: Literal[1] | None = Field(None, description="one answer a request")
    response_format: ResponseFormat | None = Field(None, description="text only")
    temperature: float | None = Field(None, ge=0, le=2, description="accepted, not used")
    top_p: float | None = Field(None, ge=0, le=1, description="accepted, not used")
    max_tokens: int | None = Field(None, ge=1, description="accepted, not used")
    max_completion_tokens: int | None = Field(None, ge=1, description="accepted, not used")
    stop: str | list[str] | None = Field(None, description="accepted, not used")
    seed: int | None = Field(None, description="accepted, not used: answers are repeatable")
    user: str | None = Field(None, max_length=500, description="accepted, not used")
    presence_penalty: float | None = Field(None, ge=-2, le=2, description="accepted, not used")
    frequency_penalty: float | None = Field(None, ge=-2, le=2, description="accepted, not used")
    logprobs: Literal[False] | None = Field(None, description="there are none")
    store: bool | None = Field(None, description="accepted, not used")
    metadata: dict[str, str] | None = Field(None, description="accepted, not used")
    language: Language | None = Field(None, description="extension: language of the answer")
    filter: Filter = Field(default_factory=Filter, description="extension: usable passages")
    top_k: int | None = Field(None, ge=1, le=50, description="extension: passages offered")

    @model_validator(mode="after")
    def _options_need_a_stream(self) -> ChatRequest:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is allowed only with stream: true")
        return self


class ChatChoiceMessage(ApiModel):
    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(ApiModel):
    index: int
    message: ChatChoiceMessage
    logprobs: None
    finish_reason: Literal["stop", "content_filter"]


class ChatUsage(Usage):
    total_tokens: int


class ChatCompletion(ApiModel):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: ChatUsage
    rag: Answer = Field(description="the whole answer: citations, sources, groundedness, timings")


class Model(ApiModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class Models(ApiModel):
    object: Literal["list"]
    data: list[Model]
