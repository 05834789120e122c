"""The error tree. Each class has an HTTP status and a stable code; no code matches errors by their text.

GktError
├── ClientError                      the caller can correct it
│   ├── InvalidRequest        400    invalid_request
│   │   ├── PromptTooLong     400    prompt_too_long
│   │   ├── BudgetTooLarge    400    budget_too_large
│   │   ├── BodyDamaged       400    body_damaged
│   │   └── Unsupported       400    unsupported_by_teacher
│   │       ├── ReviewUnsupported      400    review_unsupported
│   │       └── ContinuationUnsupported     400    continuation_unsupported
│   ├── Unauthorized          401    invalid_api_key
│   ├── Forbidden             403    forbidden
│   ├── NotFound              404    not_found
│   │   ├── UnknownModel      404    model_not_found
│   │   └── UnknownTemplate   404    template_not_found
│   ├── Conflict              409    conflict
│   ├── BodyTooLarge          413    body_too_large
│   ├── TooManyRequests       429    too_many_requests
│   │   └── BudgetSpent       429    budget_spent
│   └── ClientDisconnected    499    client_disconnected
├── ServerError                      only the service can correct it
│   ├── InternalError         500    internal_error
│   ├── EngineFailed          500    engine_failed
│   ├── NotReady              503    not_ready
│   ├── StoreFailed           503    store_failed
│   └── Overloaded            503    overloaded
├── StreamError                      an invalid stream of events
│   ├── StreamBroken                 it ended without its terminal event
│   └── StreamGarbled                it does not follow the protocol
├── ModelError                       a model is not available
│   ├── UnknownModelName             its name is not in the catalogue, a path or a hub name
│   ├── SourceUnavailable            no source delivered it
│   └── WrongDigest                  a source delivered another file
└── ConfigurationError               settings, files or options are wrong
"""

from __future__ import annotations

from typing import ClassVar


class GktError(Exception):
    """Root of all errors of gkt.

    `param` names the request field at fault, if there is one. `retry_after_s` is the time after which a retry can succeed.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    kind: ClassVar[str] = "server_error"
    """OpenAI's `type` in the error object."""

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    @property
    def retryable(self) -> bool:
        """True if the same request can succeed later."""
        return self.status in {429, 503}


class ClientError(GktError):
    kind = "invalid_request_error"
    status = 400
    code = "invalid_request"


class InvalidRequest(ClientError):
    pass


class PromptTooLong(InvalidRequest):
    code = "prompt_too_long"


class BudgetTooLarge(InvalidRequest):
    code = "budget_too_large"


class BodyDamaged(InvalidRequest):
    code = "body_damaged"


class Unsupported(InvalidRequest):
    """The teacher does not support the request; another one may."""

    code = "unsupported_by_teacher"


class ReviewUnsupported(Unsupported):
    """The teacher cannot score text that it did not write."""

    code = "review_unsupported"


class ContinuationUnsupported(Unsupported):
    """The teacher cannot continue the beginning of an answer."""

    code = "continuation_unsupported"


class Unauthorized(ClientError):
    status = 401
    code = "invalid_api_key"


class Forbidden(ClientError):
    status = 403
    code = "forbidden"


class Conflict(ClientError):
    status = 409
    code = "conflict"


class NotFound(ClientError):
    status = 404
    code = "not_found"


class UnknownModel(NotFound):
    code = "model_not_found"


class UnknownTemplate(NotFound):
    code = "template_not_found"


class BodyTooLarge(ClientError):
    status = 413
    code = "body_too_large"


class TooManyRequests(ClientError):
    kind = "rate_limit_error"
    status = 429
    code = "too_many_requests"


class BudgetSpent(TooManyRequests):
    """The daily budget of a key is used up."""

    code = "budget_spent"


class ClientDisconnected(ClientError):
    """The client disconnected before its response. Proxies log 499 for it."""

    status = 499
    code = "client_disconnected"


class ServerError(GktError):
    pass


class InternalError(ServerError):
    pass


class EngineFailed(ServerError):
    code = "engine_failed"


class NotReady(ServerError):
    status = 503
    code = "not_ready"


class StoreFailed(ServerError):
    """Usage cannot be recorded, so the request is rejected."""

    status = 503
    code = "store_failed"


class Overloaded(ServerError):
    status = 503
    code = "overloaded"


class StreamError(GktError):
    code = "stream_error"


class StreamBroken(StreamError):
    code = "stream_broken"


class StreamGarbled(StreamError):
    code = "stream_garbled"


class ModelError(GktError):
    code = "model_error"


class UnknownModelName(ModelError):
    code = "unknown_model_name"


class SourceUnavailable(ModelError):
    code = "source_unavailable"


class WrongDigest(ModelError):
    code = "wrong_digest"


class ConfigurationError(GktError):
    code = "configuration_error"
