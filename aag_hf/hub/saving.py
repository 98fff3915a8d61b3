"""Saves and uploads models with a card of ours, and on request with their code."""

import tempfile
from pathlib import Path
from typing import Any

from transformers.utils import PushToHubMixin

from aag_hf.hub.model_cards import leave_model_card
from aag_hf.hub.source import CONFIG, set_auto_map, write_source
from aag_hf.hub.upload import push_folder

_UPLOADING = ("repo_id", "commit_message", "commit_description", "private", "revision", "create_pr", "tags")


class SavedWithCard(PushToHubMixin):
    """A mixin, which comes before `PreTrainedModel` among a class's bases."""

    # The Auto class that loads a self-contained repository.
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
        """As in transformers, with a model card unless there is somebody's own README.md.

        Args:
            save_directory: The folder to save to.
            is_main_process: Whether this process writes.
            self_contained: Also save the code, so that the Auto classes load it without aag-hf if `trust_remote_code`
                is allowed. `register_for_auto_class` does the same for every later save.
            push_to_hub: Also upload the folder, as `repo_id`, or under the folder's name.
            **kwargs: Passed on to transformers; with `push_to_hub` also those of [`push_to_hub`].
        """
        uploading = {name: kwargs.pop(name) for name in _UPLOADING if name in kwargs}
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        folder = Path(save_directory)
        if not is_main_process or not (folder / CONFIG).is_file():
            return
        auto_class = self._auto_class or (self.loaded_by if self_contained else None)
        if auto_class is None:
            # A model from a self-contained folder still names the place of its code.
            set_auto_map(folder, None)
        else:
            write_source(type(self), self.config_class, auto_class, folder)
        leave_model_card(folder, base_model=self.name_or_path)
        if push_to_hub:
            push_folder(folder, uploading.pop("repo_id", folder.name), token=kwargs.get("token"), **uploading)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        commit_description: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        tags: list[str] | None = None,
        **save_options: Any,
    ) -> str:
        """Upload the model with its card. A card that somebody wrote into the repository stays.

        Args:
            repo_id: Its name on the Hub, ``owner/name``. The repository is created if there is none.
            commit_message: The message of the commit.
            commit_description: The description of the commit.
            private: Whether a new repository is private. By default the owner's settings decide.
            token: A token with the right to write. By default that of the login.
            revision: The branch to upload to, which is created if there is none.
            create_pr: Open a pull request instead.
            tags: More tags for the card.
            **save_options: Passed on to `save_pretrained`, such as `self_contained`.

        Returns:
            The commit's address.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, **save_options)
            return push_folder(
                folder,
                repo_id,
                commit_message=commit_message or f"Upload {type(self).__name__}",
                commit_description=commit_description,
                private=private,
                token=token,
                revision=revision,
                create_pr=create_pr,
                tags=tags,
            )
