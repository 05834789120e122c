"""`/v1/completions` as clients see it: a real uvicorn, the openai client and raw HTTP, a scripted student behind it."""

from __future__ import annotations

from typing import Any

import pytest

from shared.errors import Overloaded
from tests.edge_student.fakes import ScriptedSequence, ScriptedStudent
from tests.edge_student.scripted_edge import Running, edge

COLUMNS = ("tokens", "token_logprobs", "top_logprobs", "text_offset")


async def complete(running: Running, *, stream: bool, **body: Any) -> dict[int, dict[str, Any]]:
    """Return the choices by index, with their chunks joined."""
    body = {"model": "gkt", **body}
    answers = [await running.openai.completions.create(**body)] if not stream else []
    if stream:
        answers = [chunk async for chunk in await running.openai.completions.create(**body, stream=True)]
    choices: dict[int, dict[str, Any]] = {}
    for choice in (choice for answer in answers for choice in answer.choices):
        columns = choice.logprobs.model_dump() if choice.logprobs else {}
        whole = choices.setdefault(choice.index, {"text": "", **{name: [] for name in COLUMNS}})
        whole["text"] += choice.text
        whole["finish_reason"] = choice.finish_reason
        for name in COLUMNS:
            whole[name] += columns.get(name) or []
    return choices


async def test_completions_continue_raw_text() -> None:
    async with edge() as running:
        one = await running.openai.completions.create(model="gkt", prompt="Once", echo=True)
        assert one.choices[0].text == "Once are 18."
        assert running.student.sequences[-1].prompt == "Once"
        many = await running.openai.completions.create(model="gkt", prompt=["a", "b"], n=2, logprobs=1)
        assert [(c.index, c.text) for c in many.choices] == [(i, " are 18.") for i in range(4)]
        assert many.choices[0].logprobs
        assert many.choices[0].logprobs.tokens == [" are", " 18.", ""], "the end is a token of no text"
        stream = await running.openai.completions.create(model="gkt", prompt=[79, 110], stream=True)
        assert "".join([c.choices[0].text async for c in stream]) == " are 18."
        assert running.student.sequences[-1].prompt == "On"
        assert running.cloud.requests == []


@pytest.mark.parametrize("prompt", ["Onc\u00e9", [79, 110, 99, 0xE9], ["Onc\u00e9"], [[79, 110, 99, 0xE9]]])
@pytest.mark.parametrize("stream", [True, False])
async def test_an_echo_has_the_log_probabilities_of_prompt_and_answer(prompt: Any, stream: bool) -> None:
    async with edge() as running:
        choices = await complete(running, stream=stream, prompt=prompt, echo=True, logprobs=1)
    (choice,) = choices.values()
    assert choice["text"] == "Onc\u00e9 are 18."
    assert choice["finish_reason"] == "stop"
    assert choice["tokens"] == ["O", "n", "c", "\u00e9", " are", " 18.", ""]
    assert choice["token_logprobs"] == [None, -0.5, -0.5, -0.5, -0.5, -0.5, -0.5]
    assert choice["top_logprobs"][:2] == [None, {"?": -0.25, "n": -0.5}], "the token itself is always among them"
    assert choice["top_logprobs"][-2] == {" 18.": -0.5}
    assert choice["text_offset"] == [0, 1, 2, 3, 4, 8, 12]


@pytest.mark.parametrize("stream", [True, False])
async def test_prompts_are_scored_without_an_answer(stream: bool) -> None:
    async with edge() as running:
        body = {"prompt": ["ab", "c"], "echo": True, "logprobs": 0, "max_tokens": 0, "n": 2}
        choices = await complete(running, stream=stream, **body)
    assert [choices[index]["text"] for index in range(4)] == ["ab", "ab", "c", "c"]
    assert [choices[index]["token_logprobs"] for index in range(4)] == [[None, -0.5], [None, -0.5], [None], [None]]
    assert choices[0]["top_logprobs"] == [None, {"b": -0.5}]
    assert {choice["finish_reason"] for choice in choices.values()} == {"length"}


async def test_offsets_go_on_across_the_chunks_of_a_stream() -> None:
    async with edge() as running:
        choices = await complete(running, stream=True, prompt="Once", logprobs=0)
    assert choices[0]["text_offset"] == [0, 4, 8]


async def test_an_answer_that_ends_at_once_still_has_the_log_probability_of_its_end() -> None:
    async with edge(ScriptedStudent()) as running:
        choices = await complete(running, stream=False, prompt="ab", echo=True, logprobs=1, max_tokens=1)
    assert choices[0]["text"] == "ab"
    assert choices[0]["token_logprobs"] == [None, -0.5, -0.5], "harnesses drop one entry for the answer, and then count"


async def test_an_echo_may_begin_at_a_token() -> None:
    body = {"prompt": "Once", "max_tokens": 0, "echo": True, "logprobs": 1, "logprob_start_len": 3}
    async with edge() as running:
        choice = (await running.http.post("/v1/completions", json=body)).json()["choices"][0]
        assert choice["text"] == "ce", "the token in front of the first score is there too"
        assert choice["logprobs"]["token_logprobs"] == [None, -0.5]
        refused = await running.http.post("/v1/completions", json={**body, "logprob_start_len": 4})
        assert refused.json()["error"]["param"] == "logprob_start_len"
        refused = await running.http.post("/v1/completions", json={"prompt": "Once", "logprob_start_len": 1})
        assert refused.json()["error"]["param"] == "logprob_start_len"


async def test_a_choice_says_its_token_ids_what_stopped_it_and_the_usage_so_far() -> None:
    body = {"prompt": "Once", "stop": ["1"], "include_stop_str_in_output": True, "return_token_ids": True}
    async with edge() as running:
        whole = (await running.http.post("/v1/completions", json=body)).json()["choices"][0]
        stream = await running.openai.completions.create(
            model="gkt",
            prompt="Once",
            stop=["1"],
            stream=True,
            stream_options={"include_usage": True, "continuous_usage_stats": True},
            extra_body={"include_stop_str_in_output": True, "return_token_ids": True},
        )
        chunks = [chunk.model_dump() async for chunk in stream]
    assert (whole["text"], whole["token_ids"]) == (" are 1", [4, 4])
    assert (whole["finish_reason"], whole["stop_reason"]) == ("stop", "1")
    assert [chunk["choices"][0]["token_ids"] for chunk in chunks[:2]] == [[4], [4]]
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks] == [1, 2, 2, 2]
    assert chunks[0]["usage"]["prompt_tokens"] == 4


async def test_a_stream_that_the_full_queue_refuses_is_a_503_with_an_echo_too() -> None:
    async with edge(ScriptedStudent("x", room=0)) as running:
        response = await running.http.post("/v1/completions", json={"prompt": "a", "echo": True, "stream": True})
    assert response.status_code == 503


async def test_a_large_batch_takes_turns() -> None:
    student = ScriptedStudent("x", room=2)
    async with edge(student, max_sequences=2) as running:
        answer = await running.openai.completions.create(model="gkt", prompt=["a"] * 50, echo=True)
    assert [choice.text for choice in answer.choices] == ["ax"] * 50
    assert answer.usage.completion_tokens == 50


async def test_a_batch_under_way_waits_where_others_have_filled_the_queue() -> None:
    class Filled(ScriptedStudent):
        refused = 0

        def open(self, *args: Any, **options: Any) -> ScriptedSequence:
            if len(self.sequences) == 2 and not self.refused:
                self.refused += 1
                raise Overloaded("full", retry_after_s=1)
            return super().open(*args, **options)

    student = Filled("x")
    async with edge(student, max_sequences=2) as running:
        answer = await running.openai.completions.create(model="gkt", prompt=["a", "b", "c", "d"], echo=True)
    assert [choice.text for choice in answer.choices] == ["ax", "bx", "cx", "dx"]
    assert student.refused == 1


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": "x", "model": "gkt-teacher"}, "model"),
        ({"prompt": "x", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "x", "max_tokens": -1, "echo": True}, "max_tokens"),
        ({"prompt": ["x"] * 513}, "prompt"),
        ({"prompt": ["x", ""]}, "prompt"),
        ({"prompt": ["x", "x" * 1000]}, "prompt"),
        ({"prompt": ["x" * 900] * 512, "echo": True, "logprobs": 20}, "prompt"),
    ],
)
async def test_completions_name_what_is_wrong(body: dict[str, Any], param: str) -> None:
    async with edge() as running:
        response = await running.http.post("/v1/completions", json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
