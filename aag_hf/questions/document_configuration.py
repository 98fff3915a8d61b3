"""Configuration of the document encoder."""

from typing import Any

from transformers import PretrainedConfig

from aag_hf.errors import InputError


class DocumentEncoderConfig(PretrainedConfig):
    """Configuration of [`DocumentEncoder`].

    Args:
        backbone_name_or_path (`str`): The language model that reads the documents.
        layer (`float` or `int`): Whose output is kept: a share of the depth in (0, 1] as a float, or a layer's number
            as an int (0: the embeddings).
        window (`int`): Most tokens the model reads at once; longer documents are read in several windows.
        overlap (`int`): Tokens that a window shares with the one before, as context only.
        max_tokens (`int`): Longest document in tokens; a longer one is refused.
        common_words (`dict[str, float]`, *optional*): Words that tell little about what a question is about, with the
            share of training texts that hold them.

    Raises:
        InputError: A value outside its range.
    """

    model_type = "aag_document_encoder"

    def __init__(
        self,
        backbone_name_or_path: str | None = None,
        layer: float | int = 2 / 3,
        window: int = 512,
        overlap: int = 64,
        max_tokens: int = 32768,
        common_words: dict[str, float] | None = None,
        **kwargs: Any,
    ):
        if layer < 0 or (isinstance(layer, float) and not 0 < layer <= 1):
            raise InputError(f"layer must be a share of the depth in (0, 1] or a layer's number, got {layer!r}.")
        if not 0 <= overlap < window:
            raise InputError(f"overlap must be at least 0 and below window={window}, got {overlap}.")
        if max_tokens < 1:
            raise InputError(f"max_tokens must be positive, got {max_tokens}.")
        self.backbone_name_or_path = backbone_name_or_path
        self.layer = layer
        self.window = window
        self.overlap = overlap
        self.max_tokens = max_tokens
        self.common_words = common_words or {}
        super().__init__(**kwargs)
