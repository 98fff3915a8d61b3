"""Configuration of the composed model."""

from typing import Any

from transformers import PretrainedConfig

from aag_hf.data.contexts import GENERATOR_PROMPT, READER_CONTEXT_PROMPT, READER_PROMPT, ContextSource
from aag_hf.errors import InputError


class AwakeningConfig(PretrainedConfig):
    """Configuration of [`AwakeningModel`]: what its parts read and write.

    Args:
        base_model_name_or_path (`str`): The language model under reader, generator and encoders.
        context (`str`): What the reader reads beside the question: ``"none"``, ``"generated"``, ``"compressed"`` or
            ``"passages"``.
        passages (`int`): How many passages ``"passages"`` reads.
        fid (`bool`): Read each passage on its own with the question, as in Fusion-in-Decoder, instead of joined in one
            prompt. For T5.
        features_read_context (`bool`): Make features from question and context, as in the paper, instead of from the
            question alone.
        adapter_context (`str`): The documents that the reader's adapter is made from: ``"generated"``, ``"compressed"``
            or ``"passages"``. ``"none"`` if it is not made from documents.
        adapter_passages (`int`): How many passages the adapter's ``"passages"`` joins.
        prompt (`str`): The reader's prompt without context.
        context_prompt (`str`): The reader's prompt with context.
        generator_prompt (`str`): The context generator's prompt.
        chat (`bool`): Whether the reader's prompts, not the generator's, are turns of a chat, as
            [`~aag_hf.collators.build_prompt`] makes them with the tokenizer's template.
        prompt_max_length (`int`): The most tokens of a prompt.
        answer_max_length (`int`): The most tokens of an answer.
        context_max_length (`int`): The most tokens of a generated context.
        quantization (`str`, *optional*): The precision of the base model when the reader was trained: ``"8bit"``,
            ``"4bit"`` or the name of another method.

    Raises:
        InputError: Features should read a context but there is none, or Fusion-in-Decoder is asked for without passages
            or in a chat.
    """

    model_type = "aag"

    def __init__(
        self,
        base_model_name_or_path: str | None = None,
        context: ContextSource = "none",
        passages: int = 1,
        fid: bool = False,
        features_read_context: bool = False,
        adapter_context: ContextSource = "none",
        adapter_passages: int = 1,
        prompt: str = READER_PROMPT,
        context_prompt: str = READER_CONTEXT_PROMPT,
        generator_prompt: str = GENERATOR_PROMPT,
        chat: bool = False,
        prompt_max_length: int = 256,
        answer_max_length: int = 16,
        context_max_length: int = 64,
        quantization: str | None = None,
        **kwargs: Any,
    ):
        self.base_model_name_or_path = base_model_name_or_path
        self.context = context
        self.passages = passages
        if fid and context != "passages":
            raise InputError(f"fid reads several passages, and the context is {context!r}: choose 'passages'.")
        if fid and chat:
            raise InputError("fid reads passages with prompts of its own: leave chat off.")
        self.fid = fid
        if features_read_context and context == "none":
            raise InputError("features_read_context needs a context: choose one, or leave it off.")
        self.features_read_context = features_read_context
        self.adapter_context = adapter_context
        self.adapter_passages = adapter_passages
        self.prompt = prompt
        self.context_prompt = context_prompt
        self.generator_prompt = generator_prompt
        self.chat = chat
        self.prompt_max_length = prompt_max_length
        self.answer_max_length = answer_max_length
        self.context_max_length = context_max_length
        self.quantization = quantization
        super().__init__(**kwargs)
