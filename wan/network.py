"""Several links to one target, in this event loop."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from shared.errors import ConfigurationError, NotFound
from wan.link.link import Link
from wan.link.profiles import profile
from wan.link.units import Address, address

logger = logging.getLogger("gkt.wan")


class UnknownLink(NotFound):
    code = "link_not_found"


class Wan:
    """Named links, each with a port of its own, all to one target.

        async with Wan({"edge-a": "127.0.0.1:0"}, to="127.0.0.1:8080") as wan:
            wan.link("edge-a").set(latency="80ms", bandwidth="2mbit")

    Addresses are `HOST:PORT`, or a port on loopback; port 0 takes a free one, which `Link.address` returns. Raises BadUnit for
    an invalid address.
    """

    def __init__(self, links: Mapping[str, str | Address], *, to: str | Address) -> None:
        target = address(to) if isinstance(to, str) else to
        self.links = {
            name: Link(name, address(where) if isinstance(where, str) else where, target)
            for name, where in links.items()
        }
        self._first: tuple[str, int] | None = None

    def begin_with(self, profile_name: str, *, seed: int = 0) -> None:
        """Start every link with a profile. Raises UnknownProfile."""
        profile(profile_name)
        self._first = profile_name, seed

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def open(self) -> None:
        """Open every link. Raises ConfigurationError if one cannot listen."""
        for link in self.links.values():
            try:
                await link.open()
            except OSError as error:
                await self.close()
                reason = error.strerror or str(error)
                raise ConfigurationError(f"{link.name} cannot listen on {link.address}: {reason}") from None
            if self._first:
                link.profile(self._first[0], seed=self._first[1])
            logger.info("%s listens on %s", link.name, link.address)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection and every port."""
        for link in self.links.values():
            await link.close()

    def link(self, name: str) -> Link:
        """Return a link by its name. Raises UnknownLink."""
        if name not in self.links:
            raise UnknownLink(f"link {name!r} not found; available links: {', '.join(self.links)}")
        return self.links[name]
