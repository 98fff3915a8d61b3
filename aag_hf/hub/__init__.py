"""Publishing: cards of what is saved."""

from aag_hf.hub.data_cards import leave_data_card

__all__ = ["leave_data_card"]
