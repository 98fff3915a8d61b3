"""Uploads saved folders, without files that concern only this machine."""

from pathlib import Path

from huggingface_hub import HfApi, RepoCard
from huggingface_hub.constants import REPOCARD_NAME
from huggingface_hub.errors import RemoteEntryNotFoundError

from aag_hf.hub.cards import check_repository, is_replaceable

# Records of how a stage resumes hold paths of this machine; a Trainer's checkpoints hold its pickled state; a composed
# model has one card, and not also those of its parts; the teacher trained beside a reader is a model of its own.
# fmt: off
OF_THIS_MACHINE = (
    "*manifest.json", "*.partial", "*.partial/*", "*.tmp", "*checkpoint-*", "*.checkpoints/*", "*training_args.bin",
    "*trainer_state.json", "*optimizer.pt", "*optimizer.bin", "*scheduler.pt", "*rng_state*", "*__pycache__/*",
    "*/README.md", "runs/*", "teacher/*",
)
# fmt: on


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    repo_type: str = "model",
    replace_card: bool = False,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str | None = None,
) -> str:
    """Upload a saved model or data set with its README.md, after the Hub has validated this card.

    Args:
        folder: The folder of the model or data set.
        repo_id: Its name on the Hub, ``owner/name``. The repository is created if there is none.
        repo_type: ``"model"``, ``"dataset"`` or ``"space"``, one of Gradio.
        replace_card: Replace the repository's card, even one that somebody wrote.
        private: Whether a new repository is private. By default the owner's settings decide.
        token: A token with the right to write. By default that of the login.
        commit_message: The message of the commit.

    Returns:
        The commit's address.

    Raises:
        InputError: `repo_id` is not the name of a repository.
        ValueError: The Hub finds the card's metadata invalid. Nothing is uploaded then.
    """
    check_repository(repo_id)
    card = Path(folder) / REPOCARD_NAME
    if card.is_file():
        RepoCard.load(card).validate(repo_type)
    api = HfApi(token=token)
    sdk = "gradio" if repo_type == "space" else None
    repo_id = api.create_repo(repo_id, repo_type=repo_type, space_sdk=sdk, private=private, exist_ok=True).repo_id
    keeps_card = not replace_card and _has_own_card(api, repo_id, repo_type)
    return api.upload_folder(
        repo_id=repo_id,
        repo_type=repo_type,
        folder_path=folder,
        commit_message=commit_message,
        ignore_patterns=[*OF_THIS_MACHINE, *([REPOCARD_NAME] if keeps_card else [])],
    ).commit_url


def _has_own_card(api: HfApi, repo_id: str, repo_type: str) -> bool:
    """Whether somebody wrote a card into the repository."""
    try:
        path = api.hf_hub_download(repo_id, REPOCARD_NAME, repo_type=repo_type)
    except RemoteEntryNotFoundError:
        return False
    return not is_replaceable(Path(path).read_text(encoding="utf-8"))
