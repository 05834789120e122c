"""The figures of a small repository with one of each kind of thing to count."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]

FILES = {
    "README.md": "Five words, and two more\n",
    "cloud_teacher/__init__.py": "",
    "cloud_teacher/api/guidance.py": "",
    "cloud_teacher/guidance/job.py": '''"""Where jobs are."""
from typing import NamedTuple, Protocol

from shared.wire import GuidanceRequest


class Job:
    def __init__(self, request: GuidanceRequest | None) -> None:
        self.request = request


class Attempt(NamedTuple):
    job: Job


class Row(NamedTuple):
    request_id: str


class Jobs(NamedTuple):
    running: dict[str, Job]


class Starter(Protocol):
    job: Job
''',
    "cloud_teacher/store/ledger.py": "from cloud_teacher.guidance.job import Row\n",
    "edge_student/app.py": "",
    "edge_student/asking.py": "def ask(s):\n    return dict(top_p=s.top_p, top_k=s.top_k, min_p=s.min_p, temperature=1)\n",
    "evaluation/lab/runner.py": "\n\n\n",
    "shared/wire.py": """class GuidanceRequest:
    temperature: float = 0
    top_p: float = 1
    top_k: int = 0
    min_p: float = 0

    @property
    def greedy(self) -> bool:
        return self.top_p + self.top_k + self.min_p + self.temperature == 0
""",
}

FIGURES = {
    "root_files_cloud_teacher": 1,
    "root_files_edge_student": 2,
    "root_files_evaluation": 0,
    "root_files_evaluation_lab": 1,
    "bad_docstrings": 1,
    "sampling_copies": 2,
    "carrier_types": 2,
    "longest_class": 3,
    "evaluation_lines": 3,
    "readme_words": 5,
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    for path, content in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    subprocess.run(["git", "add", "."], cwd=folder, check=True)
    return folder


def structure(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.structure", *options]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)


def test_each_figure_is_counted_by_its_rule(repository: Path, tmp_path: Path) -> None:
    done = structure(repository, "--where", "--json", str(tmp_path / "figures.json"))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "figures.json").read_text()) == FIGURES
    for place in ["class Job\n", "class Attempt\n", "asking.py\n", "class GuidanceRequest\n", "job.py:1\n"]:
        assert place in done.stdout


def test_a_figure_that_is_too_high_fails_the_check(repository: Path) -> None:
    assert structure(repository, "--check").returncode == 1
    module = repository / "cloud_teacher/guidance/job.py"
    module.write_text(module.read_text().replace("Where jobs are", "Jobs"))
    assert structure(repository, "--check").returncode == 0
