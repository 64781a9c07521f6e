"""Event files for TensorBoard, as a callback. Needs tensorboardX (extra ``[tensorboard]``)."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtraError
from ..io.atomic import atomic_write
from .callbacks import Callback

if TYPE_CHECKING:
    from .loop import Run

__all__ = ["TensorBoard"]

_COUNTERS = ("epoch", "step", "optimizer_step", "samples", "seconds", "lr")


class TensorBoard(Callback):
    """Writes loss and learning rate by step and the history's columns by epoch, all over the batches seen.

    A folder belongs to one run. When a run goes on from a checkpoint, what was written past that point is taken out of
    the folder's files, so that no step is there twice; when one starts anew, older files move to ``superseded/``.

    Args:
        folder: for the event files; a run's folder ``/tensorboard``.
        every: optimizer steps between two points of the step curves.
        histograms: also write the distribution of every parameter after each epoch.
        images: ``images(model)`` gives ``(name, picture)`` pairs after each epoch: arrays (H, W), (H, W, 3) or
            (3, H, W) of bytes or of floats from 0 to 1.
        texts: name -> text, written once at the start.
        hparams: name -> value of the run's options, shown beside its final metrics.

    Raises:
        MissingExtraError: tensorboardX is not installed.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        every: int = 10,
        histograms: bool = False,
        images: Callable[[Any], Iterable[tuple[str, Any]]] | None = None,
        texts: Mapping[str, str] | None = None,
        hparams: Mapping[str, Any] | None = None,
    ) -> None:
        if every < 1:
            raise ValueError(f"TensorBoard: every must be at least 1, not {every}")
        self._folder = Path(folder)
        self._every, self._histograms, self._images = every, histograms, images
        self._texts, self._hparams = dict(texts or {}), dict(hparams or {})
        self._writer: Any = None
        self._library()

    @staticmethod
    def _library() -> Any:
        try:
            import tensorboardX
        except ModuleNotFoundError as error:
            mend = "pip install 'flambeau-core[tensorboard]'"
            raise MissingExtraError("event files for TensorBoard need tensorboardX", mend) from error
        return tensorboardX

    def on_start(self, run: Run) -> None:
        resumed = run.counters.step > 0
        _make_room(self._folder, run.counters.step if resumed else None)
        # The suffix: a run that goes on within the second would write over the file of that second.
        suffix = f".from{run.counters.step}"
        self._writer = self._library().SummaryWriter(str(self._folder), filename_suffix=suffix)
        if not resumed:
            for name, text in self._texts.items():
                self._writer.add_text(name, text, 0)

    def on_step(self, run: Run) -> None:
        if run.counters.optimizer_step % self._every == 0:
            step = run.counters.step
            self._writer.add_scalar("step/loss", run.recent_loss, step)
            self._writer.add_scalar("step/lr", float(run.optimizer.param_groups[0]["lr"]), step)

    def on_epoch(self, run: Run, row: dict[str, Any]) -> None:
        step = run.counters.step
        for name, value in row.items():
            if name not in _COUNTERS and isinstance(value, (int, float)):
                self._writer.add_scalar(f"epoch/{name}", value, step)
        self._writer.add_scalar("epoch/seconds", row["seconds"], step)
        if self._histograms:
            for name, parameter in run.model.named_parameters():
                self._writer.add_histogram(name.replace(".", "/"), parameter.detach().cpu().numpy(), step)
        if self._images is not None:
            import numpy as np

            from .report import _image, _quietly

            for name, picture in _quietly(run.evaluated_model, self._images):
                pixels = np.asarray(_image(picture).convert("RGB"))
                self._writer.add_image(name, pixels, step, dataformats="HWC")
        self._writer.flush()

    def on_end(self, run: Run) -> None:
        if self._writer is None:
            return
        if run.finished and self._hparams and run.history:
            plain = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in self._hparams.items()}
            last = {f"hparam/{k}": v for k, v in run.history[-1].items() if k not in _COUNTERS}
            self._writer.add_hparams(plain, last, name="hparams", global_step=run.counters.step)
        self._writer.close()


def _make_room(folder: Path, step: int | None) -> None:
    """Takes events after `step` out of the folder's files; None moves the files away."""
    files = sorted(folder.glob("events.out.tfevents.*"))
    if step is None:
        for file in files:
            (folder / "superseded").mkdir(exist_ok=True)
            file.replace(folder / "superseded" / file.name)
        return
    from tensorboardX.proto.event_pb2 import Event

    for file in files:
        kept = []
        for record, payload in _records(file.read_bytes()):
            event = Event.FromString(payload)
            if event.step <= step:
                kept.append(record)
        with atomic_write(file) as out:
            out.write(b"".join(kept))


def _records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Whole records of an event file: length (8 bytes), its checksum (4), the payload, its checksum (4)."""
    place = 0
    while place + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        end = place + 12 + length + 4
        if end > len(data):  # a run that was killed leaves half a record
            return
        yield data[place:end], data[place + 12 : end - 4]
        place = end
