"""Base class of request and response bodies."""

from pydantic import BaseModel, ConfigDict


class ApiModel(BaseModel):
    """Unknown fields are an error that names the field: a typo never passes in silence."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())
