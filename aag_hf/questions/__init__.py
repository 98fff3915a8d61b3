"""What hypernetworks know of a question or a document."""

from aag_hf.hyperlora.document_states import DocumentStates
from aag_hf.questions.configuration import QuestionEncoderConfig
from aag_hf.questions.document_configuration import DocumentEncoderConfig
from aag_hf.questions.document_encoder import DocumentEncoder
from aag_hf.questions.encoder import QuestionEncoder

__all__ = ["DocumentEncoder", "DocumentEncoderConfig", "DocumentStates", "QuestionEncoder", "QuestionEncoderConfig"]
