"""Model files on this machine.

Under `home()`, `models/NAME/model.gguf` is a verified file, with `verified.json` beside it; `partial/NAME/` is a download in
progress; `converted/` belongs to `cloud_teacher.model_files.conversion`. A file is renamed into `models/` after its size and
sha256 were verified, so it is whole or absent. One process at a time works on a model; other processes wait for it.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from shared.atomic_file import write_atomically
from shared.errors import ModelError, SourceUnavailable, UnknownModelName, WrongDigest
from shared.home import home
from shared.model_hub.catalog import Catalog, ModelEntry, Sha256
from shared.model_hub.downloads import hub_file
from shared.model_hub.progress import Progress, Silent

_HUB_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?::(?P<file>[^:]+\.gguf))?")


def gguf_path(entry: ModelEntry) -> Path:
    """Return the path of a model's file, which may not exist yet."""
    return home() / "models" / entry.name / "model.gguf"


def ensure_gguf(name: str, *, progress: Progress | None = None, catalog: Catalog | None = None) -> Path:
    """Return the path of a model's GGUF file; download and verify it if it is missing.

    `name` is a name of the catalogue, a path to a GGUF file (which is not verified), or `owner/repo:file.gguf` on the model hub
    (`owner/repo` is enough if it holds one GGUF, or one Q4_K_M). A file that was verified before and has not changed costs no
    more than a stat.

    Raises UnknownModelName; SourceUnavailable if no source delivered and WrongDigest if one delivered another file, both with
    the error of each source; ModelError if the file cannot be stored. A verified file survives all of these errors.
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
    """Return True if the file was verified and has not changed since. The file is not read."""
    try:
        stat = gguf_path(entry).stat()
        stamp = _Stamp.model_validate_json(_stamp_path(entry).read_bytes())
    except (OSError, ValidationError):
        return False
    return stamp == _Stamp(sha256=entry.sha256, bytes=stat.st_size, mtime_ns=stat.st_mtime_ns)


def verify(name: str, *, progress: Progress | None = None, catalog: Catalog | None = None) -> Path:
    """Read the whole file of a catalogue model again and compare its size and sha256 with the catalogue's.

    Raises UnknownModelName, ModelError if the file is missing, WrongDigest if it differs; the next `ensure_gguf` then downloads
    it again.
    """
    progress = progress or Silent()
    entry = (catalog or Catalog.load()).get(name)
    path = gguf_path(entry)
    if not path.is_file():
        raise ModelError(f"{name} is not downloaded. Download it with: gkt models pull {name}")
    with FileLock(path.with_name("lock")):
        _stamp_path(entry).unlink(missing_ok=True)
        _check(entry, path, progress)
        _stamp(entry, path)
    return path


class _Stamp(BaseModel):
    """Identity of a verified file. A file with another size or modification time is not verified."""

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
                if not _matches(entry, path, progress):
                    _fetch(entry, path, progress)
                _stamp(entry, path)
        finally:
            lock.release()
    except OSError as error:
        raise ModelError(f"{entry.name} cannot be stored under {home()}: {error}") from error
    return path


def _fetch(entry: ModelEntry, path: Path, progress: Progress) -> None:
    """Download the file to `path` from the first source that delivers it. On failure the old file stays."""
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
        except WrongDigest as error:  # its parts are of no use either
            kind = WrongDigest
            failures.append(f"{source}: {error}")
            shutil.rmtree(partial)
            continue
        candidate.replace(path)
        shutil.rmtree(partial, ignore_errors=True)
        return
    raise kind(f"no source delivered {entry.name}: " + "; ".join(failures))


def _matches(entry: ModelEntry, path: Path, progress: Progress) -> bool:
    try:
        _check(entry, path, progress)
    except (FileNotFoundError, WrongDigest):
        return False
    return True


def _check(entry: ModelEntry, path: Path, progress: Progress) -> None:
    """Raise WrongDigest if size or sha256 differ from the catalogue's."""
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
            f"expected {entry.bytes:,} bytes with sha256 {entry.sha256}, got {size:,} bytes with {digest.hexdigest()}"
        )
