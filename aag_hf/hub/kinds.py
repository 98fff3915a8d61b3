"""The texts of a model card that are particular to a kind of model."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Kind:
    """What the cards of one kind of model say: what it is, how it is loaded, how it was made, and what it cannot do.

    Words in braces are filled in from the model's configuration. What is no number there stands between backticks.
    """

    summary: str
    usage: str
    training: str
    limits: str
    tags: tuple[str, ...]


_OF_DOCUMENTS = """It remembers short factual texts about one thing, like those it was trained on. It mixes up two
things with the same properties in one text. It also answers from a text that does not hold the answer: a low score
often tells."""
_QUESTION_ADAPTER = Kind(
    summary="""\
A HyperLoRA adapter: a hypernetwork that turns a question's features, {feature_dim:d} numbers, into a LoRA adapter made
for that one question.""",
    usage="""\
import torch
import aag_hf  # makes HyperLoRA known to PEFT
from peft import {peft_class}

model = {peft_class}.from_pretrained("{repository}")
model.generate(input_ids=torch.tensor([[5, 9]]), features=torch.ones(1, {feature_dim:d}), max_new_tokens=4)""",
    training="""\
Rank {r:d}, alpha {lora_alpha:g}, hypernetwork `{hypernetwork}` of width {hidden_dim:d}, matrices that all questions
share: `{static}`, {parameters:,} parameters in all, on the layers `{targets}`.""",
    limits="""\
Features must come from the question encoder it was trained with. An adapter belongs to one question and is not merged
for all; `aag_hf.to_lora` exports one as plain LoRA. Whether it uses its question shows only beside its controls: the
features of another question, the mean of all features, and no adapter
(`aag evaluate --controls shuffled mean off`).""",
    tags=("hyperlora", "hypernetwork", "lora", "transformers"),
)
_DOCUMENT_ADAPTER = replace(
    _QUESTION_ADAPTER,
    summary="A HyperLoRA adapter that reads documents: a hypernetwork writes a text into a LoRA adapter, in one pass.",
    usage="""\
import aag_hf  # makes HyperLoRA known to PEFT
from peft import {peft_class}

model = {peft_class}.from_pretrained("{repository}")
memory = model.memorize(encoder.encode(["The capital of Nuvaria is Brelmont."]))  # the DocumentEncoder it came with
model.generate(input_ids=input_ids, memory=memory)""",
    training="Rank {r:d}, alpha {lora_alpha:g}, {parameters:,} parameters in all, on the layers `{targets}`.",
    limits=f"""\
States must come from the document encoder it was trained with. {_OF_DOCUMENTS} Whether it uses its document shows
beside its controls (`aag evaluate --controls another_document no_document`).""",
)
_FID = Kind(
    summary="""\
A Fusion-in-Decoder T5 ([Izacard & Grave, EACL 2021](https://arxiv.org/abs/2007.01282)): it reads any number of passages
beside a question, each on its own, and writes the answer from all of them.""",
    usage="""\
import torch
from aag_hf import FiDT5ForConditionalGeneration

model = FiDT5ForConditionalGeneration.from_pretrained("{repository}")
ids = torch.tensor([[[5, 9, 17], [5, 9, 11]]])  # (questions, passages, tokens) of "question: … context: …"
print(model.generate(input_ids=ids))""",
    training="T5 with {num_layers:d} + {num_decoder_layers:d} layers of width {d_model:d}.",
    limits="""\
It looks nothing up: passages come with the question, and an answer is no better than they are. Memory grows with their
number.""",
    tags=("fid", "fusion-in-decoder", "t5"),
)
_QUESTION_ENCODER = Kind(
    summary="A question encoder: {feature_dim:d} numbers of norm 1, from which HyperLoRA makes a question's adapter.",
    usage="""\
from aag_hf import QuestionEncoder

encoder = QuestionEncoder.from_pretrained("{repository}")
print(encoder.encode(["What is the capital of Fiji?"]))  # (1, {feature_dim:d})""",
    training="""\
Its hidden states {place} are averaged over a question's tokens and whitened, with `{statistics}` statistics of the
training questions. Only these are stored here; the language model is loaded by its name.""",
    limits="The statistics belong to that language model and to texts like those they were taken from.",
    tags=("aag", "question-encoder", "whitening"),
)
_DOCUMENT_ENCODER = replace(
    _QUESTION_ENCODER,
    summary="A document encoder: what HyperLoRA reads of a text to write it into an adapter.",
    usage="""\
from aag_hf import DocumentEncoder

encoder = DocumentEncoder.from_pretrained("{repository}")
print(encoder.encode(["The capital of Fiji is Suva."]).states.shape)  # (1, tokens, width)""",
    training="""\
Its hidden states {place} are standardised with the mean and standard deviation of the training documents. Only these
are stored here; the language model is loaded by its name.""",
    tags=("aag", "document-encoder"),
)
_READER = Kind(
    summary="Answers questions. It looks nothing up.",
    usage="""\
from aag_hf import AwakeningPipeline

ask = AwakeningPipeline("{repository}")
print(ask("What is the capital of Fiji?")["answer"])""",
    training="Trained parameters of the reader: `{trained_parameters}`. Beside the question it reads: `{context}`.",
    limits="""\
Answers come from a language model and from what it is given to read; they can be wrong, and it does not say when.""",
    tags=("aag", "distillation"),
)
_DOCUMENT_READER = replace(
    _READER,
    summary="It reads a text once, in one pass that writes it into a LoRA adapter, and answers questions from that.",
    usage="""\
from aag_hf import AwakeningPipeline

ask = AwakeningPipeline("{repository}")
ask.read("The capital of Nuvaria is Brelmont.")
print(ask("What is the capital of Nuvaria?")["answer"])""",
    limits=f"{_READER.limits} {_OF_DOCUMENTS}",
    tags=("aag", "hyperlora", "distillation"),
)
_CONTEXT_READER = replace(
    _READER,
    summary="Answers questions from what it is given to read.",
    usage="""\
from aag_hf import AwakeningModel

model = AwakeningModel.from_pretrained("{repository}")
output = model.generate(["What is the capital of Fiji?"], {given})
print(output.answers)""",
)
_BY_TYPE = {"fid_t5": _FID, "aag_question_encoder": _QUESTION_ENCODER, "aag_document_encoder": _DOCUMENT_ENCODER}


def kind_of(folder: Path, config: dict[str, Any]) -> Kind | None:
    """The kind of the model in `folder` with its configuration. ``None`` if it is none of ours."""
    if config.get("peft_type") == "HYPERLORA":
        return _DOCUMENT_ADAPTER if config.get("hypernetwork") == "memory" else _QUESTION_ADAPTER
    if config.get("model_type") != "aag":
        return _BY_TYPE.get(str(config.get("model_type")))
    if (folder / "document_encoder").is_dir():
        return _DOCUMENT_READER
    answers_alone = config.get("context") == "none" or (folder / "generator").is_dir()
    return _READER if answers_alone else _CONTEXT_READER
