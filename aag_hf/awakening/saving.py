"""Files that are equal whenever what they hold is: what a process happened to do last is left out of them."""

from peft import PeftModel
from torch import nn
from transformers import PreTrainedTokenizerBase


def settle(tokenizer: PreTrainedTokenizerBase, *models: nn.Module | None) -> None:
    """Bring a tokenizer and models into the form in which they are saved.

    A fast tokenizer keeps how its last call cut and padded; PEFT keeps names of layers as a set, whose order changes
    from process to process.

    Args:
        tokenizer: Of the models.
        models: Adapters among them are meant, others stay as they are.
    """
    if tokenizer.is_fast:
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
    for model in models:
        if isinstance(model, PeftModel):
            for config in model.peft_config.values():
                if isinstance(config.target_modules, set):
                    config.target_modules = sorted(config.target_modules)
