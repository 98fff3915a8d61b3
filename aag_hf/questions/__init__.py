"""Question features: what the hypernetwork knows of a question."""

from aag_hf.questions.configuration import QuestionEncoderConfig
from aag_hf.questions.encoder import QuestionEncoder

__all__ = ["QuestionEncoderConfig", "QuestionEncoder"]
