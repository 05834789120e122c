"""Templates: strict files, clear errors, and questions that stay data."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from shared.errors import ConfigurationError, UnknownTemplate
from shared.prompting.templates import Template, Templates
from shared.protocol.guidance import Message

CONVERSATION = [
    Message(role="system", content="Be brief."),
    Message(role="user", content="1+1?"),
    Message(role="assistant", content="2"),
    Message(role="user", content="  {{ 7 * 7 }} {% raw %}\n\n"),
]


def write(root: Path, text: str, name: str = "draft", version: int = 1) -> Path:
    file = root / name / f"{version}.md"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode())
    return file


def draft(body: str, *, version: int = 1, more: str = "") -> str:
    return f"---\nname: draft\nversion: {version}\nsummary: A terse draft.\n{more}---\n{body}\n"


def load_one(root: Path, text: str) -> Template:
    write(root, text)
    return Templates.load(root).get("draft")


def test_gkts_own_way_leaves_the_conversation_as_it_is() -> None:
    answer = Templates.load().get("answer@1")
    assert answer.apply(CONVERSATION) == CONVERSATION
    assert answer.apply(CONVERSATION[:1]) == CONVERSATION[:1]


def test_identified_by_name_version_and_the_files_hash() -> None:
    file = Path(__file__).parents[3] / "prompts" / "answer" / "1.md"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    templates = Templates.load()
    assert templates.get("answer").identity.startswith("answer@")
    assert templates.get("answer@1").identity == f"answer@1#{digest}"
    assert templates.get(f"answer@1#{digest}") is templates.get("answer@1")


def test_the_newest_version_counts_by_number(tmp_path: Path) -> None:
    for version in (9, 10, 2):
        write(tmp_path, draft("{{ question }}", version=version), version=version)
    templates = Templates.load(tmp_path)
    assert templates.get("draft").version == 10
    assert templates.get("draft@9").version == 9
    assert [template.version for template in templates] == [2, 9, 10]


def test_the_body_becomes_the_last_user_message_and_the_question_is_data(tmp_path: Path) -> None:
    template = load_one(tmp_path, draft("Draft an answer.\n\n{{ question }}\n\nIn telegraph style:"))
    applied = template.apply(CONVERSATION)
    assert applied[:3] == CONVERSATION[:3]
    assert applied[3].content == "Draft an answer.\n\n  {{ 7 * 7 }} {% raw %}\n\n\n\nIn telegraph style:"


def test_a_message_behind_the_question_stays(tmp_path: Path) -> None:
    messages = [*CONVERSATION[:2], Message(role="assistant", content="It is")]
    assert load_one(tmp_path, draft("Q: {{ question }}")).apply(messages) == [
        CONVERSATION[0],
        Message(role="user", content="Q: 1+1?"),
        Message(role="assistant", content="It is"),
    ]


def test_system_text_joins_the_system_message_or_becomes_one(tmp_path: Path) -> None:
    template = load_one(tmp_path, draft("{{ question }}", more="system: Only a draft.\n"))
    assert template.apply(CONVERSATION)[0] == Message(role="system", content="Be brief.\n\nOnly a draft.")
    assert template.apply(CONVERSATION[1:2]) == [Message(role="system", content="Only a draft."), CONVERSATION[1]]


def test_line_ends_of_the_file_make_no_difference(tmp_path: Path) -> None:
    template = load_one(tmp_path, draft("Draft:\n{{ question }}").replace("\n", "\r\n"))
    assert template.apply(CONVERSATION[1:2])[0].content == "Draft:\n1+1?"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ question }}", "front matter"),
        ("---\nname: draft\n{{ question }}", "expected a line ---"),
        ("---\n- a list\n---\n{{ question }}", "front matter"),
        ("---\nname: [\n---\n{{ question }}", "not YAML"),
        ("---\nname: draft\nversion: 1\n---\n{{ question }}", "summary"),
        (draft("{{ question }}", more="colour: red\n"), "colour"),
        (draft("{{ question }}").replace("version: 1", "version: '1'"), "version"),
        (draft("{{ question }}").replace("version: 1", "version: 0"), "version"),
        (draft("{{ question }}", more="system: ''\n"), "system"),
        (draft("{{ question }} {{ reply }}"), "unknown variable reply"),
        (draft("Draft an answer."), "does not use question"),
        (draft("Draft:\n{% if question"), "body, line 2"),
        (draft("{{ question | shout }}"), "shout"),
        (draft("{{ question }}", version=2), "belongs in draft/2.md"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigurationError) as caught:
        Templates.load(tmp_path)
    assert str(file) in caught.value.message
    assert message in caught.value.message


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "")
    file.write_bytes(b"---\nname: \xff")
    with pytest.raises(ConfigurationError, match="utf-8"):
        Templates.load(tmp_path)


def test_a_folder_that_holds_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no templates"):
        Templates.load(tmp_path)
    with pytest.raises(ConfigurationError, match="no such folder"):
        Templates.load(tmp_path / "elsewhere")


@pytest.mark.parametrize("reference", ["drafts", "answer@99", "answer@", "", "answer@1#00000000", "../answer"])
def test_an_unknown_template_says_what_there_is(reference: str) -> None:
    with pytest.raises(UnknownTemplate, match="answer@1") as caught:
        Templates.load().get(reference)
    assert caught.value.param == "template"


def test_a_template_may_leave_out_what_was_said_before(tmp_path: Path) -> None:
    template = load_one(tmp_path, draft("{{ question }}", more="conversation: last\n"))
    assert template.apply(CONVERSATION) == [CONVERSATION[0], CONVERSATION[-1]]
    assert template.apply(CONVERSATION[1:]) == [CONVERSATION[-1]]
    assert template.apply([*CONVERSATION, Message(role="assistant", content="4")]) == [
        CONVERSATION[0],
        CONVERSATION[-1],
        Message(role="assistant", content="4"),
    ]


def test_a_template_for_the_student_has_a_place_for_the_draft(tmp_path: Path) -> None:
    template = load_one(tmp_path, draft("{{ question }} ({{ answer }})"))
    assert template.takes_answer
    assert template.apply(CONVERSATION[1:2], answer="{{ 2 }}")[0].content == "1+1? ({{ 2 }})"
    assert not Templates.load().get("answer").takes_answer
