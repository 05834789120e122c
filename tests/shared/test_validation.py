from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from shared.validation import describe, first_problem


class Item(BaseModel):
    size: int

    @field_validator("size")
    @classmethod
    def _positive(cls, size: int) -> int:
        if size < 1:
            raise ValueError("must be positive")
        return size


class Order(BaseModel):
    model_config = ConfigDict(extra="forbid")

    items: list[Item]

    @model_validator(mode="after")
    def _not_empty(self) -> Order:
        if not self.items:
            raise ValueError("has no items")
        return self


def error(*sizes: object) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        Order.model_validate({"items": [{"size": size} for size in sizes]})
    return caught.value


def test_problems_name_the_field_and_leave_out_the_input() -> None:
    assert describe(error(0, "secret")) == (
        "items.0.size: must be positive; items.1.size: Input should be a valid integer, unable to parse string as an integer"
    )
    assert first_problem(error(1, 0)) == ("items.1.size", "must be positive")


def test_a_problem_of_the_whole_has_no_field() -> None:
    assert describe(error()) == "has no items"


def test_many_problems_are_counted() -> None:
    assert describe(error(*[0] * 5)).endswith("items.2.size: must be positive; and 2 more")
