"""Contents that could not be used, or could hold up the cloud, are refused."""

from __future__ import annotations

import pytest

from cloud_teacher.registry.artifacts import Kind, canonical
from shared.errors import InvalidRequest

FRONT = "---\nsummary: x\n---\n"
TEMPLATE = f"{FRONT}{{{{ question }}}}\n"


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("templates/terse", "no front matter", "expected front matter"),
        ("templates/terse", TEMPLATE.replace("question", "query"), "unknown variable query"),
        ("templates/terse", "---\nname: other\nsummary: x\n---\n{{ question }}", "names 'other'"),
        ("templates/terse", "---\nsummary: x\ncolour: red\n---\n{{ question }}", "colour"),
        ("templates/terse", f"{FRONT}{{{{ question.a.b }}}}", "line 1: Getattr is not allowed"),
        (
            "templates/terse",
            f"{FRONT}{{{{ question }}}}{{% for a in range(9000) %}}{{% endfor %}}",
            "For is not allowed",
        ),
        ("templates/terse", f"{FRONT}{{{{ question }}}}{{{{ 'x' * 100000000 }}}}", "Mul is not allowed"),
        ("templates/terse", f"{FRONT}{{{{ question }}}}{{{{ lipsum() }}}}", "Call is not allowed"),
        ("templates/terse", f"{FRONT}{{{{ question | center(99999999) }}}}", "center is not allowed"),
        ("templates/terse", FRONT + "{{ question }}" * 11, "in 11 places; the limit is 10"),
        ("templates/terse", f"{FRONT}{{{{ {'(' * 3000}question{')' * 3000} }}}}", "nested too deeply"),
        ("templates/terse", f"---\nsummary: {'[' * 5000}\n---\n{{{{ question }}}}", "nested too deeply"),
        ("templates/terse", "---\nsummary: &a x\nsystem: *a\n---\n{{ question }}", "has a YAML alias"),
        ("templates/terse", f"{FRONT}{{% if question < 5 %}}{{% endif %}}{{{{ question }}}}", "does not render"),
        ("templates/terse", f"{FRONT}{{{{ question }}}}\0", "NUL character"),
        ("templates/terse", FRONT + "{{ question }}" + "y" * 99_950, "the limit is 100000"),
        ("policies/maths", '{"mode": "review", "acceptance_threshold": 7}', "acceptance_threshold"),
        ("policies/maths", '{"mode": "review", "doubt": 0.5}', "doubt"),
        ("policies/maths", "[]", "is a list; expected an object"),
        ("policies/maths", "{", "is not JSON"),
    ],
)
def test_such_content_is_refused(path: str, content: str, message: str) -> None:
    kind, _, name = path.partition("/")
    with pytest.raises(InvalidRequest) as refused:
        canonical(Kind.TEMPLATE if kind == "templates" else Kind.POLICY, name, content, 1)
    assert message in refused.value.message


def test_the_rest_is_stored_with_its_name_and_number() -> None:
    stored = canonical(Kind.TEMPLATE, "terse", "\ufeff" + TEMPLATE.replace("\n", "\r\n"), 7)
    assert stored == "---\nname: terse\nversion: 7\nsummary: x\n---\n{{ question }}\n"
    assert canonical(Kind.TEMPLATE, "terse", stored, 7) == stored
