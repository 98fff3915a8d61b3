"""Configuration of the PEFT method ``"HYPERLORA"``."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from peft.config import PeftConfig
from peft.utils import PeftType


class HyperLoraType(StrEnum):
    """PEFT's enum of methods is closed, but PEFT only ever uses its members as string keys."""

    HYPERLORA = "HYPERLORA"


HYPERLORA = getattr(PeftType, "HYPERLORA", HyperLoraType.HYPERLORA)


@dataclass
class HyperLoraConfig(PeftConfig):
    """Configuration of [`HyperLoraModel`]: LoRA whose matrices a hypernetwork makes from a question or a document.

    Paper: Awakening Augmented Generation, section 3.2. A forward pass takes ``features`` of shape
    ``(batch, feature_dim)`` beside the usual inputs; each row of the batch gets an adapter made for it alone. Train it
    at about half the learning rate of a plain LoRA. With ``hypernetwork="memory"`` it takes ``memory`` instead, what
    [`~aag_hf.hyperlora.HyperLoraModel.memorize`] made of a document for each row. Such adapters are trained at the rate
    of a plain LoRA.

    Args:
        r (`int`): Rank of the generated matrices.
        lora_alpha (`float`): The update is scaled by ``lora_alpha / r``.
        use_rslora (`bool`): Scale by ``lora_alpha / sqrt(r)`` instead (the paper: ``lora_alpha=1``).
        feature_dim (`int`): Size of a question's feature vector, the `feature_dim` of its question encoder; with
            ``"memory"`` the width of a document's states, the hidden size of its document encoder's model.
        hidden_dim (`int`): Width of the hypernetwork; the paper uses 8 with ``"mlp"``.
        hypernetwork (`"embedding"`, `"mlp"` or `"memory"`): ``"embedding"`` conditions one trunk on a learned embedding
            per adapted layer and shares a head among layers of the same name and shape. ``"mlp"`` is the paper's:
            features beside the layer's index through a two-layer ReLU network per role (encoder attention, decoder
            attention, cross attention, …) and matrix. ``"memory"`` writes the tokens of a document into the update:
            see [`~aag_hf.hyperlora.memory_network.MemoryHyperNetwork`]. It adapts layers that write into the residual
            stream, such as ``down_proj``; `aag_hf.hyperlora.memory_layers` names those of a model's upper third.
        layer_index_scale (`float`): With ``"mlp"``, the factor of the layer's index in the input; ``None`` scales it
            into [0, 1), 1.0 is the paper's raw index, which dominates features of unit norm.
        static (`bool`): Also learn an A and a B that every question shares; exported as extra rank.
        static_r (`int`): Rank of that part; `r` by default.
        memory_per_layer (`bool`): With ``"memory"``, write a memory for each adapted layer, with keys of its own,
            instead of one for all.
        added_documents (`float`): With ``"memory"``, the probability that a question is trained on the sum of its
            document's memory and those of one to three others of the batch. Sums can be asked after that.
        lora_dropout (`float`): Dropout on the input of the adapter's path (never on the base layer's output).
        use_triton (`bool`): On a CUDA device, let Triton kernels apply the adapters where
            [`~kernels.hyper_lora.dispatch.choose_path`] allows it. Off by default: on an H200 they pay for wide layers
            with many rows only.
        init_weights (`bool`): Start with ΔW = 0, exactly. ``False`` is for tests only.
        target_modules (`list[str]` or `str`): Linear layers to adapt, as in [`peft.LoraConfig`]; ``"all-linear"`` too.
        exclude_modules (`list[str]` or `str`): As in [`peft.LoraConfig`].
        layers_to_transform (`list[int]` or `int`): As in [`peft.LoraConfig`].
        layers_pattern (`list[str]` or `str`): As in [`peft.LoraConfig`].
        modules_to_save (`list[str]`): Modules besides the hypernetwork to train and save.
        ensure_weight_tying (`bool`): As in [`peft.LoraConfig`]: embeddings in `modules_to_save` stay tied to the head.

    Raises:
        ValueError: A value outside its range.

    Example:

    ```python
    >>> from peft import get_peft_model
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> import torch
    >>> from aag_hf import HyperLoraConfig
    >>> base = LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
    ...                                     num_attention_heads=2, num_key_value_heads=1))
    >>> model = get_peft_model(base, HyperLoraConfig(feature_dim=6, r=2, target_modules=["q_proj", "v_proj"]))
    >>> model(input_ids=torch.tensor([[1, 2, 3]]), features=torch.randn(1, 6)).logits.shape
    torch.Size([1, 3, 64])

    ```
    """

    r: int = field(default=8, metadata={"help": "Rank of the generated matrices."})
    lora_alpha: float = field(default=16.0, metadata={"help": "The update is scaled by lora_alpha / r."})
    use_rslora: bool = field(default=False, metadata={"help": "Scale by lora_alpha / sqrt(r) instead."})
    feature_dim: int = field(default=255, metadata={"help": "Size of a question's feature vector."})
    hidden_dim: int = field(default=64, metadata={"help": "Width of the hypernetwork."})
    hypernetwork: Literal["embedding", "mlp", "memory"] = field(
        default="embedding",
        metadata={
            "help": "'embedding': a learned embedding per layer; 'mlp': the paper's, per role and matrix; 'memory': "
            "reads documents, not questions."
        },
    )
    layer_index_scale: float | None = field(
        default=None, metadata={"help": "With 'mlp': factor of the layer index; null scales it into [0, 1)."}
    )
    static: bool = field(default=False, metadata={"help": "Also learn an A and a B that all questions share."})
    static_r: int | None = field(default=None, metadata={"help": "Rank of that part; null: r."})
    memory_per_layer: bool = field(default=True, metadata={"help": "With 'memory', a memory for each adapted layer."})
    added_documents: float = field(
        default=0.5, metadata={"help": "With 'memory', how often other documents are added in training, in [0, 1]."}
    )
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout on the input of the adapter's path."})
    use_triton: bool = field(default=False, metadata={"help": "On a CUDA device, apply adapters by Triton kernels."})
    init_weights: bool = field(default=True, metadata={"help": "Start with an update of exactly zero."})
    target_modules: list[str] | str | None = field(
        default=None, metadata={"help": "Linear layers to adapt, by name or 'all-linear'."}
    )
    exclude_modules: list[str] | str | None = field(default=None, metadata={"help": "Layers to leave alone."})
    layers_to_transform: list[int] | int | None = field(default=None, metadata={"help": "Only these layer indices."})
    layers_pattern: list[str] | str | None = field(
        default=None, metadata={"help": "Name of the list of layers, if layers_to_transform is given."}
    )
    modules_to_save: list[str] | None = field(
        default=None, metadata={"help": "Modules besides the hypernetwork to train and save."}
    )

    ensure_weight_tying: bool = field(
        default=False, metadata={"help": "Keep embeddings in modules_to_save tied to the head."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = HYPERLORA
        for name in ("target_modules", "exclude_modules"):
            if isinstance(getattr(self, name), list):
                setattr(self, name, set(getattr(self, name)))
        for name in ("r", "feature_dim", "hidden_dim"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name} must be a positive integer, got {getattr(self, name)!r}.")
        if self.hypernetwork not in ("embedding", "mlp", "memory"):
            raise ValueError(f"hypernetwork must be 'embedding', 'mlp' or 'memory', got {self.hypernetwork!r}.")
        if self.static_r is not None and (not isinstance(self.static_r, int) or self.static_r < 1):
            raise ValueError(f"static_r must be a positive integer or None, got {self.static_r!r}.")
        if self.layer_index_scale is not None and self.hypernetwork != "mlp":
            raise ValueError("layer_index_scale belongs to hypernetwork='mlp': leave it out or choose 'mlp'.")
        if not 0.0 <= self.added_documents <= 1.0:
            raise ValueError(f"added_documents must be in [0, 1], got {self.added_documents}.")
        if not 0.0 <= self.lora_dropout < 1.0:
            raise ValueError(f"lora_dropout must be in [0, 1), got {self.lora_dropout}.")
        if self.layers_pattern is not None and self.layers_to_transform is None:
            raise ValueError("layers_pattern needs layers_to_transform: name the layer indices to adapt.")

    def to_dict(self) -> dict[str, Any]:
        """As in PEFT, with sets as sorted lists: the order of a set changes from process to process."""
        return {name: sorted(v) if isinstance(v, set) else v for name, v in super().to_dict().items()}

    @property
    def scaling(self) -> float:
        """The factor of the update."""
        return self.lora_alpha / (self.r**0.5 if self.use_rslora else self.r)
