"""Options that several commands share."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from transformers import PreTrainedTokenizerBase

from aag_hf.cli.dtypes import DTYPES, chosen_dtype
from aag_hf.cli.processes import device
from aag_hf.cli.quantization import QuantizationOptions
from aag_hf.collators.chat import Shot, build_prompt, is_instruct
from aag_hf.collators.prompts import check_prompt
from aag_hf.data.contexts import CHAT_CONTEXT_PROMPT, CHAT_PROMPT, READER_CONTEXT_PROMPT, READER_PROMPT
from aag_hf.errors import InputError


@dataclass
class LoadingOptions(QuantizationOptions):
    """How a language model is loaded."""

    dtype: str = field(
        default="float32",
        metadata={
            "help": "Base weights: float32, bfloat16, float16, or 'auto': float32 or bfloat16, the faster one here."
        },
    )
    attn_implementation: str | None = field(
        default=None, metadata={"help": "As in transformers; on CPUs without AMX 'eager' is the fastest in bfloat16."}
    )
    threads: int | None = field(
        default=None, metadata={"help": "CPU threads; on a busy machine 1 can be faster than 2."}
    )

    def __post_init__(self) -> None:
        self.dtype = chosen_dtype(self.dtype)

    def loading_arguments(self) -> dict[str, Any]:
        """The fields under the names of `from_pretrained`."""
        dtype = DTYPES[self.dtype]
        arguments: dict[str, Any] = {"dtype": dtype, "attn_implementation": self.attn_implementation}
        if self.quantization is not None:
            arguments["quantization_config"] = self.quantization_config(dtype, device())
            arguments["device_map"] = {"": device()}
        return arguments

    def loading_settings(self) -> dict[str, Any]:
        """The fields that change what a model says, as plain values."""
        settings = {"dtype": self.dtype, "attn_implementation": self.attn_implementation}
        if self.quantization is not None:
            settings |= {option.name: getattr(self, option.name) for option in fields(QuantizationOptions)}
        return settings


@dataclass
class ModelOptions(LoadingOptions):
    """The language model and how it is loaded."""

    model_name_or_path: str = field(
        default="embedded", metadata={"help": "Base model: a directory, a Hub id, or 'embedded' (SmolLM2-135M)."}
    )


@dataclass
class PromptOptions:
    """How a reader is asked."""

    chat: bool | None = field(
        default=None,
        metadata={"help": "Ask in turns of a chat, by the tokenizer's template. By default, chat models are asked so."},
    )
    prompt: str | None = field(
        default=None, metadata={"help": "Text with {question}. The default depends on whether it is a chat."}
    )
    context_prompt: str | None = field(
        default=None,
        metadata={"help": "Text with {context} and {question}. The default depends on whether it is a chat."},
    )

    def is_chat(self, tokenizer: PreTrainedTokenizerBase, name_or_path: str) -> bool:
        """Whether to ask in turns of a chat.

        Args:
            tokenizer: The base model's.
            name_or_path: The base model.

        Raises:
            InputError: `chat` is true, and the tokenizer has no template.
        """
        if self.chat and tokenizer.chat_template is None:
            raise InputError(f"chat is true, and {name_or_path} has no chat template: leave it out for plain prompts.")
        return is_instruct(tokenizer, name_or_path) if self.chat is None else self.chat

    def prompts(self, tokenizer: PreTrainedTokenizerBase, chat: bool, shots: Sequence[Shot] = ()) -> dict[str, Any]:
        """The fields of an [`~aag_hf.AwakeningConfig`] that say how to ask.

        Args:
            tokenizer: The base model's.
            chat: Whether in turns of a chat.
            shots: Answered questions to read first. They go into `context_prompt` if the reader has a context, else
                into `prompt`.
        """
        reads = bool(shots) and shots[0][1] is not None
        usual = (CHAT_PROMPT, CHAT_CONTEXT_PROMPT) if chat else (READER_PROMPT, READER_CONTEXT_PROMPT)
        chosen = (self.prompt, self.context_prompt)
        templates = [default if own is None else own for own, default in zip(chosen, usual)]
        for name, template, contexts in zip(("prompt", "context_prompt"), templates, (0, 1)):
            check_prompt(name, template, contexts)
        asking = tokenizer if chat else None
        return {
            "chat": chat,
            "prompt": build_prompt(templates[0], () if reads else shots, asking),
            "context_prompt": build_prompt(templates[1], shots if reads else (), asking),
        }


@dataclass
class SampleOptions:
    """How many records a run uses."""

    max_train_samples: int | None = field(
        default=None, metadata={"help": "Train on at most this many records, drawn with `seed`."}
    )
    max_eval_samples: int | None = field(
        default=None, metadata={"help": "Evaluate on at most this many development records, drawn with `seed`."}
    )


@dataclass
class AdapterOptions:
    """A LoRA or HyperLoRA adapter."""

    r: int | None = field(
        default=None, metadata={"help": "Rank. The default is 8, and 64 for adapters made from documents."}
    )
    lora_alpha: float = field(default=16.0, metadata={"help": "The update is scaled by lora_alpha / r."})
    use_rslora: bool = field(
        default=False, metadata={"help": "Scale by lora_alpha / sqrt(r) instead, as the paper does."}
    )
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout on the adapter's path."})
    target_modules: list[str] = field(
        default_factory=lambda: ["all-linear"],
        metadata={"help": "Layers to adapt: names, one regular expression for whole paths, or all-linear."},
    )
    modules_to_save: list[str] = field(
        default_factory=list, metadata={"help": "Names of modules that are trained whole, beside the adapter."}
    )

    def lora_arguments(self) -> dict[str, Any]:
        """The fields under the names of PEFT's configurations."""
        targets = self.target_modules
        # PEFT takes a single string for "all-linear" or an expression; as a list it would be the name of a layer.
        single = len(targets) == 1 and not targets[0].replace("_", "").isalnum()
        return {
            "r": self.r or 8,
            "lora_alpha": self.lora_alpha,
            "use_rslora": self.use_rslora,
            "lora_dropout": self.lora_dropout,
            "target_modules": targets[0] if single else targets,
            "modules_to_save": self.modules_to_save or None,
        }
