"""A client of the control API."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from shared.errors import GktError, StreamGarbled
from shared.protocol.guidance import ErrorBody
from wan.link.conditions import Conditions
from wan.link.messages import Links, LinkState

TIMEOUT_S = 10


class ControlUnreachable(GktError):
    code = "wan_unreachable"


class ControlRefused(GktError):
    """The control API returned an error."""

    code = "wan_refused"


class Control:
    """Controls a running `gkt wan serve`. Raises ControlUnreachable, ControlRefused."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._http = httpx.Client(base_url=url, timeout=TIMEOUT_S, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def links(self) -> list[LinkState]:
        return Links.model_validate_json(self._ask("GET", "/v1/links")).links

    def link(self, name: str) -> LinkState:
        return LinkState.model_validate_json(self._ask("GET", _path(name)))

    def set_conditions(self, name: str, conditions: Conditions) -> LinkState:
        return LinkState.model_validate_json(self._ask("PUT", _path(name), conditions.model_dump()))

    def do(self, name: str, action: str, /, **options: Any) -> LinkState:
        """Run `cut`, `stall`, `reset`, `refuse`, `corrupt`, `resume` or `profile`, with the options of its endpoint."""
        return LinkState.model_validate_json(self._ask("POST", f"{_path(name)}/{action}", options))

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        try:
            response = self._http.request(method, path, json=body)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise ControlUnreachable(
                f"no control API of a wide-area link at {self._url} ({error}). Start one with: gkt wan serve (or set its "
                "address with --control)"
            ) from None
        if response.status_code == httpx.codes.OK:
            return response.content
        try:
            raise ControlRefused(ErrorBody.model_validate_json(response.content).error.message)
        except ValidationError:
            raise StreamGarbled(f"the server at {self._url} is not the control API of a wide-area link") from None


def _path(name: str) -> str:
    return f"/v1/links/{quote(name, safe='')}"
