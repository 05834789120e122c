"""The control API: a FastAPI app that opens the links while it runs. Keep it private, because it requires no key."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI

from shared.errors import GktError
from shared.protocol.guidance import Health
from shared.server.app import create_service
from wan.link.conditions import Conditions
from wan.link.faults import CorruptOptions, Fault, FaultKind, FaultOptions
from wan.link.messages import Links, LinkState, ProfileChoice
from wan.metrics import registry_of
from wan.network import Wan

logger = logging.getLogger("gkt.wan")

MAX_BODY_BYTES = 10_000


def create_app(wan: Wan, *, fail: Callable[[], None] = lambda: None) -> FastAPI:
    """Create the app that opens the links at its start and closes them at its end. It calls `fail` if they cannot be opened."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        try:
            await wan.open()
        except GktError as error:
            logger.error("%s", error.message)
            fail()
        try:
            yield
        finally:
            await wan.close()

    registry = registry_of(wan)
    app = create_service(
        "gkt wan",
        lifespan=lifespan,
        readiness=lambda: Health(status="ok"),
        registries=lambda: [registry],
        max_body_bytes=MAX_BODY_BYTES,
    )
    app.include_router(_routes(wan))
    return app


def _routes(wan: Wan) -> APIRouter:
    router = APIRouter(prefix="/v1/links")

    @router.get("")
    async def links() -> Links:
        return Links(links=[link.state for link in wan.links.values()])

    @router.get("/{name}")
    async def show(name: str) -> LinkState:
        return wan.link(name).state

    @router.put("/{name}")
    async def put(name: str, conditions: Conditions) -> LinkState:
        """Replace all conditions; fields that are left out have no limit. An active fault stays."""
        wan.link(name).set_conditions(conditions)
        return wan.link(name).state

    @router.post("/{name}/resume")
    async def resume(name: str) -> LinkState:
        """End the active fault and cancel one that is armed."""
        wan.link(name).resume()
        return wan.link(name).state

    @router.post("/{name}/profile")
    async def profile(name: str, choice: ProfileChoice) -> LinkState:
        """Apply the conditions of a named profile, and only the fault of the profile."""
        wan.link(name).profile(choice.name, seed=choice.seed)
        return wan.link(name).state

    @router.post("/{name}/refuse")
    async def refuse(name: str) -> LinkState:
        wan.link(name).refuse()
        return wan.link(name).state

    @router.post("/{name}/corrupt")
    async def corrupt(name: str, options: CorruptOptions | None = None) -> LinkState:
        wan.link(name).strike(Fault(kind=FaultKind.CORRUPT, **(options or CorruptOptions()).model_dump()))
        return wan.link(name).state

    def add(kind: FaultKind) -> None:
        @router.post(f"/{{name}}/{kind}", name=kind)
        async def fault(name: str, options: FaultOptions | None = None) -> LinkState:
            """Start the fault now, or after `after_bytes` more bytes."""
            wan.link(name).strike(Fault(kind=kind, **(options or FaultOptions()).model_dump()))
            return wan.link(name).state

    for kind in (FaultKind.CUT, FaultKind.STALL, FaultKind.RESET):
        add(kind)
    return router
