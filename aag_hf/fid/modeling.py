"""Fusion-in-Decoder (Izacard & Grave, EACL 2021) as a thin subclass of transformers' T5.

The encoder folds the passages into rows, reads each on its own, and joins their states. The decoder sees one long
sequence. Nothing is kept between calls, since shapes travel with the tensors.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput
from transformers.models.t5.modeling_t5 import T5Stack
from transformers.utils.generic import can_return_tuple

from aag_hf.errors import InputError
from aag_hf.fid.configuration import FiDT5Config
from aag_hf.self_contained import SelfContained

# The original wraps T5's encoder, and each of its blocks once more for checkpointing.
FID_KEY_MAPPING = {r"^encoder\.encoder\.": "encoder.", r"\.module\.layer\.": ".layer."}


class FiDT5Encoder(T5Stack):
    """T5's encoder, reading passages separately.

    The rows it works on are sample-major: row ``i`` belongs to question ``i // passages``.
    """

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """Encode the passages and join their states.

        Args:
            input_ids: ``(batch, passages, tokens)`` or ``(batch, tokens)``.
            attention_mask: Shaped as `input_ids`, or joined, ``(batch, passages · tokens)``. Without it every token
                counts.
            inputs_embeds: ``(batch, passages, tokens, dim)`` or ``(batch, tokens, dim)``, instead of `input_ids`.

        Returns:
            `last_hidden_state` ``(batch, passages · tokens, dim)``. `hidden_states` and `attentions`, if asked for,
            keep one row per passage: ``(batch · passages, tokens, …)``.

        Raises:
            InputError: There are no passages, or the mask has another shape.
        """
        shape = None
        if input_ids is not None:
            shape = input_ids.shape
        elif inputs_embeds is not None:
            shape = inputs_embeds.shape[:-1]
        if shape is None or len(shape) == 2:
            return super().forward(input_ids, attention_mask, inputs_embeds=inputs_embeds, return_dict=True, **kwargs)
        _check_passages(shape, attention_mask)
        outputs = super().forward(
            input_ids.flatten(0, 1) if input_ids is not None else None,
            attention_mask.reshape(-1, shape[2]) if attention_mask is not None else None,
            inputs_embeds=inputs_embeds.flatten(0, 1) if inputs_embeds is not None else None,
            return_dict=True,
            **kwargs,
        )
        outputs.last_hidden_state = outputs.last_hidden_state.unflatten(0, shape[:2]).flatten(1, 2)
        return outputs


class FiDT5ForConditionalGeneration(SelfContained, T5ForConditionalGeneration):
    """T5 that reads any number of passages per question: `input_ids` of ``(batch, passages, tokens)``.

    With ``(batch, tokens)`` it is exactly T5. Parameters have T5's names, so a T5 checkpoint is a valid start, and
    adapters for T5 fit. Every mode of ``generate`` works on both shapes.

    Example:

    ```python
    >>> import torch
    >>> from aag_hf import FiDT5Config, FiDT5ForConditionalGeneration

    >>> config = FiDT5Config(
    ...     vocab_size=32, d_model=16, d_kv=4, d_ff=32, num_layers=2, num_heads=4, decoder_start_token_id=0
    ... )
    >>> model = FiDT5ForConditionalGeneration(config).eval()
    >>> passages = torch.randint(2, 32, (1, 3, 8))
    >>> model(input_ids=passages, labels=torch.tensor([[5, 1]])).logits.shape
    torch.Size([1, 2, 32])
    >>> model.generate(input_ids=passages, num_beams=2, max_new_tokens=4).shape[0]
    1
    >>> model.passage_scores(passages).shape
    torch.Size([1, 3])

    ```
    """

    config_class = FiDT5Config
    loaded_by = "AutoModelForSeq2SeqLM"
    encoder: FiDT5Encoder

    def __init__(self, config: FiDT5Config):
        super().__init__(config)
        self.encoder = FiDT5Encoder(self.encoder.config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: tuple[Tensor, ...] | BaseModelOutput | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """As T5's forward, over passages.

        Args:
            input_ids: ``(batch, passages, tokens)`` or ``(batch, tokens)``.
            attention_mask: Shaped as `input_ids`. Without it ``config.pad_token_id`` tells padding in the first shape.
                In the second every token counts, as in T5.
            encoder_outputs: Joined states, ``(batch, passages · tokens, dim)``, of [`FiDT5Encoder`].
            labels: ``(batch, answer tokens)``, -100 at padding.

        Returns:
            T5's outputs. Cross-attentions cover ``passages · tokens`` keys. Encoder hidden states and attentions keep
            one row per passage.

        Raises:
            InputError: There are no passages, or the mask has another shape.
        """
        attention_mask = self._mask_of(input_ids, attention_mask)
        if encoder_outputs is None:
            encoded = self.encoder(
                input_ids=input_ids,
                attention_mask=attention_mask,
                inputs_embeds=inputs_embeds,
                return_dict=True,
                **kwargs,
            )
            # T5 counts the entries of the encoder's output. Without hidden states, attentions would take their place.
            encoder_outputs = BaseModelOutput(encoded.last_hidden_state, encoded.hidden_states, encoded.attentions)
        return super().forward(
            attention_mask=attention_mask.flatten(1) if attention_mask is not None else None,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            past_key_values=past_key_values,
            decoder_inputs_embeds=decoder_inputs_embeds,
            labels=labels,
            use_cache=use_cache,
            return_dict=True,
            **kwargs,
        )

    def generate(self, inputs: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        """As [`transformers.GenerationMixin.generate`], with ``input_ids`` of either shape."""
        input_ids = kwargs.get("input_ids", inputs)
        attention_mask = self._mask_of(input_ids, kwargs.get("attention_mask"))
        if attention_mask is not None:
            # generate() insists on two axes; the encoder unfolds the joined mask by the shape of its input.
            kwargs["attention_mask"] = attention_mask.flatten(1)
        return super().generate(inputs, *args, **kwargs)

    @torch.no_grad()
    def passage_scores(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """How much the reader attends to each passage before it writes its first token.

        The target for distilling a retriever (Izacard & Grave, ICLR 2021, section 3.1): cross-attention scores of the
        first decoder position before their softmax, averaged over layers, heads and the passage's tokens. Call
        ``eval()`` first, or dropout makes them noisy.

        Args:
            input_ids, attention_mask: ``(batch, passages, tokens)``, as in [`forward`].

        Returns:
            ``(batch, passages)`` float32. Higher is more relevant; -inf for a passage that is all padding.
        """
        attention_mask = self._mask_of(input_ids, attention_mask)
        tokens = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        projected: list[Tensor] = []
        attentions = [block.layer[1].EncDecAttention for block in self.decoder.block]
        # Models return attention only after the softmax, and none at all under SDPA.
        hooks = [
            projection.register_forward_hook(lambda module, inputs, output: projected.append(output.float()))
            for attention in attentions
            for projection in (attention.q, attention.k)
        ]
        try:
            start = input_ids.new_full((len(input_ids), 1), self.config.decoder_start_token_id)
            self(input_ids, attention_mask, decoder_input_ids=start, use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        # T5 does not scale its scores, so the sum over heads of their dot products is one dot product.
        layers = [(key @ query.mT).squeeze(-1) for query, key in zip(projected[::2], projected[1::2])]
        scores = torch.stack(layers).mean(0) / self.config.num_heads
        passages = input_ids.shape[1] if input_ids.dim() == 3 else 1
        tokens = tokens.reshape(len(input_ids), passages, -1).float()
        count = tokens.sum(-1)
        mean = (scores.view_as(tokens) * tokens).sum(-1) / count.clamp_min(1)
        return mean.masked_fill(count == 0, -torch.inf)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Load ours, a plain T5 (v1.0, v1.1, flan), or FiD's original parameter names from safetensors.

        FiD's published ``pytorch_model.bin`` files are converted once, by
        [`aag_hf.fid.convert.convert_fid_checkpoint`].

        Raises:
            InputError: Parameters are missing from the checkpoint, or the model has no place for some; the message
                lists them.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        kwargs.setdefault("key_mapping", dict(FID_KEY_MAPPING))
        model, info = super().from_pretrained(pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs)
        _refuse_incomplete(pretrained_model_name_or_path or "state_dict", info["missing_keys"], info["unexpected_keys"])
        return (model, info) if wants_info else model

    def save_pretrained(self, *args: Any, save_original_format: bool = False, **kwargs: Any) -> Any:
        """As in the parent. A model that was read from FiD's original names is saved under T5's names."""
        return super().save_pretrained(*args, save_original_format=save_original_format, **kwargs)

    def _mask_of(self, input_ids: Tensor | None, attention_mask: Tensor | None) -> Tensor | None:
        if attention_mask is None and input_ids is not None and input_ids.dim() == 3:
            return input_ids.ne(self.config.pad_token_id)
        return attention_mask


def _check_passages(shape: torch.Size, attention_mask: Tensor | None) -> None:
    if len(shape) != 3:
        raise InputError(f"inputs are {tuple(shape)}: give (batch, passages, tokens) or (batch, tokens).")
    if shape[1] == 0:
        raise InputError(f"inputs are {tuple(shape)}: a question needs at least one passage, if only of padding.")
    joined = (shape[0], shape[1] * shape[2])
    if attention_mask is not None and attention_mask.shape not in (shape, joined):
        raise InputError(f"attention_mask is {tuple(attention_mask.shape)}, the inputs are {tuple(shape)}.")


def _refuse_incomplete(source: Any, missing: Iterable[str], unexpected: Iterable[str]) -> None:
    lines = [f"  missing: {key}" for key in sorted(missing)] + [f"  unexpected: {key}" for key in sorted(unexpected)]
    if lines:
        raise InputError(
            "\n".join([f"{source} does not hold the parameters that the configuration describes:", *lines])
            + "\nCheck that they belong together (number of layers, gated feed-forward or not)."
        )
