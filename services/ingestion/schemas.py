"""Request and response bodies of ingestion."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from services.chassis import ApiModel

Tag = Annotated[str, Field(min_length=1, max_length=100)]
DOCUMENT_ID = r"^[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,198}[A-Za-z0-9_-])?$"
Status = Literal["queued", "running", "done", "failed"]


class DocumentFields(ApiModel):
    """What may be said about a document; what is not said is taken from the document itself."""

    document_id: str | None = Field(
        None,
        max_length=200,
        pattern=DOCUMENT_ID,
        description="its id; a document with this id is replaced. Default: made from the file "
        "name, else from the title, else from the content",
    )
    title: str | None = Field(None, min_length=1, max_length=500, description="its title")
    language: str | None = Field(
        None,
        pattern="^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})?$",
        max_length=12,
        description="ISO 639-1 code such as `pt`; default: front matter, else detected",
    )
    tags: list[Tag] | None = Field(None, max_length=50, description="tags to filter by")
    force: bool = Field(False, description="index it again even if nothing has changed")

    @field_validator("document_id")
    @classmethod
    def _plain_path(cls, value: str | None) -> str | None:
        if value is not None and any(part in ("", ".", "..") for part in value.split("/")):
            raise ValueError("its parts between slashes must not be empty, `.` or `..`")
        return value

    @field_validator("language")
    @classmethod
    def _primary_language(cls, value: str | None) -> str | None:
        return None if value is None else value.partition("-")[0].lower()


class DocumentIn(DocumentFields):
    content: str = Field(min_length=1, max_length=20_000_000, description="the text itself")
    media_type: Literal["text/markdown", "text/plain", "text/html"] = Field(
        "text/markdown", description="its form; PDF and DOCX are sent as multipart/form-data"
    )


class AcceptedResponse(ApiModel):
    job_id: str = Field(description="ask `/v1/jobs/{id}` how it goes")
    document_id: str
    unchanged: bool = Field(
        description="true: the same content is indexed (or about to be) and no job was made"
    )


class DeleteAcceptedResponse(ApiModel):
    job_id: str = Field(description="the job that deletes it")
    document_id: str


class Job(ApiModel):
    id: str
    kind: Literal["index", "delete"]
    status: Status
    document_id: str
    progress: float = Field(ge=0, le=1)
    passages: int = Field(description="passages of the document, once it is split")
    error: str | None = Field(description="why it failed, or what it waits for")
    superseded: bool = Field(description="done without work: a newer version or a delete came")
    created_at: str = Field(description="RFC 3339, UTC")
    updated_at: str


class Document(ApiModel):
    id: str
    status: Status = Field(description="of its latest job")
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
