"""What a plugin registers: frozen, JSON-serialisable descriptions that name code by import path.

Nothing here imports an array library, and registering a spec imports none of the code that it names: an import path
``"package.module:attribute"`` is resolved when the thing is used. The protocols at the end say what must stand behind
each path.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol

from .errors import SpecError

API_VERSION = 1
"""The plugin API of this release. A plugin module may declare ``FLAMBEAU_API = 1``; another number is refused."""

_ID = re.compile(r"[a-z0-9][a-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_COMMAND = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


class _Spec:
    """Checks at construction and the way to and from JSON, shared by the specs below."""

    __slots__ = ()
    _family: ClassVar[str]
    _paths: ClassVar[tuple[str, ...]] = ()
    _paths_needed: ClassVar[tuple[str, ...]] = ()
    _lists: ClassVar[tuple[str, ...]] = ("aliases", "tags")
    _texts: ClassVar[tuple[str, ...]] = ("summary",)
    _references: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        self._check_id()
        for name in self._texts:
            text = getattr(self, name)
            if not isinstance(text, str) or "\n" in text:
                raise self._bad(f"{name} must be one line of text, not {text!r}")
        for name in self._paths:
            path = getattr(self, name)
            if path is None and name not in self._paths_needed:
                continue
            if not isinstance(path, str) or not _PATH.fullmatch(path):
                raise self._bad(f"{name} must be an import path such as 'package.module:name', not {path!r}")
        for name in self._references:
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and (_ID.fullmatch(value) or _NAME.fullmatch(value))):
                raise self._bad(f"{name} must be an id such as 'vision/classification', not {value!r}")
        for name in self._lists:
            values = getattr(self, name)
            if isinstance(values, str) or not isinstance(values, Iterable):
                raise self._bad(f"{name} must be a tuple of strings, not {values!r}")
            values = tuple(values)
            if not all(isinstance(value, str) and value for value in values):
                raise self._bad(f"{name} must be a tuple of non-empty strings, not {values!r}")
            object.__setattr__(self, name, values)
        for alias in getattr(self, "aliases", ()):
            if not _NAME.fullmatch(alias):
                raise self._bad(f"alias {alias!r} must be a short name of letters, digits, '.', '_' and '-'")

    def _check_id(self) -> None:
        value = getattr(self, "id", None)
        if not isinstance(value, str) or not _ID.fullmatch(value):
            raise self._bad("id must be 'namespace/name' (lower-case namespace; letters, digits, '.', '_', '-')")

    def _bad(self, problem: str) -> SpecError:
        key = getattr(self, "id", None) or getattr(self, "name", None)
        return SpecError(f"{type(self).__name__}({key!r}): {problem}")

    @property
    def namespace(self) -> str:
        """The part of the id before the slash."""
        return self.key.partition("/")[0]

    @property
    def short_name(self) -> str:
        """The part of the id after the slash."""
        return self.key.partition("/")[2] or self.key

    @property
    def key(self) -> str:
        """What the spec is registered under: its id, or a command's name."""
        return self.id  # type: ignore[attr-defined,no-any-return]

    def to_dict(self) -> dict[str, Any]:
        """The spec as a JSON-ready dict (tuples become lists)."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> _Spec:
        """The spec that `to_dict` described. Unknown keys raise `SpecError`."""
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]
        if unknown := sorted(set(values) - known):
            raise SpecError(f"{cls.__name__} has no field {unknown[0]!r}; it has {', '.join(sorted(known))}")
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec(_Spec):
    """A model family that ``flambeau.plugins.create_model`` can build.

    Args:
        id: ``"namespace/name"``.
        factory: import path of a callable that returns a ``flambeau.nn.Module``. With `config` it is called as
            ``factory(config)``, without as ``factory(**options)``.
        config: import path of a dataclass whose fields are the options, or None.
        summary: one line for listings.
        task: id of the `TaskSpec` that evaluates and predicts.
        trainer: id of the `TrainerSpec` to use; None means the task's own.
        parameters: number of parameters with the default options, or None when it has no fixed number.
        aliases: short names that also find the model (the part after the slash always does).
        architectures: names in the ``architectures`` list of a Hugging Face ``config.json`` that this model loads.
        model_type: ``model_type`` of a Hugging Face ``config.json`` that this model loads.
        from_config: import path of a function that gives the options for the contents of such a ``config.json`` (a
            `FromConfig`); without it the keys that the options have in common with it are taken.
        map_state: import path of a function that renames the tensors of such a folder (a `MapState`).
        weights: addresses of trained weights, the default one first (see ``flambeau.plugins.resolve_weights``).
        tags: free words for filtering.

    >>> spec = ModelSpec(id="lab/mlp", factory="lab.mlp:MLP", parameters=42)
    >>> spec.namespace, ModelSpec.from_dict(spec.to_dict()) == spec
    ('lab', True)
    """

    id: str
    factory: str
    config: str | None = None
    summary: str = ""
    task: str | None = None
    trainer: str | None = None
    parameters: int | None = None
    aliases: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    model_type: str | None = None
    from_config: str | None = None
    map_state: str | None = None
    weights: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    _family = "models"
    _paths = ("factory", "config", "from_config", "map_state")
    _paths_needed = ("factory",)
    _lists = ("aliases", "architectures", "weights", "tags")
    _references = ("task", "trainer")

    def __post_init__(self) -> None:
        _Spec.__post_init__(self)
        if self.model_type is not None and not (isinstance(self.model_type, str) and self.model_type):
            raise self._bad(f"model_type must be a text or None, not {self.model_type!r}")
        count = self.parameters
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 0):
            raise self._bad(f"parameters must be a whole number or None, not {count!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerSpec(_Spec):
    """A way to train: ``factory`` is a `TrainerFactory`.

    Args:
        config: import path of a dataclass whose fields are the accepted options (shown by ``trainers info``), or None.
        needs_data: whether ``flambeau train`` insists on ``--data`` (an environment's trainer makes its own).
    """

    id: str
    factory: str
    config: str | None = None
    summary: str = ""
    needs_data: bool = True
    aliases: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    _family = "trainers"
    _paths = ("factory", "config")
    _paths_needed = ("factory",)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSpec(_Spec):
    """A dataset reader: ``factory`` is a `DatasetFactory`. Nothing is downloaded by registering it.

    Args:
        splits: names of its splits.
        licence: licence of the data, in a word or two.
        url: where the data comes from.
    """

    id: str
    factory: str
    summary: str = ""
    task: str | None = None
    splits: tuple[str, ...] = ()
    licence: str = ""
    url: str = ""
    aliases: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    _family = "datasets"
    _paths = ("factory",)
    _paths_needed = ("factory",)
    _lists = ("splits", "aliases", "tags")
    _texts = ("summary", "licence", "url")
    _references = ("task",)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec(_Spec):
    """What is done with a model: makes ``train``, ``evaluate`` and ``predict`` generic.

    Either give whole functions (`evaluate`: an `Evaluate`; `predict`: a `Predict`), or the parts that the generic ones
    are composed of: `load_input`, `collate`, `decode`, `write_output` for predicting, and `load_data`, `collate`,
    `decode`, `metrics` for evaluating (`LoadInput` … `Metrics` say how each is called). All are import paths.

    Args:
        trainer: id of the default `TrainerSpec`.
        explain: import path of an `Explain`: makes ``flambeau explain`` work.
        needs_data: whether ``flambeau evaluate`` insists that ``--data`` is a path or a dataset's id (without it, any
            text goes to `evaluate` as it is: an environment's name).
    """

    id: str
    summary: str = ""
    trainer: str | None = None
    evaluate: str | None = None
    predict: str | None = None
    load_input: str | None = None
    load_data: str | None = None
    collate: str | None = None
    decode: str | None = None
    metrics: str | None = None
    write_output: str | None = None
    explain: str | None = None
    needs_data: bool = True
    aliases: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    _family = "tasks"
    _paths = (
        "evaluate",
        "predict",
        "load_input",
        "load_data",
        "collate",
        "decode",
        "metrics",
        "write_output",
        "explain",
    )
    _references = ("trainer",)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExporterSpec(_Spec):
    """A file format that models are written to: ``factory`` is an `Exporter`.

    Args:
        suffixes: file name endings, such as ``(".onnx",)``.
        requires: what must be installed beside it, as pip spells it (``"flambeau-core[onnx]"``), or empty.
    """

    id: str
    factory: str
    summary: str = ""
    suffixes: tuple[str, ...] = ()
    requires: str = ""
    aliases: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()

    _family = "exporters"
    _paths = ("factory",)
    _paths_needed = ("factory",)
    _lists = ("suffixes", "aliases", "tags")
    _texts = ("summary", "requires")


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSpec(_Spec):
    """A sub-command of ``flambeau``.

    Args:
        name: what is typed: lower-case words joined by ``-``.
        command: import path of a ``click.Command``; imported when the command runs, not to list it.
        summary: one line for ``flambeau --help``.
    """

    name: str
    command: str
    summary: str = ""

    _family = "commands"
    _paths = ("command",)
    _paths_needed = ("command",)
    _lists = ()

    def _check_id(self) -> None:
        if not isinstance(self.name, str) or not _COMMAND.fullmatch(self.name):
            raise self._bad("name must be lower-case words joined by '-'")

    @property
    def key(self) -> str:
        return self.name


Spec = ModelSpec | TrainerSpec | DatasetSpec | TaskSpec | ExporterSpec | CommandSpec

FAMILIES: dict[str, type[_Spec]] = {
    kind._family: kind for kind in (ModelSpec, TrainerSpec, DatasetSpec, TaskSpec, ExporterSpec, CommandSpec)
}
"""Family name (``"models"`` …) to the class of its specs; the hook is ``flambeau_register_<family>``."""


def resolve(path: str) -> Any:
    """The object behind an import path ``"package.module:attribute"``.

    Raises:
        ImportError: the module cannot be imported.
        AttributeError: the module has no such attribute.

    >>> resolve("os.path:join").__name__
    'join'
    """
    module_name, _, attribute = path.partition(":")
    found: Any = importlib.import_module(module_name)
    for name in attribute.split("."):
        found = getattr(found, name)
    return found


class FromConfig(Protocol):
    """What `ModelSpec.from_config` names: the model's options for the contents of a ``config.json``."""

    def __call__(self, config: dict[str, Any]) -> Mapping[str, Any]: ...


class MapState(Protocol):
    """What `ModelSpec.map_state` names: the model's state dict from the tensors of a folder and its ``config.json``.

    Tensors that the model has no use for are left out of the result; those that it lacks, or has too many of, are then
    reported by name.
    """

    def __call__(self, state: dict[str, Any], config: dict[str, Any]) -> Mapping[str, Any]: ...


class TrainerFactory(Protocol):
    """What `TrainerSpec.factory` names: trains and returns the final metrics.

    ``flambeau train`` resolves ids, parses the options and calls it once. It writes ``model.safetensors`` into the
    folder `output` with ``flambeau.plugins.save_model``, so that ``evaluate`` and ``predict`` find it, beside whatever
    it needs to resume.
    """

    def __call__(
        self, model_id: str, data: str, output: str, options: dict[str, Any], resume: bool
    ) -> Mapping[str, Any]:
        """Train.

        Args:
            model_id: canonical id of the model.
            data: what ``--data`` says: a path or a dataset id; empty when not given.
            output: the run's folder. It exists when `resume` is true; else the trainer makes it.
            options: ``epochs``, ``batch_size``, ``lr``, ``seed``, ``device`` when given, and every ``--set key=value``
                (the value parsed as JSON when it is JSON). The trainer raises ``FlambeauError`` for an unknown key
                (``flambeau.options.from_options`` does it for a dataclass).
            resume: go on from the state in `output`.

        Returns:
            Final metrics by name: numbers, or anything JSON holds.
        """
        ...


class Evaluate(Protocol):
    """What `TaskSpec.evaluate` names."""

    def __call__(self, model: str, data: str, split: str, options: dict[str, Any]) -> Mapping[str, Any]:
        """Metrics by name of `model` (a model id, or the path of a checkpoint or run) on `split` of `data`."""
        ...


class Predict(Protocol):
    """What `TaskSpec.predict` names."""

    def __call__(
        self, model: str, inputs: Sequence[str], output: str | None, options: dict[str, Any]
    ) -> Iterable[Mapping[str, Any]]:
        """Predict for each input, in order.

        Args:
            model: a model id, or the path of a checkpoint or run.
            inputs: file names, or ``"-"`` for stdin.
            output: a file (one input) or folder to write to; None: write nothing.

        Returns:
            One JSON-ready dict for each input with the key ``input`` and either ``output`` (the result) and ``path``
            (the file written, if any), or ``error`` and ``mend`` when this input failed (the others go on).
        """
        ...


class LoadInput(Protocol):
    """What `TaskSpec.load_input` names: one sample from a file name or ``"-"``."""

    def __call__(self, source: str) -> Any: ...


class LoadData(Protocol):
    """What `TaskSpec.load_data` names: pairs (sample, target) of a split, streamed."""

    def __call__(self, data: str, split: str) -> Iterable[tuple[Any, Any]]: ...


class Collate(Protocol):
    """What `TaskSpec.collate` names: the model's positional arguments for a list of samples."""

    def __call__(self, samples: Sequence[Any]) -> tuple[Any, ...]: ...


class Decode(Protocol):
    """What `TaskSpec.decode` names: one result for each sample from the model's output."""

    def __call__(self, outputs: Any, samples: Sequence[Any]) -> Sequence[Any]: ...


class Metrics(Protocol):
    """What calling `TaskSpec.metrics` without arguments returns: a streaming metric."""

    def update(self, results: Sequence[Any], targets: Sequence[Any]) -> None: ...

    def compute(self) -> Mapping[str, Any]: ...


class WriteOutput(Protocol):
    """What `TaskSpec.write_output` names: writes one result for one input; returns the path it wrote."""

    def __call__(self, result: Any, source: str, output: str) -> str: ...


class Explain(Protocol):
    """What `TaskSpec.explain` names: draws what speaks for `model`'s answer to `source` into the file `output`.

    Options: ``method``, and ``target``, ``layer``, ``device`` when given, and every ``--set``. Returns a JSON-ready
    dict with the keys ``input``, ``method``, ``target`` (its name), ``score`` and ``path``.
    """

    def __call__(self, model: str, source: str, output: str, options: dict[str, Any]) -> Mapping[str, Any]: ...


class DatasetFactory(Protocol):
    """What `DatasetSpec.factory` names: a ``flambeau.data.Dataset`` over one split of the files under `root`."""

    def __call__(self, root: str, split: str, **options: Any) -> Any: ...


class Exporter(Protocol):
    """What `ExporterSpec.factory` names: writes `model` to `path`."""

    def __call__(self, model: Any, example_inputs: tuple[Any, ...], path: str, options: dict[str, Any]) -> None: ...
