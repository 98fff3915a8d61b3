"""Publishing: cards, uploads, and repositories that carry their own code."""

from aag_hf.hub.data_cards import leave_data_card
from aag_hf.hub.model_cards import leave_model_card, model_card
from aag_hf.hub.upload import push_folder

__all__ = ["leave_data_card", "leave_model_card", "model_card", "push_folder"]
