"""Which model loads a folder in Hugging Face's layout, by what its ``config.json`` says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from ..errors import EXIT_MISSING
from .discovery import canonical
from .errors import AmbiguousNameError, NotRegisteredError
from .manager import PluginManager
from .registry import install_hint
from .spec import ModelSpec

_NLP = (
    "albert bart bert bloom camembert deberta deberta-v2 distilbert electra falcon gemma gpt2 gpt_neo gpt_neox gptj "
    "llama longformer marian mbart mistral mixtral opt pegasus phi qwen2 roberta t5 xlm-roberta"
)
_VISION = (
    "beit clip convnext deit detr dinov2 efficientnet mobilenet_v1 mobilenet_v2 regnet resnet segformer swin "
    "timm_wrapper vit vit_mae yolos"
)
PACKAGES = dict.fromkeys(_NLP.split(), "flambeau-nlp") | dict.fromkeys(_VISION.split(), "flambeau-vision")
"""``model_type`` to the package of the suite whose domain it is, for the install hint."""

_SHOWN = 12


def named(config: Mapping[str, Any]) -> tuple[list[str], str | None]:
    """The architectures and the model type in a ``config.json``; timm writes one ``architecture``."""
    many, one, model_type = config.get("architectures"), config.get("architecture"), config.get("model_type")
    found = [name for name in many if isinstance(name, str)] if isinstance(many, list) else []
    if isinstance(one, str):
        found.append(one)
    return found, model_type if isinstance(model_type, str) else None


def find(manager: PluginManager, config: Mapping[str, Any]) -> ModelSpec:
    """The model that loads a folder with this ``config.json``; see ``flambeau.plugins.model_for_architecture``."""
    specs = cast(list[ModelSpec], manager.specs("models"))
    wanted, model_type = named(config)
    what = ", ".join(wanted) or model_type or "(not named)"
    for matches in (
        [spec for spec in specs if set(wanted) & set(spec.architectures)],
        [spec for spec in specs if model_type is not None and spec.model_type == model_type],
    ):
        if len(matches) > 1:
            ids = [spec.id for spec in matches]
            raise AmbiguousNameError(
                f"several models load architecture {what}: {', '.join(ids)}",
                "name one: from_pretrained(folder, model=...)",
                candidates=ids,
            )
        if matches:
            return matches[0]
    cause = f"no registered model loads architecture {what}"
    package = PACKAGES.get(model_type or "")
    if package and not _installed(manager, package):
        raise NotRegisteredError(f"{cause}; it comes from {package}", install_hint(package), EXIT_MISSING)
    known = [f"{spec.model_type or ', '.join(spec.architectures)} ({spec.id})" for spec in specs if _loads(spec)]
    rest = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    listed = f"those that load such folders: {', '.join(known[:_SHOWN])}{rest}; " if known else ""
    raise NotRegisteredError(cause, f"{listed}`flambeau models list` shows those that are there")


def _loads(spec: ModelSpec) -> bool:
    return bool(spec.architectures or spec.model_type)


def _installed(manager: PluginManager, package: str) -> bool:
    return any(canonical(record.distribution or "") == canonical(package) for record in manager.records.values())
