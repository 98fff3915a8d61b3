"""The document encoder: texts in, what a memory hypernetwork writes out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import cached_file

from aag_hf.data.embedded import resolve_model
from aag_hf.errors import InputError
from aag_hf.hyperlora.document_states import DocumentStates
from aag_hf.questions.document_configuration import DocumentEncoderConfig
from aag_hf.questions.relevance import common_words, relevance
from aag_hf.questions.states import hidden_states, in_evaluation, in_groups
from aag_hf.self_contained import SelfContained

# States further from the mean than this many standard deviations are brought back to it.
FURTHEST = 8.0


class DocumentEncoder(SelfContained, PreTrainedModel):
    """Token states of one layer, standardised for each dimension, and the tokens' embeddings.

    Mean and standard deviation come from the training documents once and are saved here; the language model is referred
    to by name and not saved again. In a causal model the first position is left out: every token attends to it, and its
    state is the same in all documents. Documents longer than a window are read in several, each of which sees the last
    tokens of the one before.

    Args:
        config: A [`DocumentEncoderConfig`].
        backbone: A causal or encoder-decoder language model, with or without its head.
        tokenizer: Its tokenizer.

    Example:

    ```python
    encoder = DocumentEncoder.from_backbone("HuggingFaceTB/SmolLM2-135M").fit_statistics(training_documents)
    states = encoder.encode(["The capital of Nuvaria is Brel."])
    memory = model.memorize(states)
    ```
    """

    config_class = DocumentEncoderConfig
    config: DocumentEncoderConfig

    def __init__(self, config: DocumentEncoderConfig, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase):
        super().__init__(config)
        self.backbone = backbone
        self.tokenizer = tokenizer
        width = backbone.config.get_text_config().hidden_size
        self.register_buffer("mean", torch.full((width,), torch.nan))
        self.register_buffer("deviation", torch.full((width,), torch.nan))

    @classmethod
    def from_backbone(
        cls,
        backbone: str | PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        **options: Any,
    ) -> "DocumentEncoder":
        """A new encoder over a language model.

        Args:
            backbone: A loaded model, a directory, a Hub id, or ``"embedded"``.
            tokenizer: Its tokenizer; by default loaded by the model's name.
            **options: As in [`DocumentEncoderConfig`].

        Raises:
            OSError: There is no such model.
        """
        if isinstance(backbone, str):
            backbone = AutoModel.from_pretrained(resolve_model(backbone), trust_remote_code=False)
        name = backbone.name_or_path
        config = DocumentEncoderConfig(backbone_name_or_path=name, **options)
        return cls(config, backbone, tokenizer or AutoTokenizer.from_pretrained(name, trust_remote_code=False))

    @torch.no_grad()
    def fit_statistics(self, texts: Sequence[str], batch_size: int = 16) -> "DocumentEncoder":
        """Take mean and standard deviation from the training documents; returns the encoder itself.

        Args:
            texts: The documents.
            batch_size: Windows per forward pass.

        Raises:
            InputError: No document, or one that is empty or too long.
        """
        count, total, squares = 0, torch.zeros_like(self.mean, dtype=torch.float64), 0.0
        for group in in_groups(self._token_ids(texts), batch_size):
            for states in self._read(list(group), batch_size):
                kept = states[self._first :].double()
                count, total, squares = count + len(kept), total + kept.sum(0), squares + kept.square().sum(0)
        if count < 2:
            raise InputError(f"{len(texts)} documents with {count} tokens to count give no statistics: pass more.")
        mean = total / count
        self.mean.copy_(mean)
        # A dimension that never varies says nothing, and must not be blown up.
        self.deviation.copy_((squares / count - mean.square()).clamp(min=1e-6).sqrt())
        return self

    def fit_words(self, questions: Sequence[str], texts: Sequence[str]) -> "DocumentEncoder":
        """Take from training questions and documents which words are common; returns the encoder itself.

        Args:
            questions: The questions of training.
            texts: Its documents.
        """
        self.config.common_words = common_words(questions, texts)
        return self

    def relevance(self, question: str, text: str) -> float:
        """How much of a question's words a text holds, as in [`~aag_hf.questions.relevance.relevance`].

        Args:
            question: The question.
            text: The text.

        Returns:
            A number in [0, 1].
        """
        return relevance(question, text, self.config.common_words)

    @torch.no_grad()
    def encode(self, texts: Sequence[str], batch_size: int = 16) -> DocumentStates:
        """What a memory hypernetwork reads of some documents, each independent of the others.

        Args:
            texts: The documents; a single string is refused, since its letters would be taken for documents.
            batch_size: Windows per forward pass.

        Returns:
            States and embeddings ``(len(texts), tokens, d)`` and the mask ``(len(texts), tokens)``, padded on the
            right, on the encoder's device.

        Raises:
            InputError: The statistics are not fitted yet, `texts` is a string, or a document has no token to write or
                more than `max_tokens`.
        """
        if self.mean.isnan().any():
            raise InputError("the document encoder has no statistics yet: call fit_statistics first.")
        documents = self._token_ids(texts)
        states = [
            ((state - self.mean) / self.deviation).clamp(-FURTHEST, FURTHEST)
            for state in self._read(documents, batch_size)
        ]
        padded = nn.utils.rnn.pad_sequence(states, batch_first=True)
        ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in documents], batch_first=True)
        mask = torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in documents]).unsqueeze(1)
        mask[:, : self._first] = False
        mask = mask.to(padded.device)
        embeddings = self.backbone.get_input_embeddings()(ids.to(padded.device)).float()
        return DocumentStates(padded * mask.unsqueeze(-1), embeddings * mask.unsqueeze(-1), mask)

    def check(self, texts: Sequence[str], names: Sequence[str]) -> None:
        """Refuse documents that `encode` would refuse, by their names.

        Args:
            texts: The documents.
            names: What each is called in a message.

        Raises:
            InputError: A document has no token to write or more than `max_tokens`.
        """
        self._token_ids(texts, names)

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """Save statistics, configuration and tokenizer; the backbone stays where it is.

        Args:
            save_directory: Where to.
            *args, **kwargs: As in [`~aag_hf.self_contained.SelfContained.save_pretrained`].
        """
        self.tokenizer.save_pretrained(Path(save_directory) / "tokenizer")
        kwargs["state_dict"] = {"mean": self.mean, "deviation": self.deviation}
        super().save_pretrained(save_directory, *args, **kwargs)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        backbone: PreTrainedModel | None = None,
        config: DocumentEncoderConfig | None = None,
        **kwargs: Any,
    ) -> "DocumentEncoder":
        """Load the statistics, and the backbone they name unless one is given.

        Args:
            pretrained_model_name_or_path: A directory or Hub id.
            backbone: The language model, if it is in memory already.
            config: The configuration, if it is loaded already.
            **kwargs: Passed on to the Hub (`revision`, `token`, `cache_dir`, …).

        Raises:
            OSError: No such directory or repository.
            InputError: Statistics that are missing, not finite, or of another width than the backbone's.
        """
        name = str(pretrained_model_name_or_path)
        # Auto classes pass on what concerns this repository only; trust in its code is none in the backbone's.
        for option in ("trust_remote_code", "adapter_kwargs", "_from_auto"):
            kwargs.pop(option, None)
        config = config or DocumentEncoderConfig.from_pretrained(name, **kwargs)
        tokenizer = AutoTokenizer.from_pretrained(name, subfolder="tokenizer", trust_remote_code=False, **kwargs)
        if backbone is None:
            of_backbone = {option: value for option, value in kwargs.items() if option != "revision"}
            backbone = AutoModel.from_pretrained(
                resolve_model(str(config.backbone_name_or_path)), trust_remote_code=False, **of_backbone
            )
        weights = load_file(cached_file(name, "model.safetensors", **kwargs))
        encoder = cls(config, backbone, tokenizer)
        for statistic in ("mean", "deviation"):
            if statistic not in weights or not weights[statistic].isfinite().all():
                raise InputError(f"{name}: its {statistic} is missing or not finite: fit the statistics again.")
            if weights[statistic].shape != encoder.mean.shape:
                raise InputError(
                    f"{name}: statistics of width {len(weights[statistic])}, but the backbone's hidden size is "
                    f"{len(encoder.mean)}: pass the model it was fitted with, {config.backbone_name_or_path}."
                )
            getattr(encoder, statistic).copy_(weights[statistic])
        return encoder

    @property
    def _first(self) -> int:
        """The first position that counts."""
        return 0 if self.backbone.config.is_encoder_decoder else 1

    def _token_ids(self, texts: Sequence[str], names: Sequence[str] | None = None) -> list[list[int]]:
        if isinstance(texts, str):
            raise InputError("expected a list of documents, got one string: pass [document].")
        names = [f"document {position}" for position in range(len(texts))] if names is None else names
        limit = self.config.max_tokens
        # No token is longer than this many characters on average; the tokenizer would take minutes to say so.
        for name, text in zip(names, texts, strict=True):
            if not text.strip():
                raise InputError(f"{name} is empty.")
            if len(text) > 32 * limit:
                raise InputError(self._too_long(name, f"{len(text):,} characters"))
        if not texts:
            return []
        documents = self.tokenizer(list(texts), verbose=False)["input_ids"]
        for name, ids in zip(names, documents, strict=True):
            if len(ids) <= self._first:
                raise InputError(f"{name} has {len(ids)} tokens, of which none can be remembered: leave it out.")
            if len(ids) > limit:
                raise InputError(self._too_long(name, f"{len(ids):,} tokens"))
        return documents

    def _too_long(self, name: str, length: str) -> str:
        return f"{name} has {length}, more than max_tokens={self.config.max_tokens}: split it into several texts."

    def _read(self, documents: list[list[int]], batch_size: int) -> list[torch.Tensor]:
        """The states ``(tokens, d)`` of each document."""
        window, stride = self.config.window, self.config.window - self.config.overlap
        # Of each window: its document, where it begins, and how many of its tokens the one before has read already.
        windows = [
            (number, start, self.config.overlap if start else 0)
            for number, ids in enumerate(documents)
            for start in range(0, max(1, len(ids) - self.config.overlap), stride)
        ]
        # Rows of about one length: padding is read, too.
        order = sorted(windows, key=lambda w: min(window, len(documents[w[0]]) - w[1]))
        parts: list[dict[int, torch.Tensor]] = [{} for _ in documents]
        with in_evaluation(self.backbone):
            for group in in_groups(order, batch_size):
                rows = [torch.tensor(documents[number][start : start + window]) for number, start, _ in group]
                ids = nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self.mean.device)
                # By length and not by pad id, which is also the end of text in many models.
                lengths = torch.tensor([len(row) for row in rows], device=ids.device)
                mask = (torch.arange(ids.shape[1], device=ids.device) < lengths.unsqueeze(1)).long()
                states = hidden_states(self.backbone, ids, mask, self.config.layer)
                for (number, start, known), state, row in zip(group, states, rows):
                    parts[number][start] = state[known : len(row)]
        return [torch.cat([of_document[start] for start in sorted(of_document)]) for of_document in parts]
