"""One llama.cpp model and context: the ctypes calls of a step, without any decisions."""

from __future__ import annotations

import ctypes
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from edge_student.llama.batch import Chunk
from edge_student.llama.vocab import Vocab
from shared.errors import EngineFailed

logger = logging.getLogger("gkt.llama")

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ContextOptions:
    """`n_slots` sequences share `n_cells` tokens of KV cache; a step computes up to `n_batch` tokens."""

    n_slots: int
    n_cells: int
    n_batch: int
    threads: int


class Aborted(Exception):
    """A decode was interrupted. None of its tokens are in the cache."""


class CacheFull(Exception):
    """The KV cache has no room for this batch. Nothing was computed."""


class LlamaContext:
    """Owns the native model, context and batch. One thread may call its methods; any thread may call `abort`."""

    def __init__(self, path: Path, options: ContextOptions) -> None:
        """Load the model. Raises EngineFailed."""
        _route_log()
        llama_cpp.llama_backend_init()
        self._model: Any = llama_cpp.llama_model_load_from_file(
            str(path).encode(), model_params(llama_cpp.llama_print_system_info())
        )
        if not self._model:
            raise EngineFailed(f"llama.cpp cannot load {path.name}; see the log")
        if llama_cpp.llama_model_is_recurrent(self._model) or llama_cpp.llama_model_is_hybrid(self._model):
            llama_cpp.llama_model_free(self._model)
            raise EngineFailed(
                f"{path.name} is a recurrent model, which is not supported: its memory cannot return to an earlier token, "
                "as guidance requires"
            )
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = options.n_cells
        params.n_batch = params.n_ubatch = options.n_batch
        params.n_seq_max = options.n_slots
        params.n_threads = params.n_threads_batch = options.threads
        params.kv_unified = True
        params.no_perf = True
        self._context: Any = llama_cpp.llama_init_from_model(self._model, params)
        if not self._context:
            llama_cpp.llama_model_free(self._model)
            raise EngineFailed(
                f"llama.cpp cannot create a context of {options.n_cells} tokens for {path.name}; see the log"
            )
        self._memory: Any = llama_cpp.llama_get_memory(self._context)
        self.vocab = Vocab(llama_cpp.llama_model_get_vocab(self._model))
        self.trained_tokens = int(llama_cpp.llama_model_n_ctx_train(self._model))
        self._batch = _NativeBatch(options.n_batch)
        self._abort_flag = ctypes.create_string_buffer(2)
        # The callback runs before every node of the graph, so it must not be Python. libc's strlen of a buffer that holds no
        # character or one is a native `bool f(void *)` that reads a flag.
        self._abort_callback = ctypes.cast(ctypes.CDLL(None).strlen, llama_cpp.ggml_abort_callback)
        llama_cpp.llama_set_abort_callback(
            self._context, self._abort_callback, ctypes.cast(self._abort_flag, ctypes.c_void_p)
        )

    def metadata(self, key: str) -> str | None:
        """Return a string from the model file's metadata, or None. Raises EngineFailed if it is longer than 1 MiB."""
        for size in (1 << 10, 1 << 20):
            buffer = ctypes.create_string_buffer(size)
            length = llama_cpp.llama_model_meta_val_str(self._model, key.encode(), buffer, size)
            if length < 0:
                return None
            if length < size:
                return buffer.value.decode()
        raise EngineFailed(f"the metadata {key} of the model is longer than {size} bytes")

    def arm(self) -> None:
        """Cancel an earlier `abort`, so that the next decode runs."""
        self._abort_flag[0] = b"\x00"

    def abort(self) -> None:
        """Interrupt the running decode, or the next one if it is armed already. Any thread may call this."""
        self._abort_flag[0] = b"\x01"

    def decode(self, chunks: list[Chunk]) -> list[int]:
        """Compute a batch. Returns for each chunk the batch index of its first token with logits.

        Raises Aborted, CacheFull, EngineFailed.
        """
        starts = self._batch.fill(chunks)
        code = llama_cpp.llama_decode(self._context, self._batch.native)
        if code == 1:
            raise CacheFull
        if code == 2:
            for chunk in chunks:
                self.truncate(_slot(chunk), chunk.start)
            raise Aborted
        if code != 0:
            raise EngineFailed(f"llama_decode returned {code}")
        return starts

    def logits(self, index: int) -> Logits:
        """Return the logits after a token of the last batch, shape (vocabulary,): a view that the next decode overwrites."""
        pointer = llama_cpp.llama_get_logits_ith(self._context, index)
        return np.ctypeslib.as_array(pointer, shape=(self.vocab.n_tokens,))

    def sample(self, sampler: Any, index: int) -> int:
        """Sample a token with a native chain, which also accepts it."""
        return int(llama_cpp.llama_sampler_sample(sampler, self._context, index))

    def copy(self, source: int, target: int, length: int) -> None:
        """Let an empty slot share the first `length` tokens of another one."""
        llama_cpp.llama_memory_seq_cp(self._memory, source, target, 0, length)

    def truncate(self, slot: int, start: int = 0) -> None:
        """Remove a slot's tokens from position `start` on."""
        llama_cpp.llama_memory_seq_rm(self._memory, slot, start, -1)

    def close(self) -> None:
        llama_cpp.llama_free(self._context)
        llama_cpp.llama_model_free(self._model)


class _NativeBatch:
    """A `llama_batch` over numpy arrays, which is filled by chunks instead of by tokens."""

    def __init__(self, size: int) -> None:
        self._token = np.zeros(size, np.int32)
        self._position = np.zeros(size, np.int32)
        self._count = np.ones(size, np.int32)
        self._slot = np.zeros(size, np.int32)
        self._slot_pointers = self._slot.ctypes.data + np.arange(size, dtype=np.uintp) * self._slot.itemsize
        self._logits = np.zeros(size, np.int8)
        self.native = llama_cpp.llama_batch(
            n_tokens=0,
            token=_pointer(self._token, ctypes.c_int32),
            embd=None,
            pos=_pointer(self._position, ctypes.c_int32),
            n_seq_id=_pointer(self._count, ctypes.c_int32),
            seq_id=_pointer(self._slot_pointers, ctypes.POINTER(ctypes.c_int32)),
            logits=_pointer(self._logits, ctypes.c_int8),
        )

    def fill(self, chunks: list[Chunk]) -> list[int]:
        """Write the chunks. Returns for each the batch index of its first token with logits."""
        starts = []
        at = 0
        for chunk in chunks:
            to = at + chunk.count
            self._token[at:to] = chunk.sequence.tokens[chunk.start : chunk.start + chunk.count]
            self._position[at:to] = np.arange(chunk.start, chunk.start + chunk.count)
            self._slot[at:to] = _slot(chunk)
            self._logits[at : to - chunk.logits] = 0
            self._logits[to - chunk.logits : to] = 1
            starts.append(to - chunk.logits)
            at = to
        self.native.n_tokens = at
        return starts


def model_params(system_info: bytes) -> Any:
    """Return the parameters for loading weights, depending on llama.cpp's build.

    GCC drops the tiles' configuration from llama.cpp's AMX kernels, so the first matrix ends the process with an illegal
    instruction (llama.cpp, pull request 26954). Only the weights' extra layouts use those kernels. Without the layouts the
    ordinary AVX-512 kernels compute, more slowly than those of a build without AMX.
    """
    params = llama_cpp.llama_model_default_params()
    if b"AMX_INT8 = 1" in system_info:
        params.use_extra_bufts = False
        logger.warning(
            "llama.cpp was built with AMX, whose kernels crash; weights are not repacked, which makes prompts slower. "
            "Rebuild it: CFLAGS=-U__AMX_INT8__ CXXFLAGS=-U__AMX_INT8__ "
            "pip install --force-reinstall --no-cache-dir --no-deps llama-cpp-python==%s",
            llama_cpp.__version__,
        )
    return params


def _slot(chunk: Chunk) -> int:
    slot = chunk.sequence.slot
    assert slot is not None  # noqa: S101 - a scheduled sequence has one
    return slot


def _pointer(array: npt.NDArray[Any], kind: Any) -> Any:
    return ctypes.cast(array.ctypes.data, ctypes.POINTER(kind))


_LEVELS = {2: logging.DEBUG, 3: logging.WARNING, 4: logging.ERROR}


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _log(level: int, text: bytes, _: Any) -> None:
    logger.log(_LEVELS.get(level, logging.DEBUG), "%s", text.decode(errors="replace").rstrip())


def _route_log() -> None:
    llama_cpp.llama_log_set(_log, ctypes.c_void_p(0))
