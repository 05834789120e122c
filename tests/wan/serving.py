"""`gkt wan serve` as a user runs it: a process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx


@dataclass
class ServedWan:
    control: str
    process: asyncio.subprocess.Process
    http: httpx.AsyncClient

    async def address(self, link: str) -> tuple[str, int]:
        host, port = (await self.http.get(f"/v1/links/{link}")).json()["listens"].split(":")
        return host, int(port)

    async def stop(self, signum: int = signal.SIGTERM) -> int:
        self.process.send_signal(signum)
        return await self.process.wait()


@asynccontextmanager
async def served(folder: Path, *options: str) -> AsyncGenerator[ServedWan]:
    port_file = folder / "port"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gkt", "wan", "serve", "--control", "0", "--port-file", str(port_file), *options),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "TERM": "dumb"},
    )
    assert process.stderr
    complaints = asyncio.create_task(process.stderr.read())
    try:
        while not port_file.exists():
            assert process.returncode is None, (await complaints).decode()
            await asyncio.sleep(0.02)
        url = f"http://127.0.0.1:{port_file.read_text().strip()}"
        async with httpx.AsyncClient(base_url=url) as http:
            yield ServedWan(url, process, http)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await complaints
