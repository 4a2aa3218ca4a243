"""Settings of a coordinator or an agent: a TOML file with a model, and errors that name the file and the key."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from common.errors import DeploymentError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")  # of coordinators, sites, runs and the parts of a bundle's name
Model = TypeVar("Model", bound=BaseModel)


def read_settings(path: Path, model: type[Model]) -> Model:
    """The settings in a file. Raises ``DeploymentError``: it cannot be read, or a setting is wrong."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DeploymentError(f"cannot read {path}: {error}", remedy="Correct the file.") from None
    return checked_settings(raw, model, path)


def checked_settings(raw: Mapping[str, Any], model: type[Model], path: Path) -> Model:
    """Settings that stand in ``path``, or are going to. Raises ``DeploymentError``: one is wrong."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise DeploymentError(f"{path}: {wrong}", remedy="Correct the file.") from None
