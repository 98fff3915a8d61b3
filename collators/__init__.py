"""Collators: batches of records, for this package's Trainers and for others."""

from aag_hf.collators.chat import build_prompt
from aag_hf.collators.context_distillation import DataCollatorForContextDistillation
from aag_hf.collators.context_generation import DataCollatorForContextGeneration
from aag_hf.collators.documents import RecordDocuments
from aag_hf.collators.fid import DataCollatorForFiD
from aag_hf.collators.reader_prompt import ReaderPrompt

__all__ = [
    "DataCollatorForFiD",
    "DataCollatorForContextGeneration",
    "DataCollatorForContextDistillation",
    "ReaderPrompt",
    "RecordDocuments",
    "build_prompt",
]
