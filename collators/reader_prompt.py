"""The inputs of a reader, as they are saved with it."""

from dataclasses import dataclass, fields
from typing import Any

from aag_hf.collators.prompts import check_prompt
from aag_hf.data.contexts import READER_CONTEXT_PROMPT, READER_PROMPT, ContextSource, context_of
from aag_hf.errors import InputError


@dataclass(frozen=True)
class ReaderPrompt:
    """The inputs of a reader: their source, wording and limits.

    Args:
        context: What is read beside the question: ``"none"``, ``"generated"``, ``"compressed"`` or ``"passages"``.
        passages: How many passages ``"passages"`` reads.
        fid: Read each passage on its own with the question, as in Fusion-in-Decoder, in the form of
            [`DataCollatorForFiD`]. Otherwise passages are joined in one prompt.
        prompt: Text with ``{question}``.
        context_prompt: Text with ``{context}`` and ``{question}``.
        prompt_max_length: The most tokens of a prompt. Longer ones lose the end of their context.
        chat: Whether the prompts are turns of a chat, as [`~.chat.build_prompt`] makes them. Then no special tokens are
            added, and the answer begins a turn.

    Raises:
        InputError: A prompt lacks its placeholders, or a number is below one.
    """

    context: ContextSource = "none"
    passages: int = 1
    fid: bool = False
    prompt: str = READER_PROMPT
    context_prompt: str = READER_CONTEXT_PROMPT
    prompt_max_length: int = 256
    chat: bool = False

    def __post_init__(self) -> None:
        check_prompt("prompt", self.prompt, contexts=0)
        check_prompt("context_prompt", self.context_prompt, contexts=1)
        for name in ("passages", "prompt_max_length"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: it must be at least 1.")

    @classmethod
    def of(cls, config: Any) -> "ReaderPrompt":
        """The prompt of an [`~aag_hf.AwakeningConfig`]."""
        return cls(**{field.name: getattr(config, field.name) for field in fields(cls)})

    @property
    def reads_apart(self) -> bool:
        """Whether each passage is read on its own."""
        return self.fid and self.context == "passages"

    @property
    def template(self) -> str:
        """The template that is filled."""
        return self.prompt if self.context == "none" else self.context_prompt

    def context_of(self, record: dict[str, Any]) -> str | None:
        """The context of `record`, read beside its question. ``None`` if there is none."""
        return context_of(record, self.context, self.passages)

    def describe(self) -> dict[str, Any]:
        """Everything besides record and tokenizer that determines the inputs, as plain JSON values."""
        passages = self.passages if self.context == "passages" else None
        prompt = None if self.reads_apart else self.template
        length = self.prompt_max_length
        told = {"chat": True} if self.chat and not self.reads_apart else {}
        return told | {
            "context": self.context,
            "passages": passages,
            "fid": self.reads_apart,
            "prompt": prompt,
            "prompt_max_length": length,
        }
