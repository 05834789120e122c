"""Settings that all services share, and the reader of settings."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from shared.errors import ConfigurationError
from shared.observability.logs import LogFormat
from shared.validation import first_problem

S = TypeVar("S", bound=BaseSettings)


class ServiceSettings(BaseSettings):
    """Settings of a server. Each service has its own prefix in the environment."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8080, ge=0, le=65535, description="port to listen on. At 0 the system chooses a free one")
    port_file: str | None = Field(default=None, description="file for the bound port, written when the service listens")
    max_body_bytes: int = Field(default=2_000_000, ge=1000, description="upper bound of a request body")
    shutdown_grace_s: int = Field(default=20, ge=0, description="time that active requests have to finish at shutdown")
    log_level: str = Field(
        default="info", pattern="^(debug|info|warning|error)$", description="log level: debug, info, warning or error"
    )
    log_format: LogFormat = Field(
        default="text",
        description="log format. `json` writes one object per line, with the ids of request and trace, and no text of prompts",
    )
    trace_content: bool = Field(default=False, description="include the text of prompts and answers in traces")


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
