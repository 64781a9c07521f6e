"""What ``flambeau-translate`` does: lines are read, then translated some at a time; one that fails stops no other."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import click

from flambeau.cli.output import print_error
from flambeau.errors import FlambeauError, UsageError
from flambeau.io.atomic import atomic_write
from flambeau_nlp.decoding import translate
from flambeau_nlp.tasks.translation import load_translator
from flambeau_nlp.text import read_lines

TRAIN = "flambeau train nlp/seq2seq --data FOLDER --set source=en --set target=de"


@dataclass(frozen=True)
class Settings:
    """The options of the command."""

    inputs: Sequence[str] = ()
    output: str | None = None
    model: str | None = None
    beam: int = 4
    batch_size: int = 16
    device: str = "cpu"
    as_json: bool = False


def run(texts: Sequence[str], settings: Settings) -> int:
    """Translate texts and files.

    Returns:
        The exit code: 0, or 1 when at least one line or file failed (or the code of an error that stops everything).
    """
    try:
        if settings.model is None:
            raise UsageError("no --model is given, and no weights ship with flambeau-translate yet", f"train: {TRAIN}")
        lines, failed = _read(texts, settings.inputs)
        if not lines:
            return 1
        module = load_translator(settings.model, settings.device)
        with _writer(settings) as write:
            for start in range(0, len(lines), settings.batch_size * 4):
                some = lines[start : start + settings.batch_size * 4]
                found = translate(module, some, settings.beam, batch_size=settings.batch_size, first=start + 1)
                for line, result in zip(some, found, strict=True):
                    record: dict[str, str | float]
                    if isinstance(result, FlambeauError):
                        print_error(result.cause, result.mend)
                        failed += 1
                        record = {"source": line, "error": result.cause, "mend": result.mend}
                    else:
                        record = {"source": line, "translation": result.text, "score": round(result.score, 4)}
                    # A failed line leaves an empty one, so that line n is still the translation of line n.
                    plain = str(record.get("translation", ""))
                    write(json.dumps(record, ensure_ascii=False) if settings.as_json else plain)
    except FlambeauError as error:
        print_error(error.cause, error.mend)
        return error.exit_code
    return 1 if failed else 0


def _read(texts: Sequence[str], inputs: Sequence[str]) -> tuple[list[str], int]:
    """The lines of all texts and files, and how many of these could not be read."""
    lines, failed = [], 0
    for text in texts:
        if text != "-":
            lines += text.splitlines() or [""]
    for source in [*(text for text in texts if text == "-"), *inputs]:
        try:
            lines += read_lines(source)
        except FlambeauError as error:
            print_error(error.cause, error.mend)
            failed += 1
    return lines, failed


@contextlib.contextmanager
def _writer(settings: Settings) -> Iterator[Callable[[str], None]]:
    """Writes lines to standard output, or to a file that appears when all are done."""
    if settings.output in (None, "-"):
        yield _echo
        return
    assert settings.output is not None
    for source in settings.inputs:
        if os.path.exists(source) and os.path.exists(settings.output) and os.path.samefile(source, settings.output):
            raise FlambeauError(f"{settings.output} would overwrite an input", "give another output")
    with atomic_write(settings.output, "w") as file:

        def write(line: str) -> None:
            file.write(line + "\n")

        yield write


def _echo(line: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    click.echo(line.encode(encoding, "replace").decode(encoding, "replace"))
