"""The small real model, and llama-cpp-python's own loop on the same file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import llama_cpp
import pytest

from shared.model_hub.local_models import ensure_gguf


@pytest.fixture(scope="module")
def gguf() -> Path:
    return ensure_gguf("smollm2-135m-instruct")


@pytest.fixture(scope="module")
def reference(gguf: Path) -> Iterator[llama_cpp.Llama]:
    llama = llama_cpp.Llama(str(gguf), n_ctx=1024, n_threads=1, flash_attn=True, logits_all=True, verbose=False)
    yield llama
    llama.close()
