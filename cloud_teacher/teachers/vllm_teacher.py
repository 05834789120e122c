"""vLLM as the teacher, in process: `AsyncLLM`. The only module that imports vllm.

The same code runs on CUDA and on a CPU. vLLM runs its engine in child processes. They are spawned, not forked, because they are
started from a thread beside a running event loop.
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
"""Default on a CPU, where vLLM itself would take 92 % of the machine's memory."""
ENDS: dict[str | None, Literal["stop", "limit"]] = {"stop": "stop", "length": "limit"}
"""vLLM's finish reasons that end an answer; others are failures."""
CPU_BLOCK_TOKENS = 32
"""Block size of the prefix cache. A partial block is computed again in each round of a review; CPU kernels need multiples of 32,
and vLLM's default is 128."""
UNKNOWN_LOGPROB = -math.inf
"""Log-probability of a token that is not among the returned ones."""
TOP_LOGPROBS = 20
"""vLLM's default limit of returned alternatives."""
FEW_CPUS = 4
"""With at most this many CPUs the engine uses all of them. vLLM would leave one idle: half of a machine with two."""


def load_vllm(
    folder: str, settings: CloudSettings, loading: Loader, *, traces_endpoint: str | None = None
) -> VllmTeacher:
    """Start an engine with the model in `folder`, a folder or a hub name. Blocks for tens of seconds; call it in a thread.

    With `traces_endpoint` (OTLP over HTTP) the engine exports spans of its own.
    Raises EngineFailed if vLLM cannot start, ConfigurationError for a model without a chat template.
    """
    _prepare_environment(folder, settings, traced=traces_endpoint is not None)
    from vllm.config import StructuredOutputsConfig
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform
    from vllm.v1.engine.async_llm import AsyncLLM

    on_cpu = current_platform.is_cpu()
    if on_cpu:
        # vLLM compiles a few functions in any case, those for log-probabilities at the first request that needs them, which
        # takes 15 seconds. The engine's processes, which are started below, read this variable.
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
        enforce_eager=on_cpu,  # compiling takes minutes on a CPU and gains little
        enable_log_requests=False,
        otlp_traces_endpoint=traces_endpoint,
        # Whitespace costs tokens, and the edge's grammar may reject it. vLLM has this option for all requests only.
        structured_outputs_config=StructuredOutputsConfig(backend="xgrammar", disable_any_whitespace=True),
    )
    loading.may_start_processes()
    if settings.engine_nice:
        # On Linux each thread has its own niceness; the engine's processes are started from this thread and inherit it.
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
        self.registry: CollectorRegistry = REGISTRY  # only vLLM registers metrics there

    def reviewer(self) -> Reviewer:
        return self

    def check_schema(self, json_schema: dict[str, Any]) -> None:
        from vllm.exceptions import VLLMValidationError
        from vllm.sampling_params import SamplingParams, StructuredOutputsParams
        from vllm.v1.structured_output.backend_xgrammar import validate_xgrammar_grammar

        # vLLM validates the schema itself, but only after the stream has begun.
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
            logprobs=0 if params.logprobs else None,  # 0: the sampled token only
            stop=list(params.stop) or None,
            include_stop_str_in_output=True,
            output_kind=RequestOutputKind.DELTA,
        )
        try:
            tokens = tokens_input(prompt.ids, cache_salt=hints.cache_salt)
            outputs = self._engine.generate(tokens, parameters, request_id, **self._options(hints))
            async with aclosing(outputs):
                async for output in outputs:
                    yield _chunk(output)
        except (EngineDeadError, EngineGenerateError) as error:
            raise EngineFailed(f"the engine failed: {error}") from error

    async def score(
        self, request_id: str, ids: list[int], start: int, hints: SchedulingHints = DEFAULT_HINTS
    ) -> Scores:
        scored = await self._once(request_id, ids, hints, prompt_logprobs=1)
        cached = scored.num_cached_tokens or 0
        first: list[Any] = []
        if cached == start:
            # The logits in front of the first token were cached. They are those of the last token of a shorter prompt.
            before = await self._once(f"{request_id}.first", ids[:start], hints, logprobs=TOP_LOGPROBS)
            first = [before.outputs[0].logprobs[0]]
        elif cached > start:
            whole = {"prompt_logprobs": 1, "skip_reading_prefix_cache": True}
            scored = await self._once(f"{request_id}.all", ids, hints, **whole)
            cached = 0
        entries = [*first, *scored.prompt_logprobs[start + len(first) :]]
        scores = [entry.get(token) for entry, token in zip(entries, ids[start:], strict=True)]
        stats = scored.metrics
        return Scores(
            logprobs=[UNKNOWN_LOGPROB if one is None else one.logprob for one in scores],
            ranks=[TOP_LOGPROBS + 1 if one is None else one.rank for one in scores],
            choices=[next((token for token, one in entry.items() if one.rank == 1), None) for entry in entries],
            cached_tokens=cached,
            queue_s=stats.scheduled_ts - stats.queued_ts if stats and stats.scheduled_ts else None,
        )

    async def _once(self, request_id: str, ids: list[int], hints: SchedulingHints, **options: Any) -> Any:
        """Return the engine's output for a prompt and one token. Raises EngineFailed."""
        from vllm.inputs.engine import tokens_input
        from vllm.sampling_params import RequestOutputKind, SamplingParams
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        # By default a request with prompt_logprobs does not read the prefix cache. With the cache, entries of the cached part are
        # not filled in, and their ids are garbage, on which the detokenizer fails.
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
        # This blocks the event loop for a second or two, when the service exits.
        self._engine.shutdown()
        end_children()


def _chunk(output: Any) -> OutputChunk:
    answer = output.outputs[0]
    logprobs = None
    if answer.logprobs is not None:
        logprobs = [entry[token].logprob for token, entry in zip(answer.token_ids, answer.logprobs, strict=True)]
    stats = output.metrics
    return OutputChunk(
        text=answer.text,
        token_ids=list(answer.token_ids),
        logprobs=logprobs,
        # `stop_reason` is the stop string, or None for the model's own end.
        end="string" if isinstance(answer.stop_reason, str) else ENDS.get(answer.finish_reason),
        cached_tokens=output.num_cached_tokens or 0,
        queue_s=stats.scheduled_ts - stats.queued_ts if stats and stats.scheduled_ts else None,
    )


def _prepare_environment(folder: str, settings: CloudSettings, *, traced: bool) -> None:
    """Set the variables that vLLM reads when it is imported, unless the operator has set them."""
    defaults = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_LOGGING_LEVEL": "DEBUG" if settings.log_level == "debug" else "WARNING",
        # Threads that spin while they wait would take CPU time from an edge on the same machine.
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    if traced:
        defaults["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] = "http/protobuf"  # the default is gRPC
    if Path(folder).is_dir():
        defaults["HF_HUB_OFFLINE"] = "1"
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if 0 < len(cpus) <= FEW_CPUS:
        defaults["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, cpus))
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def _dtype(setting: str, *, on_cpu: bool) -> str:
    """Return float32 for a CPU without AVX-512: there oneDNN has no bfloat16, and prefill takes five times as long."""
    if setting != "auto" or not on_cpu or platform.machine() != "x86_64":
        return setting
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return setting
    return setting if "avx512f" in flags else "float32"
