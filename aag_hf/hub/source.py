"""Repositories that carry their own code, for users who allow ``trust_remote_code``."""

import inspect
import json
import re
from importlib import import_module
from pathlib import Path

CONFIG = "config.json"
IMPORT = re.compile(r"^from (aag_hf[\w.]*) import ", re.MULTILINE)
# Cards and uploads are left out, so that those who allow foreign code to run have little to read.
IN_PLACE_OF = {
    "aag_hf.hub.saving": '"""Saving and uploading, left to transformers."""\n\n\nclass SavedWithCard:\n    pass\n',
}


def write_source(model_class: type, config_class: type, auto_class: str, folder: Path) -> None:
    """Write the modules that two classes need, with relative imports, to the places where the Auto classes look.

    The layout is that of transformers' `register_for_auto_class`, whose copy follows relative imports within one folder
    only.

    Args:
        model_class: Loaded by `auto_class`.
        config_class: Loaded by `AutoConfig`.
        auto_class: Such as ``"AutoModelForSeq2SeqLM"``.
        folder: Holds the saved model.
    """
    for module, text in _with_imports(model_class.__module__).items():
        (folder / f"{_stem(module)}.py").write_text(IMPORT.sub(_relative, text), encoding="utf-8")
    classes = {"AutoConfig": config_class, auto_class: model_class}
    set_auto_map(folder, {name: f"{_stem(c.__module__)}.{c.__name__}" for name, c in classes.items()})


def set_auto_map(folder: Path, auto_map: dict[str, str] | None) -> None:
    """Write into a saved configuration where the Auto classes find its code. ``None`` if it is not in the folder."""
    path = folder / CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.get("auto_map") == auto_map:
        return
    config.pop("auto_map", None)
    if auto_map is not None:
        config["auto_map"] = auto_map
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _with_imports(module: str) -> dict[str, str]:
    """Source of a module and of all modules of this package that it imports, by name."""
    sources: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in sources:
            sources[name] = IN_PLACE_OF.get(name) or inspect.getsource(import_module(name))
            waiting += IMPORT.findall(sources[name])
    return sources


def _relative(match: re.Match[str]) -> str:
    return f"from .{_stem(match[1])} import "


def _stem(module: str) -> str:
    return module.rpartition(".")[2]
