"""Backends of the operator's own, named in a teacher's entry."""

from __future__ import annotations

import pytest

from cloud_teacher.config.settings import CloudSettings
from cloud_teacher.config.teacher import TeacherEntry
from cloud_teacher.teachers.factory import open_teacher
from cloud_teacher.teachers.loader import Loader
from shared.errors import ConfigurationError


@pytest.mark.parametrize("api", ["no_such_package.backend:open_teacher", "cloud_teacher.teachers.base:no_function"])
def test_a_backend_that_cannot_be_imported_is_an_error_of_the_configuration(api: str) -> None:
    entry = TeacherEntry(name="own", api=api)
    with pytest.raises(ConfigurationError, match=f"api: {api} cannot be imported"):
        open_teacher(entry, CloudSettings(), Loader())
