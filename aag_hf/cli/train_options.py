"""The options of ``aag train``."""

from dataclasses import dataclass, field
from typing import Literal

from aag_hf.cli.options import AdapterOptions, ModelOptions, PromptOptions, SampleOptions
from aag_hf.cli.stage import OVERWRITE
from aag_hf.data.contexts import ContextSource
from aag_hf.errors import InputError


@dataclass
class TrainOptions(PromptOptions, SampleOptions, AdapterOptions, ModelOptions):
    """What is trained, on what, and what it reads."""

    train_file: str = field(default="", metadata={"help": "Training records."})
    dev_file: str | None = field(default=None, metadata={"help": "Development records, for the loss after training."})
    answer_dev_file: bool = field(
        default=False,
        metadata={"help": "Also answer their questions at each evaluation: metrics exact_match, f1, best_subspan_em."},
    )
    method: Literal["aag", "lora", "full"] = field(
        default="aag", metadata={"help": "'aag' (HyperLoRA), 'lora' (static LoRA) or 'full' (all weights)."}
    )
    context: ContextSource = field(
        default="none", metadata={"help": "What the reader reads: none, generated, compressed or passages."}
    )
    passages: int = field(default=1, metadata={"help": "How many passages 'passages' reads."})
    fid: bool = field(
        default=False, metadata={"help": "Read them the Fusion-in-Decoder way, each on its own; for T5 models."}
    )
    teacher: str | None = field(default=None, metadata={"help": "A reader trained before, to distil from."})
    teacher_cache_dir: str | None = field(
        default=None, metadata={"help": "Compute the teacher's answers once and keep them here, for other runs too."}
    )
    teacher_top_k: int | None = field(
        default=64, metadata={"help": "Logits of each answer token that the cache keeps; null keeps all."}
    )
    prompt_max_length: int = field(default=256, metadata={"help": "Most tokens of a prompt."})
    answer_max_length: int = field(default=16, metadata={"help": "Most tokens of an answer."})
    padding_free: bool = field(
        default=False, metadata={"help": "Train on rows laid one after another, without padding; for causal models."}
    )
    adapter_from: Literal["question", "document", "both"] = field(
        default="question", metadata={"help": "What method 'aag' makes adapters from; of 'both' the two add up."}
    )
    adapter_context: ContextSource = field(
        default="passages", metadata={"help": "The adapter's document: generated, compressed or passages."}
    )
    adapter_passages: int = field(default=1, metadata={"help": "How many passages its 'passages' joins."})
    added_documents: float = field(
        default=0.5,
        metadata={"help": "How often other documents' memories are added to a question's in training, in [0, 1]."},
    )
    keep_lower_states: bool = field(
        default=False,
        metadata={"help": "Compute what enters the lowest adapted layer once per row, and train the layers above it."},
    )
    hypernetwork: Literal["embedding", "mlp"] = field(
        default="embedding", metadata={"help": "As in HyperLoraConfig, with adapter_from 'question'."}
    )
    hidden_dim: int | None = field(
        default=None,
        metadata={"help": "Width of the hypernetwork; by default 64, and 128 with adapter_from 'document'."},
    )
    layer_index_scale: float | None = field(default=None, metadata={"help": "As in HyperLoraConfig, with 'mlp'."})
    static: bool = field(default=True, metadata={"help": "Also learn an A and a B that all questions share."})
    static_r: int | None = field(
        default=None, metadata={"help": "Rank of that part; by default r, and 8 with adapter_from 'document'."}
    )
    feature_dim: int = field(default=64, metadata={"help": "Size of a question's features."})
    feature_layer: float = field(default=2 / 3, metadata={"help": "Whose output is pooled, as a share of the depth."})
    features_read_context: bool = field(
        default=False, metadata={"help": "Make features from question and context, as in the paper."}
    )
    feature_statistics: Literal["token", "pooled"] = field(
        default="token", metadata={"help": "Whitening over tokens, or over pooled questions as in the paper."}
    )
    overwrite: bool = field(default=False, metadata={"help": OVERWRITE})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher_top_k is not None and self.teacher_top_k < 1:
            raise InputError(f"teacher_top_k must be positive, or null for all logits, got {self.teacher_top_k}.")
        if self.reads_documents and self.adapter_context == "none":
            raise InputError("adapter_context is 'none': name the text that adapters are made from.")

    @property
    def reads_documents(self) -> bool:
        """Whether adapters are made from documents."""
        return self.method == "aag" and self.adapter_from in ("document", "both")

    @property
    def reads_questions(self) -> bool:
        """Whether adapters are made from questions."""
        return self.method == "aag" and self.adapter_from in ("question", "both")
