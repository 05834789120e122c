"""A plain `llama_cpp.Llama` loop in a process of its own, which the edge's decoding is compared with."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.figures import NotMeasured

if TYPE_CHECKING:
    from llama_cpp import Llama

CONTEXT_TOKENS = 4096
LIMIT_S = 300.0


class LlamaLoop:
    """A process that computes while `generate` waits, and sleeps otherwise."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._receive()

    def generate(self, question: str, max_tokens: int) -> tuple[int, float]:
        """Write exactly `max_tokens` with greedy decoding. Return the prompt's tokens, and the tokens/s after the first.

        Raise NotMeasured.
        """
        self._connection.send((question, max_tokens))
        return self._receive()

    def _receive(self) -> tuple[int, float]:
        try:
            if self._connection.poll(LIMIT_S):
                received: tuple[int, float] = self._connection.recv()
                return received
        except (EOFError, OSError) as error:
            raise NotMeasured("the llama.cpp loop ended; its error is above") from error
        raise NotMeasured(f"the llama.cpp loop took more than {LIMIT_S:g} s")


@contextmanager
def llama_loop(path: Path, *, threads: int) -> Iterator[LlamaLoop]:
    """Run the loop over a GGUF file, with the OpenMP library's own defaults."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, path, threads), daemon=True)
    process.start()
    theirs.close()
    try:
        yield LlamaLoop(ours)
    finally:
        process.kill()
        process.join()


def _serve(connection: Connection, path: Path, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # OpenMP reads these when the library is loaded.
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        os.environ.pop(name, None)
    from llama_cpp import Llama

    llama = Llama(
        str(path), n_ctx=CONTEXT_TOKENS, n_threads=threads, n_threads_batch=threads, logits_all=False, verbose=False
    )
    connection.send((0, 0.0))  # the model is loaded
    while True:
        question, max_tokens = connection.recv()
        prompt = _tokenize(llama, question)
        times = [time.perf_counter() for _ in islice(llama.generate(prompt, temp=0.0), max_tokens)]
        connection.send((len(prompt), (len(times) - 1) / (times[-1] - times[0])))


def _tokenize(llama: Llama, question: str) -> list[int]:
    """Render and tokenize the model's chat template. The questions are our own, so their control tokens need no escaping."""
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    bos, eos = (
        llama._model.token_get_text(token) if token >= 0 else "" for token in (llama.token_bos(), llama.token_eos())
    )
    template = llama.metadata["tokenizer.chat_template"]
    formatter = Jinja2ChatFormatter(template=template, eos_token=eos, bos_token=bos)
    prompt = formatter(messages=[{"role": "user", "content": question}]).prompt
    ids: list[int] = llama.tokenize(prompt.encode(), add_bos=False, special=True)
    return ids
