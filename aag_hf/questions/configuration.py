"""Configuration of the question encoder."""

from typing import Any

from transformers import PretrainedConfig

from aag_hf.errors import InputError


class QuestionEncoderConfig(PretrainedConfig):
    """Configuration of [`QuestionEncoder`].

    Args:
        feature_dim (`int`): Size of a feature vector; the paper keeps 255 directions.
        backbone_name_or_path (`str`): The language model whose hidden states are pooled.
        layer (`float` or `int`): Whose output is pooled: a share of the depth in (0, 1] as a float, or a layer's number
            as an int (0: the embeddings).
        statistics (`"token"` or `"pooled"`): Over what the mean and covariance are taken: the tokens' states, or each
            question's mean as in the paper.
        skip_first_position (`bool`): Leave the first token out of the mean: in causal models it attends to itself
            alone and its norm is many times the others'. ``None``: for causal models only.
        max_tokens (`int`): Longest input in tokens.

    Raises:
        InputError: A value outside its range.
    """

    model_type = "aag_question_encoder"

    def __init__(
        self,
        feature_dim: int = 64,
        backbone_name_or_path: str | None = None,
        layer: float | int = 2 / 3,
        statistics: str = "token",
        skip_first_position: bool | None = None,
        max_tokens: int = 128,
        **kwargs: Any,
    ):
        if feature_dim < 1:
            raise InputError(f"feature_dim must be positive, got {feature_dim}.")
        if statistics not in ("token", "pooled"):
            raise InputError(f"statistics must be 'token' or 'pooled', got {statistics!r}.")
        if layer < 0 or (isinstance(layer, float) and not 0 < layer <= 1):
            raise InputError(f"layer must be a share of the depth in (0, 1] or a layer's number, got {layer!r}.")
        self.feature_dim = feature_dim
        self.backbone_name_or_path = backbone_name_or_path
        self.layer = layer
        self.statistics = statistics
        self.skip_first_position = skip_first_position
        self.max_tokens = max_tokens
        super().__init__(**kwargs)
