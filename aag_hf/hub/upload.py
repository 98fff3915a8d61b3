"""Uploads saved folders, without files that concern only this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, RepoCard
from huggingface_hub.constants import REPOCARD_NAME
from huggingface_hub.errors import RemoteEntryNotFoundError, RevisionNotFoundError

from aag_hf.hub.cards import NAMELESS, OURS, check_repository

# The title of the empty template that PEFT and transformers upload.
UNFILLED = "# Model Card for Model ID"
# Records of how a stage resumes hold paths of this machine; a Trainer's checkpoints hold its pickled state; a composed
# model has one card, and not also those of its parts; the teacher trained beside a reader is a model of its own.
OF_THIS_MACHINE = (
    "*manifest.json",
    "*.partial",
    "*.partial/*",
    "*.tmp",
    "*checkpoint-*",
    "*.checkpoints/*",
    "*training_args.bin",
    "*trainer_state.json",
    "*optimizer.pt",
    "*optimizer.bin",
    "*scheduler.pt",
    "*rng_state*",
    "*__pycache__/*",
    "*/README.md",
    "runs/*",
    "teacher/*",
)


def push_folder(
    folder: str | Path,
    repo_id: str,
    *,
    repo_type: str = "model",
    replace_card: bool = False,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    tags: list[str] | None = None,
    commit_message: str | None = None,
    commit_description: str | None = None,
) -> str:
    """Upload a saved model or data set with its card, after the Hub has validated the card.

    A card that somebody wrote into the repository stays. Your own README.md in `folder` is uploaded unchanged.

    Args:
        folder: The folder of the model or data set.
        repo_id: Its name on the Hub, ``owner/name``. The repository is created if there is none.
        repo_type: ``"model"``, ``"dataset"`` or ``"space"``, one of Gradio.
        replace_card: Replace the repository's card, whoever wrote it.
        private: Whether a new repository is private. By default the owner's settings decide.
        token: A token with the right to write. By default that of the login.
        revision: The branch to upload to, which is created if there is none.
        create_pr: Open a pull request instead.
        tags: More tags for our card.
        commit_message: The message of the commit.
        commit_description: The description of the commit.

    Returns:
        The commit's address.

    Raises:
        InputError: `repo_id` is not the name of a repository.
        ValueError: The Hub finds the card's metadata invalid. Nothing is uploaded then.
    """
    check_repository(repo_id)
    folder = Path(folder)
    api = HfApi(token=token)
    ignored = list(OF_THIS_MACHINE)
    with _card_under_its_name(folder / REPOCARD_NAME, repo_id, repo_type, tags or []):
        sdk = "gradio" if repo_type == "space" else None
        made = api.create_repo(repo_id, repo_type=repo_type, space_sdk=sdk, private=private, exist_ok=True)
        repo_id = made.repo_id
        if revision is not None and not create_pr and not revision.startswith("refs/pr"):
            api.create_branch(repo_id, branch=revision, repo_type=repo_type, exist_ok=True)
        if not replace_card and not _hub_card_is_replaceable(api, repo_id, repo_type, revision):
            ignored.append(REPOCARD_NAME)
        return api.upload_folder(
            repo_id=repo_id,
            repo_type=repo_type,
            folder_path=folder,
            revision=revision,
            create_pr=create_pr,
            commit_message=commit_message,
            commit_description=commit_description,
            ignore_patterns=ignored,
        ).commit_url


@contextmanager
def _card_under_its_name(path: Path, repo_id: str, repo_type: str, tags: list[str]) -> Iterator[None]:
    """Give a card of ours its name and tags until the scope ends. Later the folder may be uploaded under another
    name."""
    if not path.is_file():
        yield
        return
    before = path.read_bytes()
    card = RepoCard.load(path)
    is_ours = OURS in str(card)
    card = _named(card, repo_id, tags) if is_ours else card
    card.validate(repo_type)
    try:
        if is_ours:
            card.save(path)
        yield
    finally:
        path.write_bytes(before)


def _named(card: RepoCard, repo_id: str, tags: list[str]) -> RepoCard:
    """A card of ours with its name and tags filled in."""
    card = RepoCard(str(card).replace(NAMELESS, repo_id))
    if card.data.get("base_model") == repo_id:
        # A model that was loaded from the repository may be uploaded to it again, but no model is its own base.
        card.data.pop("base_model")
        card.data.pop("base_model_relation", None)
    card.data["tags"] = list(dict.fromkeys([*card.data.get("tags", []), *tags]))
    return card


def _hub_card_is_replaceable(api: HfApi, repo_id: str, repo_type: str, revision: str | None) -> bool:
    """Whether the repository has no card, or only one that a program wrote."""
    try:
        path = api.hf_hub_download(repo_id, REPOCARD_NAME, repo_type=repo_type, revision=revision)
    except (RemoteEntryNotFoundError, RevisionNotFoundError):
        return True
    content = Path(path).read_text(encoding="utf-8")
    return OURS in content or UNFILLED in content
