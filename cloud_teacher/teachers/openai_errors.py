"""What goes wrong with a server, as an error of ours. Its own message is not for the edge: it may hold text."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from shared.errors import EngineFailed, GktError, InvalidRequest, NotReady, Overloaded, TooManyRequests

if TYPE_CHECKING:
    from collections.abc import Generator

RETRY_S = 2.0
"""Where the server does not say when to come again."""


@contextmanager
def translate_errors(*, begun: bool = False) -> Generator[None]:
    """Raises NotReady, Overloaded, TooManyRequests, InvalidRequest, EngineFailed. `begun`: it has answered with a stream."""
    from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError

    try:
        yield
    except GktError:
        raise
    except APIStatusError as error:
        match error.status_code:
            case 429:
                raise TooManyRequests("the upstream has enough of us", retry_after_s=_wait_s(error)) from error
            case 503:
                raise Overloaded("the upstream has no room", retry_after_s=_wait_s(error)) from error
            case 502 | 504:
                raise NotReady("the upstream is away behind its gateway", retry_after_s=_wait_s(error)) from error
            case 400 | 422:
                raise InvalidRequest("the upstream refuses the request") from error
        raise EngineFailed(f"the upstream answers with status {error.status_code}") from error
    except APIConnectionError as error:
        if begun:
            silent = isinstance(error, APITimeoutError)
            raise EngineFailed("the upstream has fallen silent" if silent else "the upstream broke off") from error
        raise NotReady("the upstream cannot be reached", retry_after_s=RETRY_S) from error
    except APIError as error:
        raise EngineFailed(f"the upstream broke off: {type(error).__name__}") from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        # The client takes any JSON for an answer, and what is none it cannot read.
        raise EngineFailed(f"the upstream sends what is no answer: {type(error).__name__}") from error


def _wait_s(error: Any) -> float:
    try:
        return max(0.0, float(error.response.headers.get("retry-after", RETRY_S)))
    except ValueError:
        return RETRY_S
