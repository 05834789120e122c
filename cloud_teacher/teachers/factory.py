"""Builds the teachers of a cloud from its settings. A backend is imported only if a teacher uses it."""

from __future__ import annotations

import importlib

from cloud_teacher.config.settings import CloudSettings
from cloud_teacher.config.teacher import TeacherEntry
from cloud_teacher.config.teachers_file import read_teachers
from cloud_teacher.teachers.base import Teacher
from cloud_teacher.teachers.loader import Loader
from cloud_teacher.teachers.pool import PooledTeacher, TeacherPool
from shared.errors import ConfigurationError


def entry_from_settings(settings: CloudSettings) -> TeacherEntry:
    """Return the entry of the only teacher of a cloud without a teachers file."""
    if settings.upstream_url is None:
        return TeacherEntry.model_construct(name=settings.model, api="vllm", model=settings.model)
    chat = {"continuation": settings.upstream_continuation} if settings.upstream_api == "chat" else {}
    return TeacherEntry(
        name=settings.upstream_model or settings.model,
        api=settings.upstream_api,
        url=settings.upstream_url,
        tokenizer=settings.model if settings.upstream_api == "completions" else None,
        **chat,
    )


def build_teachers(settings: CloudSettings, teacher: Teacher | None = None) -> TeacherPool:
    """Return the given teacher, those of the teachers file, or the one that the other settings describe.

    Raises ConfigurationError.
    """
    if settings.teachers_file and teacher is None:
        entries = read_teachers(settings.teachers_file)
        return TeacherPool(
            [PooledTeacher(entry, prices=entry.prices or settings.prices, cools_down=True) for entry in entries]
        )
    entry = TeacherEntry.model_construct(name=teacher.model) if teacher else entry_from_settings(settings)
    return TeacherPool([PooledTeacher(entry, prices=settings.prices)])


def local_model_name(settings: CloudSettings) -> str | None:
    """Return the model of the engine in this process, or None if all teachers are other servers.

    Raises ConfigurationError if the teachers file is invalid.
    """
    entries = read_teachers(settings.teachers_file) if settings.teachers_file else [entry_from_settings(settings)]
    return next((entry.upstream_model for entry in entries if entry.api == "vllm"), None)


def open_teacher(
    entry: TeacherEntry, settings: CloudSettings, loader: Loader, traces_endpoint: str | None = None
) -> Teacher:
    """Open the teacher of an entry. Blocks, for an engine tens of seconds; call it in a thread.

    Raises ConfigurationError, ModelError, EngineFailed.
    """
    if entry.api == "vllm":
        return _engine(entry, settings, loader, traces_endpoint)
    key = entry.key()
    if settings.upstream_key and not settings.teachers_file:
        key = settings.upstream_key.get_secret_value()
    max_model_len = entry.max_model_len or settings.max_model_len
    if entry.is_custom:
        return _custom(entry, max_model_len, key)
    if entry.api == "completions":
        from cloud_teacher.model_files.tokenizer import load_tokenizer
        from cloud_teacher.teachers.openai_completions import CompletionsTeacher

        tokenizer = load_tokenizer(entry.tokenizer or entry.upstream_model)
        return CompletionsTeacher(entry, tokenizer, max_model_len=max_model_len, key=key)
    from cloud_teacher.teachers.openai_chat import ChatTeacher

    count = None
    if entry.tokenizer:
        from cloud_teacher.model_files.tokenizer import load_tokenizer

        count = load_tokenizer(entry.tokenizer).count
    return ChatTeacher(entry, max_model_len=max_model_len, key=key, count=count)


def _engine(entry: TeacherEntry, settings: CloudSettings, loader: Loader, traces_endpoint: str | None) -> Teacher:
    from cloud_teacher.model_files.conversion import ensure_folder
    from cloud_teacher.teachers.vllm_teacher import load_vllm
    from shared.model_hub.progress import Logged

    folder = ensure_folder(entry.upstream_model, progress=Logged())
    own = {"model": entry.name, "max_model_len": entry.max_model_len or settings.max_model_len}
    return load_vllm(folder, settings.model_copy(update=own), loader, traces_endpoint=traces_endpoint)


def _custom(entry: TeacherEntry, max_model_len: int, key: str | None) -> Teacher:
    module, _, function = entry.api.partition(":")
    try:
        opener = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"api: {entry.api} cannot be imported: {error}") from error
    teacher: Teacher = opener(entry, max_model_len=max_model_len, key=key)
    return teacher
