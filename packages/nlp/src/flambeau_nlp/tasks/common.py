"""What the tasks share: loading a model of the right kind and writing a text file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flambeau.errors import FlambeauError
from flambeau.io.atomic import atomic_write
from flambeau.plugins import load_model


def load(model: str, device: str, fields: tuple[str, ...], does: str) -> Any:
    """A trained model in eval mode whose config has `fields`.

    Raises:
        FlambeauError: not there, damaged, or a model of another kind.
    """
    module = load_model(model)
    config = getattr(module, "config", None)
    if not all(hasattr(config, name) for name in fields):
        raise FlambeauError(
            f"{model}: a {type(module).__name__} does not {does}",
            "`flambeau models list` shows the task of each model",
        )
    return module.to(device).eval()


def write_result(text: str, source: str, output: str | None, several: bool, ending: str) -> dict[str, str]:
    """Writes the result of an input to `output`, or into it when it is a folder; the record's ``path``, if any."""
    if output is None:
        return {}
    path = Path(output)
    if several or path.is_dir():
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FlambeauError(f"cannot create {path}: {error.strerror}", "choose another output folder") from error
        stem = "stdin" if source == "-" else Path(source.removesuffix(".gz")).stem
        path = path / f"{stem}{ending}"
    if source != "-" and path.exists() and Path(source).exists() and path.samefile(source):
        raise FlambeauError(f"{path} would overwrite its input", "give another output")
    with atomic_write(path, "w") as file:
        file.write(text if text.endswith("\n") else text + "\n")
    return {"path": str(path)}


def failure(source: str, error: FlambeauError) -> dict[str, str]:
    """The record of an input that failed."""
    cause = error.cause.removeprefix(source).lstrip(": ")  # whoever prints a record names its input
    return {"input": source, "error": cause, "mend": error.mend}
