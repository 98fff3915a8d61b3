"""Saved models that carry their own code, for users who allow ``trust_remote_code``."""

import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any

from transformers.utils import PushToHubMixin

from aag_hf.errors import InputError

IMPORT = re.compile(r"^from (aag_hf[\w.]*) import ", re.MULTILINE)
# Code that writes code is left out, so that those who allow foreign code to run have little to read.
IN_PLACE_OF_THIS_MODULE = '"""Saving, left to transformers."""\n\n\nclass SelfContained:\n    pass\n'
_UPLOADING = ("repo_id", "commit_message", "commit_description", "private", "token", "revision", "create_pr", "tags")


class SelfContained(PushToHubMixin):
    """A mixin, which comes before `PreTrainedModel` among a class's bases."""

    # The Auto class that loads the saved model.
    loaded_by = "AutoModel"

    def save_pretrained(
        self,
        save_directory: str | Path,
        is_main_process: bool = True,
        *,
        self_contained: bool = False,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """As in transformers, and on request with the code.

        Args:
            save_directory: The folder to save to.
            is_main_process: Whether this process writes.
            self_contained: Also save the code, so that the Auto classes load it without aag-hf if `trust_remote_code`
                is allowed. `register_for_auto_class` does the same for every later save.
            push_to_hub: Also upload the model, as `repo_id` of `kwargs` or under the folder's name.
            **kwargs: Passed on to transformers' `save_pretrained` and `push_to_hub`.

        Raises:
            InputError: It is to be uploaded with its code, which transformers' `push_to_hub` would leave out.
        """
        if self_contained and push_to_hub:
            raise InputError("save_pretrained does not upload a model with its code: save it, and use aag publish.")
        uploading = {name: kwargs.pop(name) for name in _UPLOADING if name in kwargs}
        auto_class = self._auto_class or (self.loaded_by if self_contained else None)
        if auto_class is not None:
            classes = {"AutoConfig": self.config_class, auto_class: type(self)}
            self.config.auto_map = {name: f"{_stem(c.__module__)}.{c.__name__}" for name, c in classes.items()}
        elif hasattr(self.config, "auto_map"):
            # A model from a self-contained folder still names the place of its code.
            del self.config.auto_map
        super().save_pretrained(save_directory, is_main_process, **kwargs)
        if auto_class is not None and is_main_process:
            _write_source(type(self).__module__, Path(save_directory))
        if push_to_hub and is_main_process:
            self.push_to_hub(uploading.pop("repo_id", Path(save_directory).name), **uploading)


def _write_source(module: str, folder: Path) -> None:
    """Write a module, and all of this package that it imports, with relative imports.

    The layout is that of transformers' `register_for_auto_class`, whose copy follows relative imports within one folder
    only.
    """
    sources: dict[str, str] = {__name__: IN_PLACE_OF_THIS_MODULE}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in sources:
            sources[name] = inspect.getsource(import_module(name))
            waiting += IMPORT.findall(sources[name])
    for name, text in sources.items():
        relative = IMPORT.sub(lambda match: f"from .{_stem(match[1])} import ", text)
        (folder / f"{_stem(name)}.py").write_text(relative, encoding="utf-8")


def _stem(module: str) -> str:
    return module.rpartition(".")[2]
