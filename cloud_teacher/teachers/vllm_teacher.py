"""vLLM as the teacher, in process: `AsyncLLM`. The only module that imports vllm.

The same code on CUDA, where vLLM finds it, and on a CPU. vLLM runs its engine in processes of its own, which it is told to
spawn, not fork: they are started from a thread beside a running event loop.
"""

from __future__ import annotations

import logging
import math
import os
import platform
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any, Literal

from prometheus_client import REGISTRY, CollectorRegistry

from cloud_teacher.config.settings import CloudSettings
from cloud_teacher.teachers.base import (
    DEFAULT_HINTS,
    GenerationParams,
    OutputChunk,
    Prompt,
    Reviewer,
    SchedulingHints,
    Scores,
)
from cloud_teacher.teachers.loader import Loader
from cloud_teacher.teachers.processes import end_children
from cloud_teacher.teachers.token_ids import TokenIdTeacher
from shared.errors import EngineFailed, InvalidRequest

logger = logging.getLogger("gkt.cloud")

GIB = 1 << 30
CPU_KV_CACHE_GIB = 1.0
"""Unset, vLLM would take 92 % of the machine's memory."""
ENDS: dict[str | None, Literal["stop", "limit"]] = {"stop": "stop", "length": "limit"}
"""vLLM's finish reasons; the others are failures."""
CPU_BLOCK_TOKENS = 32
"""Of the prefix cache. What is not a whole block is computed again in each round of a review; the CPU kernels take multiples of
32, and vLLM's default is 128."""
UNTOLD = -math.inf
"""Log-probability of a token that is not among the most probable ones that were told."""
TOP = 20
"""As many of the most probable tokens as vLLM tells by default."""
FEW_CPUS = 4
"""Up to so many, the engine computes on all of them. vLLM itself keeps one back, which of two is half the machine."""


def load_vllm(
    folder: str, settings: CloudSettings, loading: Loader, *, traces_endpoint: str | None = None
) -> VllmTeacher:
    """Start an engine with the model in `folder` (or of that hub name). Blocks for tens of seconds; call it in a thread.

    With `traces_endpoint` (OTLP over HTTP) the engine makes spans of its own.
    Raises EngineFailed where vLLM cannot start, ConfigurationError for a model without a chat template.
    """
    _prepare_environment(folder, settings, traced=traces_endpoint is not None)
    from vllm.config import StructuredOutputsConfig
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform
    from vllm.v1.engine.async_llm import AsyncLLM

    on_cpu = current_platform.is_cpu()
    if on_cpu:
        # vLLM compiles a few functions whatever it is told, those for log-probabilities at the first request for them:
        # 15 seconds. The engine's processes, which come to be below, read this.
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    kv_cache_gib = settings.kv_cache_gib or (CPU_KV_CACHE_GIB if on_cpu else None)
    arguments = AsyncEngineArgs(
        model=folder,
        served_model_name=[settings.model],
        dtype=_dtype(settings.dtype, on_cpu=on_cpu),
        max_model_len=settings.max_model_len,
        max_num_seqs=settings.max_running,
        scheduling_policy="priority",
        kv_cache_memory_bytes=int(kv_cache_gib * GIB) if kv_cache_gib else None,
        enable_prefix_caching=True,
        block_size=CPU_BLOCK_TOKENS if on_cpu else None,
        enforce_eager=on_cpu,  # compiling takes minutes there and wins little
        enable_log_requests=False,
        otlp_traces_endpoint=traces_endpoint,
        # Whitespace costs tokens, and the edge's grammar may see it otherwise. It can only be set for all requests.
        structured_outputs_config=StructuredOutputsConfig(backend="xgrammar", disable_any_whitespace=True),
    )
    loading.may_start_processes()
    if settings.engine_nice:
        # On Linux niceness is a thread's own; the engine's processes are started from this one and inherit it.
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), settings.engine_nice)
    try:
        engine = AsyncLLM.from_engine_args(arguments)
    except Exception as error:
        raise EngineFailed(f"vLLM cannot start {settings.model}: {error}") from error
    return VllmTeacher(engine, settings.model)


class VllmTeacher(TokenIdTeacher):
    """A running engine behind the Teacher protocol."""

    def __init__(self, engine: Any, model: str) -> None:
        tokenizer = engine.get_tokenizer()
        super().__init__(tokenizer, tokenizer.eos_token_id)
        self._engine = engine
        self._traced = engine.observability_config.otlp_traces_endpoint is not None
        self.model = model
        self.max_model_len: int = engine.model_config.max_model_len
        self.registry: CollectorRegistry = REGISTRY  # where vLLM registers its own, and nobody else here anything

    def reviewer(self) -> Reviewer:
        return self

    def check_schema(self, json_schema: dict[str, Any]) -> None:
        from vllm.exceptions import VLLMValidationError
        from vllm.sampling_params import SamplingParams, StructuredOutputsParams
        from vllm.v1.structured_output.backend_xgrammar import validate_xgrammar_grammar

        # What vLLM does itself as a request comes in, but that is when the stream has begun.
        try:
            validate_xgrammar_grammar(SamplingParams(structured_outputs=StructuredOutputsParams(json=json_schema)))
        except VLLMValidationError as error:
            raise InvalidRequest(f"json_schema: {error}", param="json_schema") from error

    async def stream(
        self, request_id: str, prompt: Prompt, params: GenerationParams, hints: SchedulingHints = DEFAULT_HINTS
    ) -> AsyncGenerator[OutputChunk, None]:
        from vllm.inputs.engine import tokens_input
        from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        parameters = SamplingParams(
            **params.sampling_options(),
            max_tokens=params.max_tokens,
            structured_outputs=None if params.json_schema is None else StructuredOutputsParams(json=params.json_schema),
            logprobs=0 if params.logprobs else None,  # 0: of the sampled token alone
            stop=list(params.stop) or None,
            include_stop_str_in_output=True,
            output_kind=RequestOutputKind.DELTA,
        )
        try:
            tokens = tokens_input(prompt.ids, cache_salt=hints.cache_salt)
            outputs = self._engine.generate(tokens, parameters, request_id, **self._options(hints))
            async with aclosing(outputs):
                async for output in outputs:
                    yield _piece(output)
        except (EngineDeadError, EngineGenerateError) as error:
            raise EngineFailed(f"the engine failed: {error}") from error

    async def score(
        self, request_id: str, ids: list[int], start: int, hints: SchedulingHints = DEFAULT_HINTS
    ) -> Scores:
        scored = await self._once(request_id, ids, hints, prompt_logprobs=1)
        cached = scored.num_cached_tokens or 0
        first: list[Any] = []
        if cached == start:
            # What stands before the first token was not computed now. It is the last token of a shorter prompt.
            before = await self._once(f"{request_id}.first", ids[:start], hints, logprobs=TOP)
            first = [before.outputs[0].logprobs[0]]
        elif cached > start:
            whole = {"prompt_logprobs": 1, "skip_reading_prefix_cache": True}
            scored = await self._once(f"{request_id}.all", ids, hints, **whole)
            cached = 0
        entries = [*first, *scored.prompt_logprobs[start + len(first) :]]
        told = [entry.get(token) for entry, token in zip(entries, ids[start:], strict=True)]
        stats = scored.metrics
        return Scores(
            logprobs=[UNTOLD if one is None else one.logprob for one in told],
            ranks=[TOP + 1 if one is None else one.rank for one in told],
            choices=[next((token for token, one in entry.items() if one.rank == 1), None) for entry in entries],
            cached_tokens=cached,
            queue_s=stats.scheduled_ts - stats.queued_ts if stats and stats.scheduled_ts else None,
        )

    async def _once(self, request_id: str, ids: list[int], hints: SchedulingHints, **options: Any) -> Any:
        """The engine's output for a prompt and one token behind it. Raises EngineFailed."""
        from vllm.inputs.engine import tokens_input
        from vllm.sampling_params import RequestOutputKind, SamplingParams
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        # By default a request with prompt_logprobs reads no prefix cache. Entries of the cached part are not filled in, and
        # their ids are garbage that the detokenizer chokes on.
        options = {"skip_reading_prefix_cache": False, **options}
        parameters = SamplingParams(
            max_tokens=1, temperature=0.0, detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY, **options
        )
        try:
            prompt = tokens_input(ids, cache_salt=hints.cache_salt)
            generated = self._engine.generate(prompt, parameters, request_id, **self._options(hints))
            async with aclosing(generated) as outputs:
                async for output in outputs:
                    return output
        except (EngineDeadError, EngineGenerateError) as error:
            raise EngineFailed(f"the engine failed: {error}") from error
        raise EngineFailed("the engine ended without an output")

    def _options(self, hints: SchedulingHints) -> dict[str, Any]:
        return {"priority": hints.priority, "trace_headers": hints.trace if self._traced else None}

    def check_health(self) -> None:
        if self._engine.errored:
            raise EngineFailed("the engine's process has died")

    async def close(self) -> None:
        # Blocks the event loop for a second or two, at the very end of the service's life.
        self._engine.shutdown()
        end_children()


def _piece(output: Any) -> OutputChunk:
    answer = output.outputs[0]
    logprobs = None
    if answer.logprobs is not None:
        logprobs = [entry[token].logprob for token, entry in zip(answer.token_ids, answer.logprobs, strict=True)]
    stats = output.metrics
    return OutputChunk(
        text=answer.text,
        token_ids=list(answer.token_ids),
        logprobs=logprobs,
        # `stop_reason` is the string that ended it, or None where that was the model's own end.
        end="string" if isinstance(answer.stop_reason, str) else ENDS.get(answer.finish_reason),
        cached_tokens=output.num_cached_tokens or 0,
        queue_s=stats.scheduled_ts - stats.queued_ts if stats and stats.scheduled_ts else None,
    )


def _prepare_environment(folder: str, settings: CloudSettings, *, traced: bool) -> None:
    """What vLLM reads from the environment when it is imported. What the operator has set stays."""
    wanted = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_LOGGING_LEVEL": "DEBUG" if settings.log_level == "debug" else "WARNING",
        # Threads that spin while they wait would take the cores from an edge on the same machine.
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    if traced:
        wanted["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] = "http/protobuf"  # by itself it would speak gRPC
    if Path(folder).is_dir():
        wanted["HF_HUB_OFFLINE"] = "1"
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if 0 < len(cpus) <= FEW_CPUS:
        wanted["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, cpus))
    for name, value in wanted.items():
        os.environ.setdefault(name, value)


def _dtype(wanted: str, *, on_cpu: bool) -> str:
    """float32 where the CPU has no AVX-512: without it oneDNN has no bfloat16, and a prompt takes five times as long."""
    if wanted != "auto" or not on_cpu or platform.machine() != "x86_64":
        return wanted
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return wanted
    return wanted if "avx512f" in flags else "float32"
