"""What guidance buys the operator: with a server whose speed by load is known, so that the gain can be reckoned."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from evaluation.apis import Ask, Server, Written
from evaluation.figures import NotMeasured
from evaluation.operator_gain import ANSWER_TOKENS, BASE, measure_gain

SERVER = Server("cloud", "http://cloud")


class Shared:
    """A stream's token takes `token_s` and `share_s` for each stream under way, its first `first_s` besides."""

    def __init__(self, token_s: float, share_s: float, first_s: float = 0.0) -> None:
        self.asked: list[tuple[int, list[int]]] = []
        self.prompts: list[str] = []
        self._token_s, self._share_s, self._first_s = token_s, share_s, first_s

    def __call__(self, server: Server, asks: Sequence[Ask], at_once: int) -> list[Written]:
        self.asked.append((at_once, [ask.max_tokens for ask in asks]))
        self.prompts += [ask.prompt for ask in asks]
        free = [0.0] * at_once
        return [self._written(ask, free, at_once) for ask in asks]

    def _written(self, ask: Ask, free: list[float], at_once: int) -> Written:
        place = free.index(min(free))
        sent_s = free[place]
        free[place] += self._first_s + ask.max_tokens * (self._token_s + self._share_s * at_once)
        return Written(sent_s, [free[place]], free[place], "length", 5, ask.max_tokens)


def gains(server: Shared, lengths: Sequence[int]) -> tuple[float, float]:
    result = measure_gain(SERVER, lengths, 1, lambda _: None, ask=server)
    values = {figure.name: figure.value for figure in result.figures}
    return values["operator_gain_40"], values["operator_gain_adaptive"]


def test_without_any_cost_of_a_prompt_the_gain_is_that_of_the_tokens() -> None:
    server = Shared(0.1, 0.01)
    fixed, adaptive = gains(server, [20])
    assert fixed == pytest.approx(200 / 40)
    assert adaptive == pytest.approx(200 / 20)
    assert len(set(server.prompts)) == len(server.prompts), "no prompt is met twice"
    assert server.asked[0] == (BASE, [ANSWER_TOKENS] * 12)


def test_what_a_prompt_costs_is_held_against_short_guidance() -> None:
    fixed, _ = gains(Shared(0.1, 0.05, first_s=2.0), [20])
    # Alone: 4 at 0.3 s a token and 0.01 for the prompt. Of 40 tokens 0.05 for the prompt: 3.2 at once are as fast.
    assert 4 * 0.8 < fixed < 5 * 0.8 + 1e-6


def test_answers_that_take_no_guidance_cost_nothing() -> None:
    _, half = gains(Shared(0.1, 0.01), [20, 0] * 10)
    _, all_of_them = gains(Shared(0.1, 0.01), [20] * 20)
    assert half == pytest.approx(2 * all_of_them)


def test_a_teacher_that_is_never_so_fast_has_no_gain() -> None:
    with pytest.raises(NotMeasured, match="no number of streams has a p95"):
        gains(Shared(0.1, 0.0, first_s=10.0), [20])
