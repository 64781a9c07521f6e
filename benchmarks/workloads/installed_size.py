"""Not a time: MB on disk of the library and all that it requires."""

import json
import re
from importlib import import_module, metadata
from pathlib import Path

UNIT = "MB"
DISTRIBUTIONS = {"flambeau": "flambeau-core", "torch": "torch"}


def closure(name: str) -> dict[str, metadata.Distribution]:
    """The distribution and, through all its requirements, those installed; extras are left out."""
    found: dict[str, metadata.Distribution] = {}
    waiting = [name]
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # required on other systems only
        for requirement in found[name].requires or []:
            if "extra ==" not in requirement:
                waiting.append(re.match(r"[\w.-]+", requirement)[0])
    return found


def size(distribution: metadata.Distribution) -> int:
    """Bytes of its files; an editable installation owns none, so its package folder counts."""
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        package = import_module(distribution.name.removesuffix("-core").replace("-", "_"))
        return sum(f.stat().st_size for f in Path(package.__file__).parent.rglob("*") if f.is_file())
    files = (Path(f.locate()) for f in distribution.files or [])
    return sum(f.stat().st_size for f in files if f.is_file())


def make(torch, device):
    return lambda: sum(size(d) for d in closure(DISTRIBUTIONS[torch.__name__]).values()) / 1e6
