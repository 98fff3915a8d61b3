"""Runs a function as soon as a module has been imported, so that `import aag_hf` need not import PEFT."""

import sys
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def when_imported(name: str, run: Callable[[], object]) -> None:
    """Call `run` once a module has been imported; at once if it has been already.

    Args:
        name: The module's full name.
        run: Called once, in the thread that imports the module.
    """
    if name in sys.modules:
        run()
    else:
        sys.meta_path.insert(0, _Waiting(name, run))


class _Waiting(MetaPathFinder):
    """Finds one module as the other finders do, and is gone when that is loaded."""

    def __init__(self, name: str, run: Callable[[], object]):
        self.name, self.run = name, run

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self.name:
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        spec = next((found for finder in others if (found := finder.find_spec(name, path, target))), None)
        # Looking for a module, as `importlib.util.find_spec` does, does not import it: the finder stays until then.
        if spec is not None and spec.loader is not None:
            spec.loader = _Loading(spec.loader, self)
        return spec


class _Loading(Loader):
    """Loads a module as its own loader does, and then runs what waited for it."""

    def __init__(self, loader: Loader, waiting: _Waiting):
        self._loader, self._waiting = loader, waiting

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        # An import that fails may be tried again.
        self._loader.exec_module(module)
        if self._waiting in sys.meta_path:
            sys.meta_path.remove(self._waiting)
            self._waiting.run()
