"""The folder builders live next to the tests; importlib mode does not put them on the path."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def folders() -> ModuleType:
    spec = importlib.util.spec_from_file_location("adamant_report_folders", Path(__file__).with_name("folders.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def two(folders, tmp_path):
    """Two models on the same rows under the same threat."""
    return [
        folders.audit_folder(tmp_path / "a", name="ordinary", held=0.15),
        folders.audit_folder(tmp_path / "b", name="hardened", held=0.7, seed=3),
    ]
