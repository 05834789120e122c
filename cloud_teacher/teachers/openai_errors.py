"""Translates errors of an upstream server into GktErrors. The server's own message may hold user text, and is dropped."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from shared.errors import EngineFailed, GktError, InvalidRequest, NotReady, Overloaded, TooManyRequests

if TYPE_CHECKING:
    from collections.abc import Generator

DEFAULT_RETRY_AFTER_S = 2.0


@contextmanager
def translate_errors(*, streaming: bool = False) -> Generator[None]:
    """Raises NotReady, Overloaded, TooManyRequests, InvalidRequest, EngineFailed.

    `streaming` means that the response has begun, so that a lost connection is a failure of the engine.
    """
    from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError

    try:
        yield
    except GktError:
        raise
    except APIStatusError as error:
        match error.status_code:
            case 429:
                raise TooManyRequests(
                    "the upstream's rate limit was reached", retry_after_s=_retry_after_s(error)
                ) from error
            case 503:
                raise Overloaded("the upstream is overloaded", retry_after_s=_retry_after_s(error)) from error
            case 502 | 504:
                raise NotReady("the upstream's gateway cannot reach it", retry_after_s=_retry_after_s(error)) from error
            case 400 | 422:
                raise InvalidRequest("the upstream rejected the request") from error
        raise EngineFailed(f"the upstream answered with status {error.status_code}") from error
    except APIConnectionError as error:
        if streaming:
            timed_out = isinstance(error, APITimeoutError)
            raise EngineFailed(
                "the upstream stopped sending" if timed_out else "the upstream closed the connection"
            ) from error
        raise NotReady("the upstream cannot be reached", retry_after_s=DEFAULT_RETRY_AFTER_S) from error
    except APIError as error:
        raise EngineFailed(f"the upstream failed while streaming: {type(error).__name__}") from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        # The client accepts any JSON as a response, and fails later if it is none.
        raise EngineFailed(f"unexpected response from the upstream: {type(error).__name__}") from error


def _retry_after_s(error: Any) -> float:
    try:
        return max(0.0, float(error.response.headers.get("retry-after", DEFAULT_RETRY_AFTER_S)))
    except ValueError:
        return DEFAULT_RETRY_AFTER_S
