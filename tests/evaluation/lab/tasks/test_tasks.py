"""Each task reads the answers that it should, and no others."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.lab import tasks
from evaluation.lab.errors import BadTask
from evaluation.lab.tasks import numbers
from evaluation.lab.tasks.base import Item, Task, Verdict


def task(name: str) -> Task:
    return tasks.load(name)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("3 + 4 = 7\nThe answer is 7.", "7"),
        ("The answer is 7", "7"),
        ("the answer is: 7 apples.", "7"),
        ("The answer is $1,234.50.", "1234.5"),
        ("The answer is **12**.", "12"),
        ("The answer is -3.", "-3"),
        ("The answer is -$3.", "-3"),
        ("The answer is 007.", "7"),
        ("The answer is 1,000,000", "1000000"),
        ("The answer is 0.0", "0"),
        ("The answer is -0.", "0"),
        ("The answer is .5", "0.5"),
        ("The answer is 25%.", "25"),
        ("The answer is 2.\nNo, wait.\nThe answer is 3.", "3"),
        ("The answer is 2. The answer is 3.", "3"),
        ("The answer is 100000000000000000000000000001.", "100000000000000000000000000001"),
        (r"Thus she sold \(\boxed{72}\) clips.", "72"),
        (r"\[ \boxed{\$1{,}234.50} \]", "1234.5"),
        (r"The answer is \boxed{12 \text{ clips}}.", "12"),
        (r"It is \boxed{2}. So the answer is 3.", "3"),
        (r"The answer is 3, that is \boxed{25\%}", "25"),
    ],
)
def test_the_last_number_that_is_said_to_be_the_answer_counts(output: str, expected: str) -> None:
    assert numbers.answer(output) == expected


@pytest.mark.parametrize(
    "output",
    [
        "",
        "7",
        "So it is 7.",
        "The answer is",
        "The answer is unknown. It may be 7.",
        "The answer is 1/2.",
        "The answer is 3 + 4 = 7.",
        "The answer is 3 x 4.",
        "The answer is 10-12.",
        "The answer is 3:30.",
        "The answer is 1,23.",
        "The answer is 1.2.3",
        "The answer is seven.",
        "The answer is 2.\nThe answer is unknown.",
        "The answer is " + "9" * 200,
        "The answer is NaN",
        "The answer is 1e5",
        r"\boxed{}",
        r"\boxed{2\frac{1}{2}}",
        r"\boxed{\frac{1}{2}}",
        r"\boxed{3 \times 4}",
        r"\boxed{x = 4}",
    ],
)
def test_what_is_no_plain_number_is_no_answer(output: str) -> None:
    assert numbers.answer(output) is None


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**12), max_value=10**12))
def test_numbers_are_compared_exactly(number: Decimal) -> None:
    plain = format(number, "f")
    grouped = format(number, ",.3f")
    canonical = numbers.canonical(plain)
    assert canonical is not None
    assert Decimal(canonical) == number
    assert numbers.canonical(canonical) == canonical
    assert numbers.answer(f"The answer is {grouped}.") == numbers.answer(f"the answer is ${plain}") == canonical


@settings(deadline=None)  # the first one imports the tasks
@given(st.text(max_size=200))
def test_no_text_breaks_an_extraction(text: str) -> None:
    for name in tasks.names():
        extracted = task(name).extract(f"The answer is {text}")
        assert extracted is None or extracted


def test_gsm8k_takes_the_number_behind_the_marks() -> None:
    gsm8k = task("gsm8k")

    item = gsm8k.item({"question": "How many?", "answer": "1,000 + 80 = <<1000+80=1080>>1,080\n#### 1,080"})

    assert item == Item("How many?", "1080")
    assert gsm8k.verdict("1080", item) == Verdict(correct=True)
    assert gsm8k.verdict("108", item) == gsm8k.verdict(None, item) == Verdict(correct=False)
    with pytest.raises(ValueError, match="####"):
        gsm8k.item({"question": "How many?", "answer": "80"})


@pytest.mark.parametrize("name", ["gsm8k", "svamp", "commonsenseqa", "mbpp"])
def test_the_worked_examples_have_answers_that_the_task_itself_can_read(name: str) -> None:
    loaded = task(name)
    assert loaded.shots
    assert all(loaded.extract(shot.answer) for shot in loaded.shots)
    said = loaded.messages(Item("What now?", "x"), 2)
    assert [message.role for message in said if message.role != "system"] == ["user", "assistant"] * 2 + ["user"]
    assert said[-1].content == "What now?"


@pytest.mark.parametrize("name", ["gsm8k", "svamp", "commonsenseqa"])
def test_where_no_worked_example_shows_how_to_answer_the_question_says_it(name: str) -> None:
    chosen = task(name)
    item = Item("How many?", "7")
    [alone] = chosen.messages(item, shots=0)
    assert alone.content.startswith("How many?\n\n")
    assert chosen.answer_format is not None
    assert chosen.answer_format in alone.content
    assert chosen.messages(item, shots=1)[-1].content == "How many?"


def test_svamp_is_read_as_its_authors_write_it() -> None:
    item = task("svamp").item(
        {"ID": "c-1", "Body": "There are 3 cups ", "Question": "How many are left?", "Answer": 2.0}
    )

    assert item == Item("There are 3 cups. How many are left?", "2")


CHOICES = [{"label": "A", "text": "a cat"}, {"label": "B", "text": "a dog"}]


def test_commonsenseqa_asks_with_letters() -> None:
    item = task("commonsenseqa").item({"question": {"stem": "What barks?", "choices": CHOICES}, "answerKey": "B"})

    assert item == Item("What barks?\n(A) a cat\n(B) a dog", "B")
    with pytest.raises(ValueError, match="answerKey"):
        task("commonsenseqa").item({"question": {"stem": "What barks?", "choices": CHOICES}, "answerKey": "C"})


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("Dogs bark.\nThe answer is (B).", "B"),
        ("The answer is B", "B"),
        ("The answer is **B**.", "B"),
        ("The answer is (B) a dog.", "B"),
        ("The answer is B) a dog.", "B"),
        ("The answer is (A). Or rather: the answer is (B).", "B"),
        ("The answer is A dog", None),
        ("The answer is a dog", None),
        ("(B)", None),
        ("The answer is AB", None),
        ("The answer is (A).\nThe answer is open.", None),
    ],
)
def test_commonsenseqa_takes_a_letter_and_no_word(output: str, expected: str | None) -> None:
    assert task("commonsenseqa").extract(output) == expected


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("Here:\n```python\ndef f():\n    return 1\n```\nIt returns 1.", "def f():\n    return 1"),
        ("```\nimport re\n```", "import re"),
        ("```py\r\ndef f():\r\n    return 1\r\n```", "def f():\n    return 1"),
        ("def f():\n    return 1\n", "def f():\n    return 1"),
        ("```python\ndef f():\n    return", "def f():\n    return"),
        ("I cannot.", None),
        ("define it first", None),
        ("```python\n```", None),
    ],
)
def test_mbpp_takes_the_first_block_of_code(output: str, expected: str | None) -> None:
    assert task("mbpp").extract(output) == expected


@pytest.mark.system
def test_mbpp_runs_the_tests() -> None:
    mbpp = task("mbpp")
    item = mbpp.item({"text": "Double it.", "test_list": ["assert double(2) == 4", "assert double(0) == 0"]})

    assert "assert double(2) == 4" in item.question
    assert mbpp.verdict("def double(n):\n    return 2 * n", item) == Verdict(correct=True)
    assert mbpp.verdict("def double(n):\n    return n + 2", item) == Verdict(correct=False)


OWN = """
from evaluation.lab.tasks.base import Item, Task, Verdict

def capitals() -> Task:
    def score(extracted, item):
        return Verdict(extracted == item.target, 0.5)
    return Task("capitals", lambda record: Item(record["q"], record["a"]), lambda output: output.strip() or None, score)

def nothing():
    return 3

def broken():
    raise RuntimeError("no")
"""


def test_a_task_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN)

    loaded = tasks.load(f"{file}:capitals")

    assert loaded.name == "capitals"
    assert loaded.file_sha256
    assert loaded.verdict(loaded.extract(" Rome "), loaded.item({"q": "Italy?", "a": "Rome"})) == Verdict(True, 0.5)
    for name, reason in [("nothing", "must return a Task"), ("broken", "RuntimeError: no"), ("absent", "absent")]:
        with pytest.raises(BadTask, match=reason):
            tasks.load(f"{file}:{name}")
    for name in ("gsm9k", "gsm8k.py", f"{tmp_path}/none.py:task"):
        with pytest.raises(BadTask):
            tasks.load(name)
