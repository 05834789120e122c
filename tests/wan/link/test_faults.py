"""Every fault, on real sockets, during live connections."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack

import pytest

from tests.wan.targets import client, echo, linked, target, until
from wan import Direction, FaultKind, Link, Wan

DATA = random.Random(1).randbytes(100_000)


async def gives(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends the data after the first byte of a request."""
    await reader.readexactly(1)
    writer.write(DATA)
    await writer.drain()
    await reader.read(-1)


class Takes:
    """Records what it receives, and how the connection ended."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.end = asyncio.get_running_loop().create_future()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                self.heard += data
            self.end.set_result("end")
        except ConnectionResetError:
            self.end.set_result("reset")


async def refused(link: Link) -> bool:
    try:
        async with client(link) as c:
            return await c.ask(b"x") != b"x"
    except ConnectionRefusedError:
        return True


async def test_cut_closes_what_lives_and_refuses_what_comes_until_it_is_resumed() -> None:
    async with linked() as link, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client(link)) for _ in range(100)]
        for c in clients:
            await c.ask(b"x")
        link.cut()
        assert link.live == 0
        assert [await c.rest() for c in clients] == [b""] * 100
        assert await refused(link)
        link.cut()
        assert await refused(link)
        link.resume()
        assert not await refused(link)
        assert link.faults == {FaultKind.CUT: 2}


async def test_cut_and_resumed_in_one_breath_it_still_closes() -> None:
    async with linked() as link, client(link) as old:
        await old.ask(b"x")
        link.cut()
        link.resume()
        assert await old.rest() == b""
        assert not await refused(link)


async def test_both_ends_of_a_cut_see_an_end_and_those_of_a_reset_a_reset() -> None:
    for fault, seen in (("cut", "end"), ("reset", "reset")):
        takes = Takes()
        async with linked(takes) as link, client(link) as c:
            c.writer.write(b"x")
            await until(lambda link=link: link.up.bytes == 1)  # type: ignore[misc]
            getattr(link, fault)()
            assert await takes.end == seen
            if fault == "reset":
                with pytest.raises(ConnectionResetError):
                    await c.reader.read(1)
            else:
                assert await c.reader.read(1) == b""


async def test_after_a_reset_new_connections_are_served() -> None:
    async with linked() as link, client(link) as c:
        await c.ask(b"x")
        link.reset()
        assert not await refused(link)
        assert link.fault is None


async def test_refuse_leaves_what_lives_alone() -> None:
    async with linked() as link, client(link) as c:
        await c.ask(b"x")
        link.refuse()
        assert await refused(link)
        assert await c.ask(b"yes") == b"yes"
        link.resume()
        assert not await refused(link)


async def test_stall_keeps_every_byte_and_resume_lets_them_pass() -> None:
    async with target(echo) as address, Wan({"a": "0", "b": "0"}, to=address) as wan:
        stalled, other = wan.link("a"), wan.link("b")
        async with client(stalled) as c, client(other) as witness:
            await c.ask(b"x")
            await witness.ask(b"x")
            stalled.stall()
            asking = asyncio.create_task(c.ask(DATA))
            for _ in range(20):
                await witness.ask(DATA)
            assert stalled.state.stalled
            assert (stalled.up.bytes, stalled.down.bytes, stalled.live) == (1, 1, 1)
            assert not asking.done()
            late = await asyncio.open_connection(*stalled.address)
            stalled.resume()
            assert await asking == DATA
            late[1].write(b"late")
            assert await late[0].readexactly(4) == b"late"
            late[1].close()
        assert not other.state.stalled


async def test_a_stall_of_one_direction_lets_the_other_pass() -> None:
    takes = Takes()
    async with linked(takes) as link, client(link) as c:
        link.stall(direction="down")
        c.writer.write(DATA)
        c.writer.write_eof()
        assert await takes.end == "end"
        assert takes.heard == DATA
        assert link.live == 1, "the server's end is still on its way"
        link.resume()
        assert await c.rest() == b""


@pytest.mark.parametrize("fault", ["cut", "reset", "stall"])
@pytest.mark.parametrize("after", [1, 1234, 99_999])
async def test_exactly_so_many_bytes_come_down_before_it(fault: str, after: int) -> None:
    async with linked(gives) as link, client(link) as c:
        getattr(link, fault)(direction="down", after_bytes=after)
        assert link.state.armed is not None
        assert link.state.armed.after_bytes == after
        c.writer.write(b"?")
        received = await c.reader.readexactly(after)
        await until(lambda: link.faults[FaultKind(fault)] == 1)
        assert link.down.bytes == after
        if fault == "stall":
            link.resume()
            received += await c.reader.readexactly(len(DATA) - after)
            assert received == DATA
        else:
            assert await c.rest() == b""
            assert received == DATA[:after]
        assert link.state.armed is None


@pytest.mark.parametrize("direction", ["up", "both"])
async def test_exactly_so_many_bytes_go_up_before_it(direction: Direction) -> None:
    takes = Takes()
    async with linked(takes) as link, client(link) as c:
        link.cut(direction=direction, after_bytes=70_001)
        c.writer.write(DATA)
        await takes.end
        assert takes.heard == DATA[:70_001]
        assert link.up.bytes == 70_001


async def test_an_armed_fault_counts_all_connections_and_can_be_taken_back() -> None:
    async with linked() as link, client(link) as first, client(link) as second:
        link.cut(direction="down", after_bytes=10)
        await first.ask(b"1234")
        await second.ask(b"1234")
        assert link.state.armed is not None
        assert link.state.armed.after_bytes == 2
        link.resume()
        assert link.state.armed is None
        assert await first.ask(DATA) == DATA
        link.cut(direction="down", after_bytes=3)
        second.writer.write(b"12345")
        assert await second.rest() == b"123"
        assert await first.rest() == b""
        assert await refused(link)


async def test_corrupted_bytes_are_the_same_for_the_same_seed() -> None:
    async def asked(**options: object) -> bytes:
        async with linked() as link, client(link) as c:
            link.corrupt(direction="down", **options)  # type: ignore[arg-type]
            return await c.ask(DATA)

    once = await asked(rate=0.01, seed=1)
    assert once == await asked(rate=0.01, seed=1)
    assert once != await asked(rate=0.01, seed=2)
    wrong = sum(a != b for a, b in zip(once, DATA, strict=True))
    assert 0.005 < wrong / len(DATA) < 0.02
    late = await asked(rate=1.0, after_bytes=50_000)
    assert late[:50_000] == DATA[:50_000]
    assert all(a != b for a, b in zip(late[50_000:], DATA[50_000:], strict=True))


async def test_corruption_ends_with_resume_and_another_fault_takes_its_place() -> None:
    async with linked() as link, client(link) as c:
        link.corrupt(rate=1.0, direction="up")
        assert await c.ask(b"hello") != b"hello"
        link.resume()
        assert await c.ask(b"hello") == b"hello"
        link.corrupt(rate=1.0)
        link.refuse()
        assert await c.ask(b"hello") == b"hello"
