"""The models that gkt knows by name, and how any model's file gets onto this machine.

Under `home()`: `models/NAME/model.gguf` is a file that was verified, with `verified.json` beside it to say which; `partial/NAME/`
is a download under way; `converted/` is `cloud_teacher.model_files.conversion`'s.
A file enters `models/` by a rename, after its size and
sha256 were found right, so it is whole or absent. One process at a time works on a model; the others wait and find it done.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import shutil
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

import platformdirs
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from shared.atomic_file import write_atomically
from shared.errors import ConfigurationError, ModelError, SourceUnavailable, UnknownModelName, WrongDigest
from shared.model_hub.downloads import Source, hub_file
from shared.model_hub.progress import Progress, Silent
from shared.validation import describe

_HUB_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?::(?P<file>[^:]+\.gguf))?")

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Role(StrEnum):
    """What a model is good for here."""

    TEACHER = "teacher"
    STUDENT = "student"


class ModelEntry(BaseModel):
    """One model of the catalogue. `bytes` and `sha256` are of the GGUF file, whichever source it comes from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    title: str
    licence: str = Field(description="SPDX identifier")
    roles: tuple[Role, ...] = Field(min_length=1)
    bytes: int = Field(gt=0)
    sha256: Sha256
    sources: tuple[Source, ...] = Field(min_length=1)


class Catalog(BaseModel):
    """All models that have a name of ours, in the order of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: Mapping[str, ModelEntry]

    @field_validator("models", mode="before")
    @classmethod
    def _named(cls, models: object) -> object:
        """The key of each table is the model's name."""
        if not isinstance(models, dict):
            return models
        return {name: {**entry, "name": name} if isinstance(entry, dict) else entry for name, entry in models.items()}

    @classmethod
    def load(cls, path: Path | None = None) -> Self:
        """Read a catalogue, by default the one that comes with gkt. Raises ConfigurationError where it holds something else."""
        path = path or Path(__file__).with_name("catalog.toml")
        try:
            return cls.model_validate(tomllib.loads(path.read_text("utf-8")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigurationError(f"the catalogue {path} cannot be read: {error}") from error
        except ValidationError as error:
            raise ConfigurationError(f"the catalogue {path}: {describe(error)}") from error

    def get(self, name: str) -> ModelEntry:
        """Raises UnknownModelName, which lists the names that come near."""
        try:
            return self.models[name]
        except KeyError:
            near = difflib.get_close_matches(name, self.models, n=3, cutoff=0.4) or list(self.models)
            raise UnknownModelName(
                f"no model is called {name!r}. Near: {', '.join(near)}. "
                "A path to a GGUF file, or owner/repo:file.gguf on the model hub, is taken too"
            ) from None


def home() -> Path:
    """Where gkt keeps its files: `GKT_HOME`, else the user's cache folder (XDG). Looked up at each call; may not exist yet."""
    if chosen := os.environ.get("GKT_HOME"):
        return Path(chosen).expanduser()
    return platformdirs.user_cache_path("gkt")


def gguf_path(entry: ModelEntry) -> Path:
    """Where the file of a model is, or would be."""
    return home() / "models" / entry.name / "model.gguf"


def ensure_gguf(name: str, *, progress: Progress | None = None, catalog: Catalog | None = None) -> Path:
    """The path of a model's GGUF file, fetched and verified where it is missing.

    `name` is a name of the catalogue, a path to a GGUF of the user's own (taken as it is), or `owner/repo:file.gguf` on the
    model hub (`owner/repo` will do where it holds one GGUF, or one Q4_K_M). Where the file was verified before and has not
    changed since, this costs no more than a stat.

    Raises UnknownModelName; SourceUnavailable where no source delivered, WrongDigest where one delivered something else: both
    say what each source answered. ModelError where the file cannot be stored. A good file in place survives all of them.
    """
    progress = progress or Silent()
    catalog = catalog or Catalog.load()
    path = Path(name).expanduser()
    if name in catalog.models:
        return _ensure(catalog.models[name], progress)
    if path.is_file():
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise UnknownModelName(f"{path} is not a GGUF file")
        return path.resolve()
    if path.is_absolute() or name.startswith((".", "~")) or (name.endswith(".gguf") and ":" not in name):
        raise UnknownModelName(f"{path}: no such file")
    if match := _HUB_NAME.fullmatch(name):
        progress.start(f"fetching {name} from the model hub", None)
        try:
            return hub_file(match["repo"], match["file"], progress=progress)
        finally:
            progress.finish()
    return _ensure(catalog.get(name), progress)


def verified(entry: ModelEntry) -> bool:
    """Whether the file in place was found right and has not been written to since. Reads none of it."""
    try:
        stat = gguf_path(entry).stat()
        stamp = _Stamp.model_validate_json(_stamp_path(entry).read_bytes())
    except (OSError, ValidationError):
        return False
    return stamp == _Stamp(sha256=entry.sha256, bytes=stat.st_size, mtime_ns=stat.st_mtime_ns)


def verify(name: str, *, progress: Progress | None = None, catalog: Catalog | None = None) -> Path:
    """Read the whole file of a model of the catalogue again and compare it with what is pinned.

    Raises UnknownModelName, ModelError where it isn't here, WrongDigest where it is not what it should be: then the next
    `ensure_gguf` fetches it again.
    """
    progress = progress or Silent()
    entry = (catalog or Catalog.load()).get(name)
    path = gguf_path(entry)
    if not path.is_file():
        raise ModelError(f"{name} is not here; gkt models pull {name} fetches it")
    with FileLock(path.with_name("lock")):
        _stamp_path(entry).unlink(missing_ok=True)
        _check(entry, path, progress)
        _stamp(entry, path)
    return path


class _Stamp(BaseModel):
    """Which file was found right. Another size or time of change makes it another file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: Sha256
    bytes: int
    mtime_ns: int


def _stamp_path(entry: ModelEntry) -> Path:
    return gguf_path(entry).with_name("verified.json")


def _stamp(entry: ModelEntry, path: Path) -> None:
    stat = path.stat()
    stamp = _Stamp(sha256=entry.sha256, bytes=stat.st_size, mtime_ns=stat.st_mtime_ns)
    write_atomically(_stamp_path(entry), stamp.model_dump_json())


def _ensure(entry: ModelEntry, progress: Progress) -> Path:
    path = gguf_path(entry)
    if verified(entry):
        return path
    lock = FileLock(path.with_name("lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            progress.start(f"waiting for another process to fetch {entry.name}", None)
            try:
                lock.acquire()
            finally:
                progress.finish()
        try:
            if not verified(entry):
                if not _is_right(entry, path, progress):
                    _fetch(entry, path, progress)
                _stamp(entry, path)
        finally:
            lock.release()
    except OSError as error:
        raise ModelError(f"{entry.name} cannot be stored under {home()}: {error}") from error
    return path


def _fetch(entry: ModelEntry, path: Path, progress: Progress) -> None:
    """Bring the right file to `path` from the first source that has it, or leave what is there alone."""
    partial = home() / "partial" / entry.name
    failures: list[str] = []
    kind: type[ModelError] = SourceUnavailable
    for source in entry.sources:
        progress.start(f"fetching {entry.name} ({source.kind})", entry.bytes)
        try:
            candidate = source.fetch(partial, entry.bytes, progress)
        except SourceUnavailable as error:
            failures.append(f"{source}: {error}")
            continue
        finally:
            progress.finish()
        try:
            _check(entry, candidate, progress)
        except WrongDigest as error:  # whatever it was made of is no better
            kind = WrongDigest
            failures.append(f"{source}: {error}")
            shutil.rmtree(partial)
            continue
        candidate.replace(path)
        shutil.rmtree(partial, ignore_errors=True)
        return
    raise kind(f"{entry.name} cannot be had. " + "; ".join(failures))


def _is_right(entry: ModelEntry, path: Path, progress: Progress) -> bool:
    try:
        _check(entry, path, progress)
    except (FileNotFoundError, WrongDigest):
        return False
    return True


def _check(entry: ModelEntry, path: Path, progress: Progress) -> None:
    """Raises WrongDigest, which says what it got and what it wanted."""
    size, digest = path.stat().st_size, hashlib.sha256()
    progress.start(f"verifying {entry.name}", size)
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
                progress.advance(len(chunk))
    finally:
        progress.finish()
    if (size, digest.hexdigest()) != (entry.bytes, entry.sha256):
        raise WrongDigest(
            f"got {size:,} bytes with sha256 {digest.hexdigest()}, wanted {entry.bytes:,} bytes with {entry.sha256}"
        )
