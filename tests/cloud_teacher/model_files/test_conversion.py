"""The conversion for vLLM, on the real SmolLM2-135M."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import shared
from cloud_teacher.model_files.conversion import convert, ensure_folder
from shared.errors import ModelError, UnknownModelName
from shared.model_hub.local_models import ensure_gguf

pytestmark = pytest.mark.engine

CONVERSION = [sys.executable, "-m", "cloud_teacher.model_files.conversion"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(shared.__file__).parents[1])}
IM_START, IM_END, END_OF_TEXT = 1, 2, 0


@pytest.fixture(scope="module")
def gguf() -> Path:
    return ensure_gguf("smollm2-135m-instruct")


@pytest.fixture(scope="module")
def new_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a GKT_HOME without converted models."""
    with pytest.MonkeyPatch.context() as patch:
        path = tmp_path_factory.mktemp("home")
        patch.setenv("GKT_HOME", str(path))
        yield path


@pytest.fixture(scope="module")
def folder(gguf: Path, new_home: Path) -> Path:
    return Path(ensure_folder(str(gguf)))


def test_the_folder_is_all_there_is(folder: Path, new_home: Path) -> None:
    assert folder.parent == new_home / "converted"
    assert [path for path in folder.parent.iterdir() if path.is_dir()] == [folder]


def test_weights_are_those_of_the_file_and_stored_once(folder: Path, gguf: Path) -> None:
    import torch
    from gguf import GGUFReader, dequantize
    from safetensors import safe_open
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    assert config.architectures == ["LlamaForCausalLM"]
    assert config.tie_word_embeddings
    assert not hasattr(config, "quantization_config")
    with safe_open(folder / "model.safetensors", "pt") as weights:
        shapes = {key: tuple(weights.get_slice(key).get_shape()) for key in weights.keys()}  # noqa: SIM118
        embedding = weights.get_tensor("model.embed_tokens.weight")
    assert "lm_head.weight" not in shapes
    assert len(shapes) == 9 * config.num_hidden_layers + 2
    assert shapes["model.embed_tokens.weight"] == (49152, 576)
    assert shapes["model.layers.29.self_attn.k_proj.weight"] == (192, 576)
    stored = next(tensor for tensor in GGUFReader(gguf).tensors if tensor.name == "token_embd.weight")
    wanted = torch.from_numpy(dequantize(stored.data, stored.tensor_type)).to(torch.bfloat16)
    assert embedding.dtype == torch.bfloat16
    assert torch.equal(embedding, wanted)


def test_the_tokenizer_knows_its_control_tokens_and_template(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.encode("<|im_start|>", add_special_tokens=False) == [IM_START]
    assert tokenizer.eos_token_id == IM_END
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert rendered.endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")


def test_the_tokenizer_takes_each_digit_by_itself_as_llama_cpp_does(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    pieces = [tokenizer.decode([token]) for token in tokenizer.encode("é  12 ½", add_special_tokens=False)]
    assert pieces == ["é", "  ", "1", "2", " ", "½"]


def test_either_end_token_ends_an_answer(folder: Path) -> None:
    from transformers import GenerationConfig

    assert GenerationConfig.from_pretrained(folder).eos_token_id == [IM_END, END_OF_TEXT]


def test_a_second_time_does_no_work(folder: Path, gguf: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert ensure_folder(str(gguf)) == str(folder)
    convert(gguf, folder)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.parametrize(("end", "when"), [("killed", "tokenizer.json"), ("left alone", ".")])
def test_one_that_ends_midway_leaves_no_folder(gguf: Path, tmp_path: Path, end: str, when: str) -> None:
    folder = tmp_path / "folder"
    unfinished = tmp_path / "folder.unfinished"
    with subprocess.Popen([*CONVERSION, "--attached", gguf, folder], stdin=subprocess.PIPE, env=ENVIRONMENT) as process:
        look = threading.Event()
        while not (unfinished / when).exists():
            assert process.poll() is None
            look.wait(0.02)
        if end == "killed":
            process.kill()
    assert process.returncode != 0
    assert not folder.exists()

    not_a_model = tmp_path / "x.gguf"
    not_a_model.write_bytes(b"no model")
    with pytest.raises(ValueError, match="not a GGUF file"):
        convert(not_a_model, folder)
    assert not folder.exists()
    assert not unfinished.exists()


def test_a_file_that_cannot_be_converted_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GKT_HOME", str(tmp_path))
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ModelError, match=r"broken\.gguf could not be converted for vLLM: \w+: "):
        ensure_folder(str(broken))
    assert [path for path in (tmp_path / "converted").iterdir() if path.suffix != ".lock"] == []


def test_a_folder_and_a_hub_name_stand_for_themselves(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert ensure_folder(str(tmp_path)) == str(tmp_path)
    assert ensure_folder("owner/repo") == "owner/repo"
    with pytest.raises(UnknownModelName, match=r"no config\.json"):
        ensure_folder(str(tmp_path.parent))
    with pytest.raises(UnknownModelName, match="Similar names"):
        ensure_folder("nobody")


def test_a_folder_that_exists_is_never_written_to(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    convert(tmp_path / "missing.gguf", folder)
    assert list(folder.iterdir()) == []
