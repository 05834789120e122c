"""vLLM's own server as a chat API: each extension that our cloud uses has its documented effect."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, asynccontextmanager

import pytest
from pydantic import TypeAdapter

from cloud_teacher.config.teacher import Continuation, TeacherEntry
from cloud_teacher.model_files.conversion import ensure_folder
from cloud_teacher.teachers.base import GenerationParams, OutputChunk
from cloud_teacher.teachers.openai_chat import ChatTeacher
from evaluation.servers.baselines import EngineConfig, vllm_serve
from shared.protocol.guidance import Message, Usage

pytestmark = [pytest.mark.engine, pytest.mark.xdist_group("vllm"), pytest.mark.timeout(400)]

SMOLLM = "smollm2-135m-instruct"
QUESTION = [Message(role="user", content="Explain in a few sentences why the sky is blue.")]
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "TORCHDYNAMO_DISABLE": "1",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}  # fmt: skip


@pytest.fixture(scope="module")
def vllm() -> Iterator[str]:
    options = ("--enforce-eager", "--enable-prompt-tokens-details", "--scheduling-policy", "priority")
    engine = EngineConfig(SMOLLM, ensure_folder(SMOLLM), "float32", 1024, 4, ENVIRONMENT, options)
    with vllm_serve(engine, start_s=300) as server:
        yield f"{server.url}/v1"


@asynccontextmanager
async def teaching(url: str, **entry: object) -> AsyncGenerator[ChatTeacher]:
    fields = {"name": SMOLLM, "api": "chat", "url": url, "extensions": True, "continuation": "flags", **entry}
    teacher = ChatTeacher(TypeAdapter(TeacherEntry).validate_python(fields), max_model_len=1024)
    yield teacher
    await teacher.close()


async def written(teacher: ChatTeacher, answer: str = "", **sampling: object) -> list[OutputChunk]:
    asked = GenerationParams(**{"max_tokens": 24, **sampling})
    async with aclosing(teacher.stream("r", teacher.encode(QUESTION, answer), asked)) as pieces:
        return [piece async for piece in pieces]


def text(pieces: list[OutputChunk]) -> str:
    return "".join(piece.text for piece in pieces)


async def test_it_goes_on_where_an_answer_stops_and_counts_at_every_word(vllm: str) -> None:
    async with teaching(vllm) as teacher:
        whole = await written(teacher, logprobs=True)
        assert whole[-1].end == "limit"
        last = whole[-1].usage
        assert isinstance(last, Usage)
        assert last.completion_tokens == 24
        counts = [piece.usage.completion_tokens for piece in whole if piece.usage]
        assert counts == sorted(counts)
        assert len(counts) == len(whole)
        assert sum(len(piece.logprobs or []) for piece in whole) == 24
        # It continues its own beginning as it did before.
        begun = text(whole[:10])
        rest = await written(teacher, begun)
        assert text(whole).startswith(begun + text(rest)[: len(text(whole)) - len(begun)])
        # A stop string ends the stream, and the usage until then is reported.
        stopped = await written(teacher, max_tokens=200, stop=(".",))
        assert stopped[-1].end == "string"
        assert text(stopped).endswith(".")
        assert stopped[-1].usage is not None


@pytest.mark.parametrize("continuation", ["ask", "none"])
async def test_what_openai_knows_is_enough_for_it(vllm: str, continuation: Continuation) -> None:
    async with teaching(vllm, extensions=False, continuation=continuation, token_limit="max_tokens") as teacher:
        schema = {"type": "object", "properties": {"colour": {"enum": ["blue", "red"]}}, "required": ["colour"]}
        said = await written(teacher, json_schema=schema, top_p=0.9, seed=3, presence_penalty=0.1)
        assert text(said).lstrip().startswith("{")
        assert [piece.usage is not None for piece in said] == [False] * (len(said) - 1) + [True]
        if continuation == "ask":
            assert text(await written(teacher, "The sky is"))
