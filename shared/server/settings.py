"""What the settings of every service of ours say of how it is served."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from shared.errors import ConfigurationError
from shared.observability.logs import LogFormat
from shared.validation import first_problem

S = TypeVar("S", bound=BaseSettings)


class ServiceSettings(BaseSettings):
    """Each service has its own prefix in the environment. Frozen once read; an unknown field is an error."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8080, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    port_file: str | None = Field(default=None, description="file to write the bound port to, once listening")
    max_body_bytes: int = Field(default=2_000_000, ge=1000, description="size of a request body, at most")
    shutdown_grace_s: int = Field(
        default=20, ge=0, description="what is under way may take this long to end at shutdown"
    )
    log_level: str = Field(
        default="info", pattern="^(debug|info|warning|error)$", description="debug, info, warning or error"
    )
    log_format: LogFormat = Field(
        default="text",
        description="`json`: one object a line, with the ids of request and trace, and no text of prompts",
    )
    trace_content: bool = Field(
        default=False, description="have traces hold the text of prompts and answers too, where traces are on"
    )


def read_settings(kind: type[S], **given: Any) -> S:
    """Return settings from `given` and the environment, in this order of precedence.

    Raises ConfigurationError, which names the variable at fault and never contains its value.
    """
    try:
        return kind(**given)
    except ValidationError as error:
        problem = first_problem(error)
        variable = kind.model_config["env_prefix"] + problem.field.partition(".")[0].upper()
        raise ConfigurationError(f"{variable}: {problem.message}") from None
    except SettingsError as error:
        raise ConfigurationError(str(error)) from None
