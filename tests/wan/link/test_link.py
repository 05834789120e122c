"""A link that works delays and forwards, on real sockets."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from shared.errors import ConfigurationError
from tests.wan.targets import client, echo, linked, target, until
from wan import Link, Wan
from wan.link.pipe import WINDOW_BYTES
from wan.network import UnknownLink

CLOCK_S = 0.001
"""Time by which a timer may fire early."""


def noise(length: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(length)


async def test_many_connections_at_once_and_every_byte_is_counted() -> None:
    sizes = [random.Random(i).randrange(1, 300_000) for i in range(100)]

    async def one(link: Link, seed: int) -> None:
        async with client(link) as c:
            data = noise(sizes[seed], seed)
            c.writer.write(data)
            c.writer.write_eof()
            assert await c.rest() == data

    async with linked() as link:
        await asyncio.gather(*(one(link, i) for i in range(100)))
        await until(lambda: link.live == 0)
        state = link.state
    assert (state.bytes_up, state.bytes_down, state.under_way) == (sum(sizes), sum(sizes), 0)
    assert (state.opened, state.unreachable, state.faults) == (100, 0, {})


async def test_an_end_in_one_direction_leaves_the_other_open() -> None:
    async def server_ends_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.write_eof()
        heard.append(await reader.read(-1))
        gone.set()

    heard: list[bytes] = []
    gone = asyncio.Event()
    async with linked(server_ends_first) as link, client(link) as c:
        assert await c.rest() == b"hello"
        assert link.live == 1
        c.writer.write(b"and more")
        c.writer.write_eof()
        await gone.wait()
        await until(lambda: link.live == 0)
    assert heard == [b"and more"]


async def test_a_round_trip_takes_the_latency_at_least() -> None:
    clock = asyncio.get_running_loop().time
    async with linked() as link:
        link.set(latency="80ms")
        began = clock()
        async with client(link) as c:
            await c.ask(b"a")
            assert clock() - began >= 0.16 - CLOCK_S, "to connect is a round trip too"
            began = clock()
            await c.ask(b"b")
            assert clock() - began >= 0.08 - CLOCK_S


async def test_bandwidth_is_shared_by_connections_and_each_way_has_its_own() -> None:
    clock = asyncio.get_running_loop().time
    async with linked() as link:
        link.set(up="800kbit")
        async with client(link) as first, client(link) as second:
            began = clock()
            data = noise(20_000)
            answers = await asyncio.gather(*(c.ask(data) for c in (first, second)))
            assert clock() - began >= 0.38, "40 kB at 100 kB/s, less the burst"
            assert answers == [data, data]
            assert link.conditions.down_kbit is None


async def test_jitter_never_changes_the_order() -> None:
    async with linked() as link, client(link) as c:
        link.set(jitter="10ms")
        sent = bytearray()
        for i in range(100):
            piece = b"%d," % i
            sent += piece
            c.writer.write(piece)
            await asyncio.sleep(0)
        c.writer.write_eof()
        assert await c.rest() == sent


async def test_changes_hold_for_what_is_under_way() -> None:
    async with linked() as link, client(link) as c:
        link.set(latency="60s")
        asking = asyncio.create_task(c.ask(b"x"))
        link.set(latency="0ms")
        assert await asking == b"x"
        link.set(bandwidth="1kbit")
        data = noise(200_000)
        asking = asyncio.create_task(c.ask(data))
        await until(lambda: link.under_way > 0)
        link.set(bandwidth="unlimited")
        assert await asking == data
        link.set(latency="60s")
        asking = asyncio.create_task(c.ask(b"y"))
        await until(lambda: link.under_way > 0)
        link.set(latency="0ms")
        assert await asking == b"y"


async def test_a_reader_that_never_reads_holds_back_whoever_sends() -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await released.wait()

    connected, released = asyncio.Event(), asyncio.Event()
    async with linked(deaf) as link:
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, tuple(link.address))
            await connected.wait()
            sending = asyncio.create_task(loop.sock_sendall(sock, bytes(64_000_000)))
            await until(lambda: link.under_way == WINDOW_BYTES)
            await until_still(lambda: link.up.bytes)
            assert link.under_way == WINDOW_BYTES
            assert not sending.done()
            sending.cancel()
        released.set()


async def until_still(read: Callable[[], int]) -> None:
    """Wait until a figure has not grown for many turns of the event loop."""
    same = 0
    before = read()
    while same < 50:
        await asyncio.sleep(0.002)
        same = same + 1 if read() == before else 0
        before = read()


async def test_a_client_that_resets_is_passed_on_behind_its_bytes() -> None:
    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(100):
                heard.append(data)
        except ConnectionResetError:
            heard.append(b"RESET")
        gone.set()

    heard: list[bytes] = []
    gone = asyncio.Event()
    async with linked(listen) as link:
        link.set(latency="20ms")
        sock = socket.create_connection(link.address)
        sock.sendall(b"last words")
        await until(lambda: link.under_way > 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
        sock.close()
        await gone.wait()
        await until(lambda: link.live == 0)
    assert b"".join(heard) == b"last wordsRESET"


async def test_what_a_target_said_before_it_reset_arrives_first() -> None:
    """The target answers and closes without reading the body, as a service does that rejects it."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(1))
        await reader.readexactly(1)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(answer)
        deaf.set()
        await more_came.wait()

    answer = noise(50_000)
    deaf, more_came = asyncio.Event(), asyncio.Event()
    async with linked(refuse) as link, client(link) as c:
        await c.ask(b"?")
        link.down.shape(delay_s=60, jitter_s=0, rate=None)
        c.writer.write(b"?")
        await deaf.wait()
        await until(lambda: link.under_way == len(answer))
        c.writer.write(bytes(1000))
        await until(lambda: link.up.bytes == 1002)
        more_came.set()
        for _ in range(50):
            c.writer.write(b"x")
            await asyncio.sleep(0.002)
        assert link.live == 1
        assert link.up.bytes < 1052, "the target is gone"
        link.down.shape(delay_s=0, jitter_s=0, rate=None)
        assert await c.rest() == answer
        await until(lambda: link.live == 0)


async def test_a_target_that_is_not_there_resets_the_client() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        async with Wan({"edge": "0"}, to=str(port)) as wan:
            link = wan.link("edge")
            async with client(link) as c:
                with pytest.raises(ConnectionResetError):
                    await c.reader.read(1)
            assert (link.unreachable, link.opened) == (1, 1)


@pytest.mark.parametrize("state", ["working", "stalled", "slow", "far", "connecting", "train"])
async def test_nothing_is_left_of_a_link_that_is_closed_while_it_is_in_use(state: str) -> None:
    async with target(echo) as address:
        before = handles(), asyncio.all_tasks()
        async with AsyncExitStack() as stack:
            wan = await stack.enter_async_context(Wan({"edge": "0"}, to=address))
            link = wan.link("edge")
            if state == "connecting":
                link.set(latency="60s")
            clients = [await stack.enter_async_context(client(link)) for _ in range(20)]
            if state != "connecting":
                for c in clients:
                    await c.ask(b"x")
            await until(lambda: link.live == 20)
            if state == "stalled":
                link.stall()
            elif state == "slow":
                link.set(bandwidth="1kbit")
            elif state == "far":
                link.set(latency="60s")
            elif state == "train":
                link.profile("train")
            for c in clients:
                c.writer.write(noise(100_000))
            await asyncio.sleep(0.01)
            await wan.close()
            assert (link.live, link.under_way) == (0, 0)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*link.address)
        await until(lambda: handles() == before[0] and asyncio.all_tasks() == before[1])


def handles() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_port_in_use_and_a_name_that_is_not_there() -> None:
    async with Wan({"a": "0"}, to="1") as wan:
        where = str(wan.link("a").address)
        with pytest.raises(ConfigurationError, match=f"b cannot listen on {where}: Address already in use"):
            await Wan({"c": "0", "b": where}, to="1").open()
        with pytest.raises(UnknownLink, match="link 'z' not found; available links: a"):
            wan.link("z")
