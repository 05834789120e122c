"""The thread that owns the context: takes commands, computes batches, returns tokens to asyncio."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable

from edge_student.llama.batch import Batch
from edge_student.llama.batch_runner import BatchRunner
from edge_student.llama.context import LlamaContext
from edge_student.llama.engine_sequence import EngineSequence, deliver
from edge_student.llama.metrics import EngineMetrics
from edge_student.llama.sampling import Sampler
from edge_student.llama.scheduler import Scheduler
from shared.errors import EngineFailed, Overloaded

logger = logging.getLogger("gkt.engine")


class Engine:
    """Continuous batching over one context. Its public methods may be called from any thread and return at once."""

    def __init__(
        self, context: LlamaContext, scheduler: Scheduler, *, context_tokens: int, max_queue: int, nice: int = 0
    ) -> None:
        self.failure: str | None = None
        self.metrics = EngineMetrics()
        self._context = context
        self._scheduler = scheduler
        self._limit = scheduler.n_running + max_queue
        self._nice = nice
        self._open: set[EngineSequence] = set()
        self._computing: Batch | None = None
        self._commands: deque[Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._runner = BatchRunner(context, scheduler, self.metrics, context_tokens=context_tokens, remove=self._detach)
        self._thread = threading.Thread(target=self._run, name="gkt-engine", daemon=True)
        self._thread.start()

    def submit(self, sequence: EngineSequence) -> None:
        """Start to prefill a sequence. Raises Overloaded if the queue is full, EngineFailed if the engine is dead."""
        with self._wake:
            if self.failure:
                raise EngineFailed(self.failure)
            if sum(not one.cancelled for one in self._open) >= self._limit:
                raise Overloaded(
                    f"the queue is full: {self._limit} answers are running or waiting, the most that are allowed",
                    retry_after_s=1,
                )
            self._open.add(sequence)
            self.metrics.sequences_open.set(len(self._open))
            self._post(lambda: self._scheduler.add(sequence))

    def rewrite(self, sequence: EngineSequence, keep: int, tokens: list[int]) -> None:
        """Replace the tokens of a sequence after the first `keep`, because guidance arrived."""
        with self._wake:
            self._post(lambda: self._rewrite(sequence, keep, tokens))

    def generate(self, sequence: EngineSequence, keep: int, tokens: list[int], sampler: Sampler) -> None:
        """Replace the tokens of a sequence after the first `keep`, then decode from there: the handover."""

        def command() -> None:
            self._rewrite(sequence, keep, tokens)
            sequence.sampler = sampler
            sequence.generating = True

        with self._wake:
            self._post(command)

    def remove(self, sequence: EngineSequence) -> None:
        """Remove a sequence at the next step. A step that is mostly for removed sequences is aborted, so that it ends at once.

        The others lose their part of an aborted step. If a small part of it were reason enough, clients that come and go could
        keep the rest from progressing.
        """
        with self._wake:
            if sequence.cancelled or sequence not in self._open:
                return
            sequence.cancelled = True
            if self._computing and _mostly_cancelled(self._computing):
                self._context.abort()
            self._post(lambda: self._detach(sequence))

    def close(self) -> None:
        """Stop the thread and free the context. Open sequences fail."""
        with self._wake:
            self._closing = True
            self._context.abort()
            self._wake.notify()
        self._thread.join()

    def _rewrite(self, sequence: EngineSequence, keep: int, tokens: list[int]) -> None:
        self._scheduler.truncate(sequence, sequence.replace_tokens(keep, tokens))

    def _post(self, command: Callable[[], None]) -> None:
        """Queue a command for the thread. The caller holds the lock."""
        self._commands.append(command)
        self._wake.notify()

    def _run(self) -> None:
        if self._nice:
            # On Linux niceness is per thread. The compute threads are started from this one and inherit it.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._nice)
        try:
            idle = False
            while self._run_commands(wait=idle):
                idle = not self._step()
        except Exception as error:
            logger.exception("the student engine died")
            self._fail(f"the student engine died: {error}")
        finally:
            self._fail(self.failure or "the student engine is closed")
            self._context.close()

    def _run_commands(self, *, wait: bool) -> bool:
        """Run the queued commands. Returns False when the engine is closing."""
        with self._wake:
            while wait and not self._commands and not self._closing:
                self._wake.wait()
            self._computing = None
            commands = list(self._commands)
            self._commands.clear()
        for command in commands:
            command()
        return not self._closing

    def _step(self) -> bool:
        """Compute one batch. Returns False if there was nothing to compute."""
        batch = self._runner.prepare()
        if not batch.chunks:
            return False
        with self._wake:
            self._computing = batch
            self._context.arm()
        self._runner.compute(batch)
        return True

    def _detach(self, sequence: EngineSequence) -> None:
        self._scheduler.remove(sequence)
        if sequence.sampler:
            sequence.sampler.close()
        with self._wake:
            self._open.discard(sequence)
            self.metrics.sequences_open.set(len(self._open))

    def _fail(self, message: str) -> None:
        with self._wake:
            self.failure = message
            left = list(self._open)
            self._open.clear()
        deliver((sequence, EngineFailed(message)) for sequence in left)


def _mostly_cancelled(batch: Batch) -> bool:
    cancelled = [c.count for c in batch.chunks if isinstance(c.sequence, EngineSequence) and c.sequence.cancelled]
    return 2 * sum(cancelled) > batch.tokens
