"""The Student protocol, implemented with the engine: conversations in, tokens out."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from edge_student.llama.context import ContextOptions, LlamaContext
from edge_student.llama.engine import Engine
from edge_student.llama.engine_sequence import EngineSequence
from edge_student.llama.gbnf import UnsupportedSchema
from edge_student.llama.grammar import BadGrammar, Grammar, GrammarGate, text_or_calls
from edge_student.llama.handover import LlamaSequence
from edge_student.llama.json_schema import to_gbnf
from edge_student.llama.sampling import Sampler
from edge_student.llama.scheduler import Scheduler
from edge_student.settings import EdgeSettings
from edge_student.student import ScoresOf, Structure, StudentSampling
from shared.errors import EngineFailed, InvalidRequest, PromptTooLong
from shared.protocol.guidance import Message


class LlamaStudent:
    """A student with a GGUF model on this machine."""

    def __init__(self, model: str, path: Path, settings: EdgeSettings) -> None:
        """Load the model, which takes seconds: not on the event loop. Raises EngineFailed."""
        self.model = model
        scheduler = Scheduler(
            n_running=settings.max_sequences,
            n_cached=settings.cached_sequences,
            n_cells=settings.kv_cache_tokens or settings.context_tokens,
            n_batch=settings.batch_tokens,
            chunk=min(settings.prefill_chunk_tokens, settings.batch_tokens),
        )
        options = ContextOptions(
            n_slots=scheduler.n_slots,
            n_cells=scheduler.cache.n_cells,
            n_batch=scheduler.n_batch,
            threads=settings.threads or os.cpu_count() or 1,
        )
        context = LlamaContext(path, options)
        template = context.metadata("tokenizer.chat_template")
        if template is None:
            context.close()
            raise EngineFailed(f"{path.name} has no chat template; an instruct model is required")
        self._vocab = context.vocab
        self._chat = context.vocab.chat_format(template)
        self.context_tokens = min(settings.context_tokens, options.n_cells, context.trained_tokens)
        self._engine = Engine(
            context,
            scheduler,
            context_tokens=self.context_tokens,
            max_queue=settings.max_queue,
            nice=settings.engine_nice,
        )

    @property
    def registry(self) -> CollectorRegistry:
        return self._engine.metrics.registry

    def encode(self, messages: Sequence[Message]) -> list[int]:
        return self._chat.encode(messages)

    def tokenize(self, text: str) -> list[int]:
        return self._vocab.tokenize(text)

    def check_tokens(self, ids: Sequence[int], *, param: str = "prompt") -> None:
        for token in ids:
            if not 0 <= token < self._vocab.n_tokens:
                raise InvalidRequest(
                    f"{param}: token id {token} is out of range; {self.model} has {self._vocab.n_tokens} tokens",
                    param=param,
                )

    def open(
        self,
        prompt: Sequence[int],
        *,
        text: str = "",
        deferred: bool = False,
        scores_of: ScoresOf | None = None,
        top: int = 0,
        cache_salt: str | None = None,
    ) -> LlamaSequence:
        if not prompt:
            raise InvalidRequest("prompt: must not be empty", param="prompt")
        answer = self.continuation(text)
        if len(prompt) + len(answer) >= self.context_tokens:
            raise PromptTooLong(
                f"the prompt has {len(prompt) + len(answer)} tokens; the context of {self.model} has {self.context_tokens}, "
                "one of them for the answer",
                param="messages",
            )
        state = EngineSequence(
            [*prompt, *answer],
            cache_salt=cache_salt,
            deferred=deferred,
            scored_from=len(prompt) + len(answer) if scores_of == "guidance" else scores_of,
            score_top=top,
            loop=asyncio.get_running_loop(),
        )
        return LlamaSequence(self, self._engine, state, len(prompt), text)

    def continuation(self, text: str) -> list[int]:
        """Return the token ids of text that follows a prompt."""
        return self._vocab.tokenize_continuation(text) if text else []

    def structure(self, json_schema: dict[str, Any], *, param: str = "response_format") -> Structure:
        return self._structure(json_schema, lambda: to_gbnf(json_schema), param)

    def text_or_calls(self, call_schema: dict[str, Any], *, parallel: bool) -> Structure:
        return self._structure(None, lambda: text_or_calls(call_schema, parallel=parallel), "tools")

    def _structure(self, json_schema: dict[str, Any] | None, to_grammar: Callable[[], str], param: str) -> Structure:
        """Build a structure, with a grammar that llama.cpp can parse. Raises InvalidRequest."""
        try:
            grammar = to_grammar()
            Grammar(self._vocab, grammar)
        except (UnsupportedSchema, BadGrammar) as error:
            raise InvalidRequest(f"{param}: {error}", param=param) from error
        return Structure(json_schema, grammar, partial(GrammarGate, self._vocab, grammar))

    def sampler(self, sampling: StudentSampling, prompt: Sequence[int], guidance: Sequence[int]) -> Sampler:
        return Sampler(sampling, self._vocab, prompt, guidance)

    def piece(self, token: int) -> bytes:
        return self._vocab.piece(token)

    def failure(self) -> str | None:
        return self._engine.failure

    async def close(self) -> None:
        await asyncio.to_thread(self._engine.close)
