"""``report.html``: a run as one page that opens offline, on a phone and in the dark.

No script, font or address from outside: curves are inline SVG, pictures are data URIs.
"""

from __future__ import annotations

import base64
import html
import io
import json
import math
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..io.atomic import atomic_write
from .callbacks import Callback, Mode, best_row
from .report_svg import chart, heat_table

if TYPE_CHECKING:
    from .loop import Run

__all__ = ["HtmlReport", "environment"]

_COUNTERS = ("epoch", "step", "optimizer_step", "samples", "seconds", "lr")
_STYLE = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--dim:#59636e;--line:#d1d9e0;--card:#f6f8fa;--c0:#0969da;
--c1:#cf222e;--c2:#1a7f37;--c3:#8250df;--c4:#9a6700;--c5:#bf3989;--heat:9,105,218}
@media(prefers-color-scheme:dark){:root{--bg:#0d1117;--fg:#e6edf3;--dim:#9198a1;--line:#3d444d;--card:#151b23;
--c0:#58a6ff;--c1:#ff7b72;--c2:#3fb950;--c3:#bc8cff;--c4:#d29922;--c5:#f778ba;--heat:88,166,255}}
*{box-sizing:border-box}body{margin:0 auto;max-width:1100px;padding:1rem;background:var(--bg);color:var(--fg);
font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.5rem;margin:.2rem 0}h2{font-size:1.15rem;margin:2rem 0 .6rem}p{margin:.3rem 0}.dim{color:var(--dim)}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,330px),1fr));gap:1rem}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:.6rem;margin:1rem 0}
.card,.facts div,figure{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.7rem;margin:0}
.facts b{display:block;font-size:1.25rem}
.samples{display:grid;grid-template-columns:repeat(auto-fill,minmax(130px,1fr));
gap:.6rem}figure img{width:100%;image-rendering:pixelated;border-radius:4px}figcaption{font-size:.85rem}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.85rem}th,td{padding:.2rem .6rem;text-align:right;
border-bottom:1px solid var(--line);white-space:nowrap}th:first-child,td:first-child{text-align:left}
table.pairs td{white-space:normal;text-align:left}pre{overflow-x:auto;background:var(--card);padding:.7rem;
border:1px solid var(--line);border-radius:8px;font-size:.8rem;line-height:1.3}tr.best{font-weight:700}
svg{width:100%;height:auto;display:block}svg text{fill:var(--dim);font:11px system-ui,sans-serif}
table.heat td{text-align:center;min-width:2.4rem}summary{cursor:pointer}
"""


class HtmlReport(Callback):
    """Keeps ``report.html`` in a run's folder: at the start, after each epoch and at the end, whole at any moment.

    Nothing that goes wrong in it stops the run: one line on stderr says so.

    Args:
        folder: the run's folder; its ``config.json`` is shown if there is one.
        samples: ``samples(model)`` gives ``(picture, caption)`` pairs: an array (H, W), (H, W, 3) or (3, H, W) of bytes
            or of floats from 0 to 1, a PIL image, a path, or a text.
        confusion: a `ConfusionMatrix` metric, or ``confusion(model) -> matrix``; rows are targets.
        classes: names for it.
        monitor, mode: the column of the history that says which epoch is the best.
        forward: ``forward(model)`` runs the model on one example for the table of its shapes and operations.
        title: the page's heading; the model's id by default.

    >>> HtmlReport("runs/digits", monitor="val_accuracy", mode="max").path.name
    'report.html'
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        samples: Callable[[Any], Iterable[tuple[Any, str]]] | None = None,
        confusion: Any = None,
        classes: Sequence[str] | None = None,
        monitor: str | None = None,
        mode: Mode = "min",
        forward: Callable[[Any], Any] | None = None,
        title: str | None = None,
        stream: Any = None,
    ) -> None:
        self.path = Path(folder) / "report.html"
        self._samples, self._confusion, self._classes = samples, confusion, classes
        self._monitor, self._mode, self._forward, self._title = monitor, mode, forward, title
        self._stream = stream
        self._summary = ""
        self._complained = False

    def on_start(self, run: Run) -> None:
        self._began = time.time()
        self._environment = environment()
        self._guarded(self._summarise, run)
        self._guarded(self._write, run, "running")

    def on_epoch(self, run: Run, row: dict[str, Any]) -> None:
        self._guarded(self._write, run, "running")

    def on_end(self, run: Run) -> None:
        self._guarded(self._write, run, "finished" if run.finished else "stopped before its end")

    def _guarded(self, function: Callable[..., None], *args: Any) -> None:
        try:
            function(*args)
        except Exception as error:  # the run is worth more than its report
            if not self._complained:
                self._complained = True
                cause = " ".join(str(error).split()) or type(error).__name__
                print(f"warning: {self.path.name} is incomplete: {cause}", file=self._stream or sys.stderr, flush=True)

    def _summarise(self, run: Run) -> None:
        from ..utils.summary import summary

        model = run.model
        forward = self._forward
        try:
            found = summary(model, forward=None if forward is None else lambda: forward(model))
        except Exception:  # an example alone may not be what the model takes; its parameters are known all the same
            found = summary(model)
        self._summary = str(found)

    def _write(self, run: Run, state: str) -> None:
        config = _config(self.path.parent)
        title = self._title or str(config.get("model") or type(run.model).__name__)
        best = best_row(run.history, self._monitor, self._mode)
        parts = [
            f"<h1>{_e(title)}</h1>",
            f'<p class="dim">{_e(state)} · epoch {run.counters.epoch} of {run.epochs} · '
            f"{_e(time.strftime('%Y-%m-%d %H:%M', time.localtime()))}</p>",
            _facts(run, best, self._monitor),
            _curves(run.history, best),
        ]
        extras: list[tuple[str, Callable[[Any], str], Any]] = [
            ("Samples", self._pictures, self._samples),
            ("Confusion matrix", self._matrix, self._confusion),
        ]
        for heading, make, wanted in extras:
            if wanted is not None and run.history:
                try:
                    parts.append(_section(heading, make(run.evaluated_model)))
                except Exception as error:
                    parts.append(_section(heading, f"<p>not available: {_e(error)}</p>"))
        parts += [
            _section("Epochs", _history(run.history, best)),
            _section("Model", f"<pre>{_e(self._summary)}</pre>" if self._summary else ""),
            _section("Configuration", _pairs(_flat(config))),
            _section("Environment", _pairs(self._environment)),
        ]
        page = (
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
            f'content="width=device-width,initial-scale=1"><title>{_e(title)}</title><style>{_STYLE}</style></head>'
            f"<body>{''.join(parts)}</body></html>\n"
        )
        with atomic_write(self.path, "w") as file:
            file.write(page)

    def _pictures(self, model: Any) -> str:
        figures = []
        for picture, caption in _quietly(model, self._samples):
            body = f"<p>{_e(picture)}</p>" if isinstance(picture, str) else f'<img alt="" src="{data_uri(picture)}">'
            figures.append(f"<figure>{body}<figcaption>{_e(caption)}</figcaption></figure>")
        return f'<div class="samples">{"".join(figures)}</div>'

    def _matrix(self, model: Any) -> str:
        found = self._confusion
        matrix = getattr(found, "matrix", None)  # a metric, as the latest evaluation left it
        if matrix is None:
            matrix = _quietly(model, found)
        return heat_table(getattr(matrix, "tolist", lambda: matrix)(), self._classes)


def _quietly(model: Any, function: Any) -> Any:
    """The function's result in eval mode, without gradients; mode and random generators are as before."""
    from ..autograd.modes import no_grad
    from .checkpoint import capture_rng, restore_rng

    training, random = model.training, capture_rng()
    model.eval()
    try:
        with no_grad():
            found = function(model)
            return list(found) if not hasattr(found, "shape") else found
    finally:
        model.train(training)
        restore_rng(random)


def environment() -> dict[str, str]:
    """What a result depends on beside code and data: versions, processor, threads, commit, command line."""
    import numpy

    from .. import __version__
    from .._public import get_num_threads

    found = {
        "flambeau": __version__,
        "NumPy": numpy.__version__,
        "Python": platform.python_version(),
        "system": platform.platform(terse=True),
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "threads": str(get_num_threads()),
        "git commit": _commit(),
        "command line": shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]]) if sys.argv else "",
    }
    return {name: value for name, value in found.items() if value}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _commit() -> str:
    """The commit of the current folder, if git is installed and it is a working tree."""
    if shutil.which("git") is None:
        return ""

    def ask(*words: str) -> str | None:
        try:
            found = subprocess.run(["git", *words], capture_output=True, text=True, timeout=5, check=False)
        except (OSError, subprocess.SubprocessError):
            return None
        return found.stdout.strip() if found.returncode == 0 else None

    commit = ask("rev-parse", "HEAD")
    changed = ask("status", "--porcelain", "--untracked-files=no") if commit else None
    return f"{commit}{' with changes' if changed else ''}" if commit else ""


def data_uri(picture: Any) -> str:
    """A picture as a ``data:`` address: a path, a PIL image or an array. Arrays need Pillow."""
    if isinstance(picture, os.PathLike):
        data = Path(picture).read_bytes()
    else:
        if not hasattr(picture, "save"):
            picture = _image(picture)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        data = buffer.getvalue()
    kind = "jpeg" if data[:2] == b"\xff\xd8" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _image(array: Any) -> Any:
    import numpy as np
    from PIL import Image

    values = np.asarray(array.detach().numpy() if hasattr(array, "detach") else array)
    if values.ndim == 3 and values.shape[0] in (1, 3) and values.shape[-1] not in (1, 3):
        values = values.transpose(1, 2, 0)
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim not in (2, 3):
        raise ValueError(f"a picture has shape {values.shape}; it must be (H, W), (H, W, 3) or (3, H, W)")
    if values.dtype.kind == "f":
        values = np.nan_to_num(values.clip(0, 1) * 255).round()
    return Image.fromarray(values.astype(np.uint8))


def _e(text: Any) -> str:
    return html.escape(str(text))


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return _e(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _section(heading: str, body: str) -> str:
    return f'<h2>{_e(heading)}</h2><div class="wide">{body}</div>' if body else ""


def _facts(run: Run, best: dict[str, Any] | None, monitor: str | None) -> str:
    seconds = sum(row.get("seconds", 0) for row in run.history)
    minutes, rest = divmod(round(seconds), 60)
    facts = [("time", f"{minutes // 60}:{minutes % 60:02}:{rest:02}"), ("samples", f"{run.counters.samples:,}")]
    if best is not None and monitor:
        facts.insert(0, (f"best {monitor}, epoch {best['epoch']}", _number(best[monitor])))
    if run.history:
        last = run.history[-1]
        facts += [(f"last {name}", _number(last[name])) for name in last if name not in _COUNTERS][:8]
    return (
        f'<div class="facts">{"".join(f"<div><span class=dim>{_e(n)}</span><b>{v}</b></div>" for n, v in facts)}</div>'
    )


def _curves(history: list[dict[str, Any]], best: dict[str, Any] | None) -> str:
    """One chart for each quantity: training and validation together, and the learning rate."""
    groups: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for row in history:
        for name, value in row.items():
            if name in _COUNTERS and name != "lr":
                continue
            if isinstance(value, (int, float)) and math.isfinite(value):
                groups.setdefault(name.removeprefix("val_"), {}).setdefault(name, []).append((row["epoch"], value))
    groups["learning rate"] = groups.pop("lr", {})
    mark = best["epoch"] if best else None
    charts = [f'<div class="card">{chart(name, lines, mark)}</div>' for name, lines in groups.items() if lines]
    return f'<h2>Curves</h2><div class="grid">{"".join(charts)}</div>' if charts else "<p>No epoch is over yet.</p>"


def _history(history: list[dict[str, Any]], best: dict[str, Any] | None) -> str:
    if not history:
        return ""
    names = [n for n in dict.fromkeys(k for row in history for k in row) if n not in ("optimizer_step", "samples")]
    head = "".join(f"<th>{_e(name)}</th>" for name in names)
    rows = []
    for row in history:
        cells = "".join(f"<td>{_number(row.get(name, ''))}</td>" for name in names)
        mark = ' class="best"' if row is best else ""
        rows.append(f"<tr{mark}>{cells}</tr>")
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _pairs(values: Mapping[str, Any]) -> str:
    rows = "".join(f"<tr><td>{_e(name)}</td><td>{_e(value)}</td></tr>" for name, value in values.items())
    return f'<table class="pairs">{rows}</table>' if rows else ""


def _config(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {f"{prefix}{name}": value}
    return flat
