"""States of one layer of a language model."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from aag_hf.errors import InputError
from aag_hf.questions.states import hidden_states

IDS, MASK = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]]), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])


@pytest.mark.parametrize("layer", [0, 1, 2, 0.5, 1.0])
@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_they_are_those_that_the_whole_model_gives(kind, layer, tiny_llama_dir, tiny_t5_dir):
    if kind == "llama":
        model = AutoModelForCausalLM.from_pretrained(tiny_llama_dir).eval()
        whole = model.model
    else:
        model = AutoModelForSeq2SeqLM.from_pretrained(tiny_t5_dir).eval()
        whole = model.encoder
    with torch.no_grad():
        states = hidden_states(model, IDS, MASK, layer)
        expected = whole(input_ids=IDS, attention_mask=MASK, output_hidden_states=True).hidden_states
    assert torch.equal(states, expected[layer if isinstance(layer, int) else round(2 * layer)])


def test_blocks_above_are_not_run_and_the_model_stays_whole(tiny_llama_dir):
    model = AutoModelForCausalLM.from_pretrained(tiny_llama_dir).eval()
    ran = []
    for number, block in enumerate(model.model.layers):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    with torch.no_grad():
        hidden_states(model, IDS, MASK, 1)
    assert ran == [0] and len(model.model.layers) == 2


def test_a_layer_that_is_not_there_is_refused(tiny_llama_dir):
    with pytest.raises(InputError, match="layer is 3, the backbone has 2"):
        hidden_states(AutoModelForCausalLM.from_pretrained(tiny_llama_dir), IDS, MASK, 3)
