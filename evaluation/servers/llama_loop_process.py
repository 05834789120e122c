"""A bare `llama_cpp.Llama` loop to compare the edge with.

`python -m evaluation.servers.llama_loop_process MODEL THREADS CONTEXT` runs it.

Reads one request a line from standard input, `{"question": ..., "max_tokens": ...}`, and sleeps there in between. Writes one
line for each: the text, the prompt's tokens, and tokens per second from the first to the last. The only module of the
evaluation that imports llama_cpp; run as a process of its own.
"""

from __future__ import annotations

import json
import sys
import time
from itertools import islice
from typing import Any

from llama_cpp import Llama
from llama_cpp.llama_chat_format import Jinja2ChatFormatter


def main() -> None:
    path, threads, context = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    llama = Llama(path, n_ctx=context, n_threads=threads, n_threads_batch=threads, logits_all=False, verbose=False)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        request = json.loads(line)
        sys.stdout.write(json.dumps(_generate(llama, request["question"], request["max_tokens"])) + "\n")
        sys.stdout.flush()


def _generate(llama: Llama, question: str, max_tokens: int) -> dict[str, Any]:
    prompt = _prompt(llama, question)
    ids, times = [], []
    for token in islice(llama.generate(prompt, temp=0.0), max_tokens):
        times.append(time.perf_counter())
        ids.append(token)
    return {
        "text": llama.detokenize(ids, prev_tokens=prompt).decode(errors="replace"),
        "prompt_tokens": len(prompt),
        "rate": (len(times) - 1) / (times[-1] - times[0]),
    }


def _prompt(llama: Llama, question: str) -> list[int]:
    """The question in the model's own chat template. Questions are ours, so the whole text may speak control tokens."""
    bos, eos = (
        llama._model.token_get_text(token) if token >= 0 else "" for token in (llama.token_bos(), llama.token_eos())
    )
    template = llama.metadata["tokenizer.chat_template"]
    formatter = Jinja2ChatFormatter(template=template, eos_token=eos, bos_token=bos)
    prompt = formatter(messages=[{"role": "user", "content": question}]).prompt
    ids: list[int] = llama.tokenize(prompt.encode(), add_bos=False, special=True)
    return ids


if __name__ == "__main__":
    main()
