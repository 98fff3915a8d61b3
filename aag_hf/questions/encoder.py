"""The question encoder: text in, whitened and normalised features out."""

import warnings
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
from aag_hf.questions.configuration import QuestionEncoderConfig
from aag_hf.questions.states import hidden_states, in_evaluation, in_groups
from aag_hf.questions.whitening import fit_whitening
from aag_hf.self_contained import SelfContained


class QuestionEncoder(SelfContained, PreTrainedModel):
    """``f = normalise((mean_pool(hidden states) − μ) W)``: the features HyperLoRA reads (paper, section 3.2).

    The mean skips padding, μ and W come from the training questions once and are saved here; the language model is
    referred to by name and not saved again.

    Args:
        config: A [`QuestionEncoderConfig`].
        backbone: A causal or encoder-decoder language model, with or without its head.
        tokenizer: Its tokenizer.

    Example:

    ```python
    encoder = QuestionEncoder.from_backbone("HuggingFaceTB/SmolLM2-135M", feature_dim=64)
    encoder.fit_whitening(training_questions)
    features = encoder.encode(["What is the capital of Fiji?"])  # (1, 64)
    encoder.save_pretrained("question_encoder")
    ```
    """

    config_class = QuestionEncoderConfig
    config: QuestionEncoderConfig

    def __init__(self, config: QuestionEncoderConfig, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase):
        super().__init__(config)
        self.backbone = backbone
        self.tokenizer = tokenizer
        width = backbone.config.get_text_config().hidden_size
        self.register_buffer("mean", torch.full((width,), torch.nan))
        self.register_buffer("whitening", torch.full((width, config.feature_dim), torch.nan))

    @classmethod
    def from_backbone(
        cls,
        backbone: str | PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        **options: Any,
    ) -> "QuestionEncoder":
        """A new encoder over a language model.

        Args:
            backbone: A loaded model, a directory, a Hub id, or ``"embedded"``.
            tokenizer: Its tokenizer; by default loaded by the model's name.
            **options: As in [`QuestionEncoderConfig`].

        Raises:
            OSError: There is no such model.
        """
        if isinstance(backbone, str):
            backbone = AutoModel.from_pretrained(resolve_model(backbone), trust_remote_code=False)
        name = backbone.name_or_path
        config = QuestionEncoderConfig(backbone_name_or_path=name, **options)
        return cls(config, backbone, tokenizer or AutoTokenizer.from_pretrained(name, trust_remote_code=False))

    @torch.no_grad()
    def fit_whitening(
        self, texts: Sequence[str], contexts: Sequence[str] | None = None, batch_size: int = 32
    ) -> "QuestionEncoder":
        """Take μ and W from the training questions; returns the encoder itself.

        Args:
            texts: The training questions.
            contexts: A context for each, if features are to be made from questions and contexts.
            batch_size: Questions per forward pass.

        Raises:
            InputError: Fewer directions in the data than `feature_dim`.
        """
        by_token = self.config.statistics == "token"
        vectors = (
            states[mask] if by_token else masked_mean(states, mask)
            for states, mask in self._batches(texts, contexts, batch_size)
        )
        mean, whitening = fit_whitening(vectors, self.config.feature_dim)
        self.mean.copy_(mean)
        self.whitening.copy_(whitening)
        return self

    @torch.no_grad()
    def encode(self, texts: Sequence[str], contexts: Sequence[str] | None = None, batch_size: int = 32) -> torch.Tensor:
        """Features of some questions, each independent of the others in its batch.

        Args:
            texts: Questions; a single string is refused, since its letters would be taken for questions.
            contexts: A context for each, if the statistics were fitted with contexts.
            batch_size: Questions per forward pass.

        Returns:
            float32 ``(len(texts), feature_dim)`` on the CPU, rows of norm 1.

        Raises:
            InputError: The statistics are not fitted yet, a text is empty, or `texts` is a string.
        """
        if self.mean.isnan().any():
            raise InputError("the question encoder has no statistics yet: call fit_whitening first.")
        pooled = [masked_mean(states, mask) for states, mask in self._batches(texts, contexts, batch_size)]
        # Without a question there is nothing to put together.
        return self._whiten(torch.cat(pooled or [self.mean.new_zeros(0, len(self.mean))])).cpu()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Features ``(batch, feature_dim)`` of right-padded ``(batch, tokens)``."""
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return self._whiten(masked_mean(*self._states(input_ids, mask)))

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """Save statistics, configuration and tokenizer; the backbone stays where it is.

        Args:
            save_directory: Where to.
            *args, **kwargs: As in [`~aag_hf.self_contained.SelfContained.save_pretrained`].
        """
        self.tokenizer.save_pretrained(Path(save_directory) / "tokenizer")
        kwargs["state_dict"] = {"mean": self.mean, "whitening": self.whitening}
        super().save_pretrained(save_directory, *args, **kwargs)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        backbone: PreTrainedModel | None = None,
        config: QuestionEncoderConfig | None = None,
        **kwargs: Any,
    ) -> "QuestionEncoder":
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
        config = config or QuestionEncoderConfig.from_pretrained(name, **kwargs)
        tokenizer = AutoTokenizer.from_pretrained(name, subfolder="tokenizer", trust_remote_code=False, **kwargs)
        if backbone is None:
            of_backbone = {option: value for option, value in kwargs.items() if option != "revision"}
            backbone = AutoModel.from_pretrained(
                resolve_model(str(config.backbone_name_or_path)), trust_remote_code=False, **of_backbone
            )
        weights = load_file(cached_file(name, "model.safetensors", **kwargs))
        encoder = cls(config, backbone, tokenizer)
        broken = [n for n in ("mean", "whitening") if n not in weights or not weights[n].isfinite().all()]
        if broken:
            raise InputError(f"{name}: {' and '.join(broken)} are missing or not finite: fit them again.")
        if weights["whitening"].shape[1:] != (config.feature_dim,):
            raise InputError(
                f"{name}: whitening has shape {tuple(weights['whitening'].shape)}, the configuration says feature_dim "
                f"{config.feature_dim}: fit the statistics again."
            )
        if weights["mean"].shape != encoder.mean.shape:
            raise InputError(
                f"{name}: statistics of width {len(weights['mean'])}, but the backbone's hidden size is "
                f"{len(encoder.mean)}: pass the model it was fitted with, {config.backbone_name_or_path}."
            )
        encoder.mean.copy_(weights["mean"])
        encoder.whitening.copy_(weights["whitening"])
        return encoder

    def _batches(self, texts: Sequence[str], contexts: Sequence[str] | None, batch_size: int):
        if isinstance(texts, str):
            raise InputError("expected a list of questions, got one string: pass [question].")
        for position, text in enumerate(texts):
            if not text.strip():
                raise InputError(f"question {position} is empty.")
        if contexts is not None:
            texts = [f"{text}\n{context}" for text, context in zip(texts, contexts, strict=True)]
        cut = 0
        with in_evaluation(self.backbone):
            for batch in in_groups(list(texts), batch_size):
                tokenized = self.tokenizer(batch, truncation=True, max_length=self.config.max_tokens)
                cut += sum(bool(encoding.overflowing) for encoding in tokenized.encodings or ())
                encoded = tokenized["input_ids"]
                ids = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in encoded], batch_first=True)
                lengths = torch.tensor([len(row) for row in encoded])
                # By length and not by pad id, which is also the end of text in many models.
                mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
                device = self.mean.device
                yield self._states(ids.to(device), mask.to(device))
        if cut:
            warnings.warn(
                f"{cut} of {len(texts)} questions are longer than max_tokens={self.config.max_tokens} and were cut: "
                "questions that differ after that get equal features.",
                stacklevel=3,
            )

    def _states(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The chosen layer's states ``(batch, tokens, d)`` and the mask of tokens that count."""
        states = hidden_states(self.backbone, input_ids, attention_mask, self.config.layer)
        skip = self.config.skip_first_position
        mask = attention_mask.bool().clone()
        if not self.backbone.config.is_encoder_decoder if skip is None else skip:
            # A question of one token keeps it: there is nothing else to look at.
            mask[mask.sum(dim=1) > 1, 0] = False
        return states, mask

    def _whiten(self, pooled: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize((pooled - self.mean) @ self.whitening, dim=-1)


def masked_mean(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of ``(batch, tokens, d)`` over the tokens where ``(batch, tokens)`` is true: ``(batch, d)``."""
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1)
