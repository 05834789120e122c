"""A teacher of two layers, cut from SmolLM2-135M: for tests of how an engine's processes start and end, whatever it writes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from cloud_teacher.model_files.conversion import ensure_folder

LAYERS = 2
_LAYER = re.compile(r"model\.layers\.(\d+)\.")


def cut(model: str, folder: Path) -> None:
    """Write the model's first layers, its embedding and its tokenizer to `folder`, which does not exist yet."""
    source = Path(ensure_folder(model))
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("model.safetensors"))
    config = json.loads((source / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": LAYERS}))
    _cut_weights(source / "model.safetensors", folder / "model.safetensors")


def _cut_weights(source: Path, target: Path) -> None:
    """Copy the tensors that are left. A file of safetensors is the length of a header, the header as JSON, and the tensors."""
    with source.open("rb") as read, target.open("wb") as write:
        length = int.from_bytes(read.read(8), "little")
        header = json.loads(read.read(length))
        kept = {name: tensor for name, tensor in header.items() if name != "__metadata__" and _is_kept(name)}
        begins = {name: tensor["data_offsets"] for name, tensor in kept.items()}
        end = 0
        for tensor in kept.values():
            begin, stop = tensor["data_offsets"]
            tensor["data_offsets"] = [end, end + stop - begin]
            end += stop - begin
        text = json.dumps({"__metadata__": header.get("__metadata__", {}), **kept}).encode()
        write.write(len(text).to_bytes(8, "little") + text)
        for begin, stop in begins.values():
            read.seek(8 + length + begin)
            write.write(read.read(stop - begin))


def _is_kept(name: str) -> bool:
    layer = _LAYER.match(name)
    return layer is None or int(layer[1]) < LAYERS
