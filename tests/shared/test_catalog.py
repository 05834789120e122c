from __future__ import annotations

import hashlib
import importlib.util
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import shared
from shared.catalog import Catalog, ensure_gguf, gguf_path, home, verified, verify
from shared.errors import ConfigurationError, ModelError, SourceUnavailable, UnknownModelName, WrongDigest

ROOT = Path(shared.__file__).parents[1]

noise = random.Random(2)
PARTS = [b"GGUF" + noise.randbytes(70_000), noise.randbytes(50_001), noise.randbytes(9)]
WHOLE = b"".join(PARTS)

ENSURE = """
import sys
from pathlib import Path
from shared.catalog import Catalog, ensure_gguf
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


def _index_module() -> ModuleType:
    path = Path(__file__).with_name("package_index.py")
    spec = importlib.util.spec_from_file_location("package_index", path)
    assert spec is not None
    raise NotImplementedError
