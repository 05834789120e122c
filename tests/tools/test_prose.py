"""The prose checker finds each kind of violation at its line, and nothing else."""

from tools.prose import RULES, Violation, check

SOURCE = '''"""Of a module."""

LIMIT = 3
"""What is allowed.

More of it."""

"""Of nothing: this string documents no assignment."""


class Box:
    """A box for whoever comes."""

    def __init__(self) -> None:
        self.size = 1
        """So large."""

    def open(self) -> str:
        """Open it, as its label says.

        Nothing of it stays."""
        # but for the lid
        return f"{self.size} is likewise wrong"


async def software() -> str:
    """Software starts like `So`, and may."""
    return "Of course, a message may begin like this"
'''


def found(name: str) -> list[Violation]:
    return list(check("box.py", SOURCE, [rule for rule in RULES if rule.name == name]))


def test_docstrings_of_modules_classes_functions_and_attributes_are_sentences() -> None:
    assert [(violation.line, violation.excerpt) for violation in found("docstring-start")] == [
        (1, "Of a module."),
        (4, "What is allowed."),
        (16, "So large."),
    ]


def test_phrases_are_found_in_docstrings_comments_and_messages() -> None:
    assert [violation.line for violation in found("whoever")] == [12]
    assert [violation.line for violation in found("nothing of")] == [21]
    assert [violation.line for violation in found("but for")] == [22]
    assert [violation.line for violation in found("likewise")] == [23]


def test_software_does_not_speak() -> None:
    assert [violation.line for violation in found("verbs")] == [19]


def test_a_violation_names_its_place() -> None:
    (violation,) = found("likewise")
    assert str(violation) == "box.py:23: 'likewise': repeat the verb: likewise wrong"


def test_pages_are_read_across_line_ends() -> None:
    rules = [rule for rule in RULES if rule.name in {"but for", "docstring-start"}]
    page = "# Boxes\n\nWhat boxes are. All but\nfor one.\n"
    assert [violation.line for violation in check("docs/box.md", page, rules)] == [3]
