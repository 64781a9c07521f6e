"""torchvision's Python models, also where its compiled operators do not load; skips when it is not installed."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

_KEEP = []  # a library's definitions go with it


def torchvision_models():
    """``torchvision.models``, which the models' names, keys and outputs are compared with."""
    torch = pytest.importorskip("torch")
    found = importlib.util.find_spec("torchvision")
    if found is None:
        pytest.skip("torchvision is not installed")
    try:
        import torchvision.models
    except (RuntimeError, ImportError, OSError):  # built for another torch: declare the operators that it looks up
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        names = {"nms"}
        for source in Path(found.origin).parent.rglob("*.py"):
            names.update(re.findall(r"torchvision::(\w+)", source.read_text("utf-8")))
        library = torch.library.Library("torchvision", "DEF")
        _KEEP.append(library)
        for name in sorted(names):
            library.define(f"{name}(Tensor x) -> Tensor")
        try:
            import torchvision.models
        except (RuntimeError, ImportError, OSError) as error:
            pytest.skip(f"torchvision cannot be imported: {str(error)[:80]}")
    return torchvision.models
