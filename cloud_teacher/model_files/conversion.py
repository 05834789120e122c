"""Converts a GGUF file to a Hugging Face folder, which vLLM can load. Each file is converted once.

The weights are dequantized to bfloat16, so the folder is about four times as large as a 4-bit file. The work runs in a process of
its own, `python -m cloud_teacher.model_files.conversion SRC.gguf DEST`. Its memory (about twice the folder) is freed when it
ends, and the caller imports neither torch nor transformers. The process writes beside DEST under a lock and renames, so DEST is
complete or absent.
"""

from __future__ import annotations

import argparse
import hashlib
import mmap
import os
import re
import shutil
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from shared.errors import ModelError, UnknownModelName
from shared.home import home
from shared.model_hub.catalog import Catalog
from shared.model_hub.local_models import ensure_gguf
from shared.model_hub.progress import Progress, Silent

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMAT = 1
"""Version in every folder's name. Increase it when the conversion changes."""

_METADATA_BYTES = 64 << 20
"""Length of the part of a GGUF file that is searched for metadata."""

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")

_ENDS_OF_TURN = ("<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|end|>", "<end_of_turn>")
"""Tokens that end an answer, beside the file's own `eos`; llama.cpp treats them alike."""


def ensure_folder(name: str, *, progress: Progress | None = None) -> str:
    """Return a value for vLLM's `model` for any model name that a user may give.

    A model of the catalogue or a GGUF file (a path, or `owner/repo:file.gguf` on the hub) is downloaded and converted if that was
    not done before. A model folder or a hub name is returned as it is.

    Raises UnknownModelName, SourceUnavailable, WrongDigest; ModelError if the file cannot be converted.
    """
    progress = progress or Silent()
    catalog = Catalog.load()
    path = Path(name).expanduser()
    if name in catalog.models:
        gguf, key = ensure_gguf(name, progress=progress), f"{name}-{catalog.get(name).sha256[:12]}"
    elif path.is_dir():
        if not (path / "config.json").is_file():
            raise UnknownModelName(f"{path} is not a model folder: it has no config.json")
        return str(path.resolve())
    elif _HUB_NAME.fullmatch(name) and not path.exists():
        return name
    else:
        gguf = ensure_gguf(name, progress=progress)
        key = f"{gguf.stem}-{_identity(gguf)}"
    folder = home() / "converted" / f"{key}-v{FORMAT}"
    if not folder.is_dir():
        progress.start(f"converting {name} for vLLM", None)
        try:
            _convert_in_process(gguf, folder)
        finally:
            progress.finish()
    return str(folder)


def _identity(path: Path) -> str:
    """Return a digest of a file's path, size and modification time, without reading it."""
    stat = path.stat()
    return hashlib.sha256(f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}".encode()).hexdigest()[:12]


def _convert_in_process(gguf: Path, folder: Path) -> None:
    """Run this module as a process. It ends with this one, because its standard input closes."""
    search = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, "-m", "cloud_teacher.model_files.conversion", "--attached", str(gguf), str(folder)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, search)), "HF_HUB_OFFLINE": "1"},
        text=True,
        errors="replace",
    ) as process:
        assert process.stderr is not None  # noqa: S101
        try:
            output = process.stderr.read().strip()
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        reason = output.splitlines()[-1] if output else "no output"
        if process.returncode < 0:
            reason = f"killed by signal {-process.returncode} (out of memory?); last output: {reason}"
        raise ModelError(f"{gguf} could not be converted for vLLM: {reason}")


def convert(gguf: Path, folder: Path) -> None:
    """Write `folder` from `gguf` in this process, unless it exists.

    A lock admits one process for each folder; others wait and find the result. Unfinished folders of earlier runs are removed.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(folder.name + ".unfinished")
    with FileLock(folder.with_name(folder.name + ".lock")):
        if folder.is_dir():
            return
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            unfinished.mkdir()
            _write(gguf, unfinished)
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def _write(gguf: Path, folder: Path) -> None:
    """Write weights, configuration, tokenizer with chat template, and generation defaults from one file."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source: dict[str, Any] = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    _fix_pre_tokenizer(tokenizer, gguf)
    tokenizer.save_pretrained(folder)

    whole = GgufConfig(dequantize=True)  # else the weights stay packed if a kernel for them is installed
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16, quantization_config=whole)
    weights: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for key, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:  # a tied output layer is the embedding again; the config marks it
            seen.add(tensor.data_ptr())
            weights[key] = tensor.contiguous()
    target = folder / "model.safetensors"
    save_file(weights, target, metadata={"format": "pt"})
    target.chmod(0o644)  # safetensors denies reading to others, but the service may run as another user

    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    generation = model.generation_config
    generation.eos_token_id = _ends(tokenizer)
    generation._from_model_config = False  # keeps transformers from deriving it again
    generation.save_pretrained(folder)


def _ends(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids that end an answer, the tokenizer's own `eos` first."""
    vocabulary = tokenizer.get_vocab()
    return list(dict.fromkeys([tokenizer.eos_token_id, *(vocabulary[t] for t in _ENDS_OF_TURN if t in vocabulary)]))


def _fix_pre_tokenizer(tokenizer: PreTrainedTokenizerBase, gguf: Path) -> None:
    """Set the file's pre-tokenizer if transformers does not.

    transformers looks at the architecture only, and misses that SmolLM splits numbers into digits.
    """
    from tokenizers import pre_tokenizers

    if _pre_tokenizer(gguf) == b"smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        rest = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, rest])


def _pre_tokenizer(gguf: Path) -> bytes | None:
    """Return the file's `tokenizer.ggml.pre`. It is searched as bytes, since `gguf.GGUFReader` takes seconds for a vocabulary.

    An entry of the metadata is the key's length and bytes, the type (8 is a string), and the value's length and bytes,
    little-endian.
    """
    key = b"tokenizer.ggml.pre"
    head = struct.pack("<Q", len(key)) + key + struct.pack("<I", 8)
    with gguf.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        begin = content.find(head, 0, _METADATA_BYTES)
        if begin < 0:
            return None
        begin += len(head)
        (length,) = struct.unpack_from("<Q", content, begin)
        return content[begin + 8 : begin + 8 + min(length, 100)]


def _end_with_standard_input() -> None:
    """Exit when the parent process ends. Reading `sys.stdin` instead would hold its lock when this process ends by itself."""
    while os.read(0, 1024):
        pass
    os._exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Convert a GGUF file to a Hugging Face folder that vLLM can load.")
    parser.add_argument("source", type=Path, metavar="SRC.gguf")
    parser.add_argument("folder", type=Path, metavar="DEST")
    parser.add_argument("--attached", action="store_true", help="end when standard input closes")
    arguments = parser.parse_args()
    if arguments.attached:
        threading.Thread(target=_end_with_standard_input, daemon=True).start()
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    try:
        convert(arguments.source, arguments.folder)
    except Exception as error:  # noqa: BLE001
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
