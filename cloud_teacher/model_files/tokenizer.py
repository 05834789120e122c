"""Loads a tokenizer and its chat template from a model folder, for clouds without an engine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shared.errors import ConfigurationError

FILES = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]


class FolderTokenizer:
    """The tokenizer files of a Hugging Face folder, as an `HfTokenizer`.

    Raises ConfigurationError if they cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        try:
            self.backend_tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._config: dict[str, Any] = json.loads((folder / "tokenizer_config.json").read_text())
        except Exception as error:
            raise ConfigurationError(f"tokenizer: {folder} cannot be used: {error}") from error
        template = folder / "chat_template.jinja"
        self._template: str | None = template.read_text() if template.is_file() else self._config.get("chat_template")
        end = self.special_tokens_map.get("eos_token")
        found = self.backend_tokenizer.token_to_id(end) if end else None
        if found is None:
            raise ConfigurationError(f"tokenizer: {folder} has no eos_token")
        self.end_id: int = found

    @property
    def special_tokens_map(self) -> Mapping[str, str]:
        return {
            name: token if isinstance(token, str) else token["content"]
            for name, token in self._config.items()
            if name.endswith("_token") and token is not None and not isinstance(token, bool)
        }

    def get_chat_template(self) -> str:
        if not isinstance(self._template, str):
            raise ValueError("no chat template")
        return self._template

    def count(self, text: str) -> int:
        """Return the number of tokens of a text."""
        return len(self.backend_tokenizer.encode(text, add_special_tokens=False).ids)


def load_tokenizer(name: str) -> FolderTokenizer:
    """Load the tokenizer of a folder, a hub name, or a name that `ensure_folder` accepts.

    Blocks. Raises ConfigurationError, and what `ensure_folder` raises.
    """
    from cloud_teacher.model_files.conversion import ensure_folder
    from shared.model_hub.progress import Logged

    folder = Path(ensure_folder(name, progress=Logged()))
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(name, allow_patterns=FILES))
    return FolderTokenizer(folder)
