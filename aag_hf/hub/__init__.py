"""Publishing: cards and uploads."""

from aag_hf.hub.cards import write_card
from aag_hf.hub.data_cards import data_card
from aag_hf.hub.model_cards import model_card
from aag_hf.hub.upload import push_folder

__all__ = ["data_card", "model_card", "push_folder", "write_card"]
