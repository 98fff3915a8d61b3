"""The contents of the card of each kind of artefact, read from its folder."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open

from aag_hf.hub.cards import hub_name, read_json, table_cell, without_folder
from aag_hf.markdown import in_code, in_text

AAG = "[Liao et al., COLING 2025](https://arxiv.org/abs/2403.15268)"
DOCUMENT_LIMITS = """ It remembers short factual texts about one thing, like those it was trained on. It mixes up two
things with the same properties in one text, and answers from a text that does not hold the answer too."""
PACKAGE = "[aag-hf](https://pypi.org/project/aag-hf)"


@dataclass
class About:
    """The parts of a card that are particular to an artefact.

    Args:
        summary: What it is.
        usage: A few lines of Python that load it.
        training: How it was made, as far as its folder tells.
        limits: Its limits, and how to check them.
        metadata: Arguments of `ModelCardData`.
        recipe: Options of the training run.
    """

    summary: str
    usage: str
    training: str
    limits: str
    metadata: dict[str, Any]
    recipe: dict[str, str] = field(default_factory=dict)


def describer_of(folder: Path) -> Callable[[Path, str], About] | None:
    """The function that describes the content of `folder` under a name. ``None`` if it is not ours."""
    if read_json(folder / "adapter_config.json").get("peft_type") == "HYPERLORA":
        return _adapter
    kinds = {
        "aag": _composed,
        "fid_t5": _fid,
        "aag_question_encoder": _encoder,
        "aag_document_encoder": _document_encoder,
    }
    return kinds.get(read_json(folder / "config.json").get("model_type", ""))


def _composed(folder: Path, repository: str) -> About:
    config = read_json(folder / "config.json")
    has_generator, has_encoder = (folder / "generator").is_dir(), (folder / "question_encoder").is_dir()
    reads_documents = (folder / "document_encoder").is_dir()
    has_adapter = (folder / "reader" / "adapter_config.json").is_file()
    parts = ["a context generator writes it a short document"] if has_generator else []
    parts += ["a hypernetwork makes it a LoRA adapter of its own"] if has_encoder else []
    context, base = in_text(config["context"]), config["base_model_name_or_path"]
    answers_alone = context == "none" or has_generator
    made = f" For each question, {' and '.join(parts)}." if parts else ""
    made += " It looks nothing up." if answers_alone else ""
    if reads_documents:
        made += " It reads a text once, in one pass that writes the text into a LoRA adapter, and answers from that."
    training = f"""\
Base model: {_named(base)}. Trained parameters of the reader: {in_text(config.get("trained_parameters", "unknown"))}.
The reader reads the question and, beside it: {"nothing" if context == "none" else f"{context} context"}."""
    if "training_environment" in config:
        environment = in_text(", ".join(f"{name} {value}" for name, value in config["training_environment"].items()))
        training += f"\n\nTrained in {config['training_figures']['train_seconds']:.0f} seconds on {environment}."
    return About(
        summary=f"Answers questions with {PACKAGE}: Awakening Augmented Generation ({AAG}).{made}",
        usage=_document_usage(repository)
        if reads_documents
        else _composed_usage(repository, config["fid"], answers_alone),
        training=training,
        limits="Answers come from a language model and from what it is given to read; they can be wrong, and it does "
        "not say when." + (DOCUMENT_LIMITS if reads_documents else ""),
        metadata={
            "library_name": "aag-hf",
            "base_model": hub_name(base),
            "base_model_relation": "adapter" if has_adapter else "finetune",
            "pipeline_tag": "question-answering",
            "tags": ["aag", *(["hyperlora"] if has_encoder or reads_documents else []), "distillation"],
        },
        recipe={in_code(name): table_cell(value) for name, value in sorted(config.get("training_recipe", {}).items())},
    )


def _document_usage(repository: str) -> str:
    return f"""\
from aag_hf import AwakeningPipeline

ask = AwakeningPipeline("{repository}")
ask.read("The capital of Nuvaria is Brelmont.")
print(ask("What is the capital of Nuvaria?")["answer"])"""


def _composed_usage(repository: str, fid: bool, answers_alone: bool) -> str:
    if answers_alone:
        return f"""\
from aag_hf import AwakeningPipeline

ask = AwakeningPipeline("{repository}")
print(ask("What is the capital of Fiji?")["answer"])"""
    passages = '[[{"title": "Fiji", "text": "The capital of Fiji is Suva."}]]'
    read = f"passages={passages}" if fid else 'contexts=["The capital of Fiji is Suva."]'
    return f"""\
from aag_hf import AwakeningModel

model = AwakeningModel.from_pretrained("{repository}")
output = model.generate(["What is the capital of Fiji?"], {read})
print(output.answers)"""


def _adapter(folder: Path, repository: str) -> About:
    config = read_json(folder / "adapter_config.json")
    base, size = config["base_model_name_or_path"], config["feature_dim"]
    auto_class = "AutoPeftModel" + {"CAUSAL_LM": "ForCausalLM", "SEQ_2_SEQ_LM": "ForSeq2SeqLM"}.get(
        config["task_type"], ""
    )
    targets = config["target_modules"]
    targets = targets if isinstance(targets, str) else ", ".join(sorted(targets))
    shared = ", beside a pair of matrices that all questions share" if config["static"] else ""
    if config["hypernetwork"] == "memory":
        return _memory_adapter(folder, repository, auto_class, targets)
    return About(
        summary=f"""\
A HyperLoRA adapter: a hypernetwork that turns a question's features, {size:d} numbers, into a LoRA adapter made for
that one question{shared} ({AAG}). It needs {PACKAGE}, whose import makes it known to PEFT.""",
        usage=f"""\
import torch
import aag_hf
from peft import {auto_class}

model = {auto_class}.from_pretrained("{repository}")
model.generate(input_ids=torch.tensor([[5, 9]]), features=torch.ones(1, {size:d}), max_new_tokens=4)""",
        training=f"""\
Base model: {_named(base)}. Rank {config["r"]:d}, alpha {config["lora_alpha"]:g}, hypernetwork
`{in_code(config["hypernetwork"])}` of width {config["hidden_dim"]:d}, {_count_parameters(folder):,}
parameters in all, on the layers `{in_code(targets)}`.
Saved with PEFT {in_text(config.get("peft_version", "unknown"))}.""",
        limits="""\
Features must come from the question encoder it was trained with. An adapter belongs to one question and is not merged
for all; `aag_hf.to_lora` exports one as plain LoRA. Whether it uses its question shows only beside its controls: the
features of another question, the mean of all features, and no adapter
(`aag evaluate --controls shuffled mean off`).""",
        metadata={
            "library_name": "peft",
            "base_model": hub_name(base),
            "base_model_relation": "adapter",
            "pipeline_tag": "question-answering",
            "tags": ["hyperlora", "hypernetwork", "lora", "transformers"],
        },
    )


def _memory_adapter(folder: Path, repository: str, auto_class: str, targets: str) -> About:
    config = read_json(folder / "adapter_config.json")
    base = config["base_model_name_or_path"]
    return About(
        summary=f"""\
A HyperLoRA adapter that reads documents: a hypernetwork writes a text into a LoRA adapter, in one pass ({AAG}). It
needs {PACKAGE}, whose import makes it known to PEFT.""",
        usage=f"""\
import aag_hf
from peft import {auto_class}

model = {auto_class}.from_pretrained("{repository}")
memory = model.memorize(encoder.encode(["The capital of Nuvaria is Brelmont."]))  # the DocumentEncoder it came with
model.generate(input_ids=input_ids, memory=memory)""",
        training=f"""\
Base model: {_named(base)}. Rank {config["r"]:d}, alpha {config["lora_alpha"]:g}, {_count_parameters(folder):,}
parameters in all, on the layers `{in_code(targets)}`.
Saved with PEFT {in_text(config.get("peft_version", "unknown"))}.""",
        limits=f"""\
States must come from the document encoder it was trained with.{DOCUMENT_LIMITS} Whether it uses its document shows
beside its controls (`aag evaluate --controls another_document no_document`).""",
        metadata={
            "library_name": "peft",
            "base_model": hub_name(base),
            "base_model_relation": "adapter",
            "pipeline_tag": "question-answering",
            "tags": ["hyperlora", "hypernetwork", "lora", "transformers"],
        },
    )


def _fid(folder: Path, repository: str) -> About:
    config = read_json(folder / "config.json")
    return About(
        summary=f"""\
A Fusion-in-Decoder T5 ([Izacard & Grave, EACL 2021](https://arxiv.org/abs/2007.01282)): it reads any number of passages
beside a question, each on its own, and writes the answer from all of them. It needs {PACKAGE}.""",
        usage=_fid_usage(repository, (folder / "tokenizer_config.json").is_file()),
        training=f"""\
T5 with {config["num_layers"]:d} + {config["num_decoder_layers"]:d} layers of width {config["d_model"]:d}.
Saved with transformers {in_text(config["transformers_version"])}.""",
        limits="It looks nothing up: passages come with the question, and an answer is no better than they are. Memory "
        "grows with their number.",
        metadata={
            "library_name": "aag-hf",
            "base_model_relation": "finetune",
            "pipeline_tag": "question-answering",
            "tags": ["fid", "fusion-in-decoder", "t5"],
        },
    )


def _fid_usage(repository: str, has_tokenizer: bool) -> str:
    if has_tokenizer:
        return f"""\
from transformers import AutoTokenizer
from aag_hf import FiDT5ForConditionalGeneration

model, tokenizer = (c.from_pretrained("{repository}") for c in (FiDT5ForConditionalGeneration, AutoTokenizer))
passages = ["question: where is Suva? context: Suva is in Fiji.", "question: where is Suva? context: It is a city."]
ids = tokenizer(passages, padding=True, return_tensors="pt").input_ids[None]  # (questions, passages, tokens)
print(tokenizer.batch_decode(model.generate(input_ids=ids), skip_special_tokens=True))"""
    return f"""\
import torch
from aag_hf import FiDT5ForConditionalGeneration

model = FiDT5ForConditionalGeneration.from_pretrained("{repository}")
ids = torch.tensor([[[5, 9, 17], [5, 9, 11]]])  # (questions, passages, tokens)
print(model.generate(input_ids=ids))"""


def _encoder(folder: Path, repository: str) -> About:
    config = read_json(folder / "config.json")
    base, size, layer = config["backbone_name_or_path"], config["feature_dim"], config["layer"]
    place = f"after {layer:.0%} of its depth" if isinstance(layer, float) else f"of layer {layer:d}"
    return About(
        summary=f"""\
A question encoder of {PACKAGE}: the features, {size:d} numbers of norm 1, from which HyperLoRA makes a question's
adapter ({AAG}, section 3.2).""",
        usage=f"""\
from aag_hf import QuestionEncoder

encoder = QuestionEncoder.from_pretrained("{repository}")
print(encoder.encode(["What is the capital of Fiji?"]))  # (1, {size:d})""",
        training=f"""\
Hidden states of {_named(base)} {place}, averaged over a question's tokens and whitened with the mean and covariance of
the training {"tokens" if config["statistics"] == "token" else "questions"}. Only these statistics are stored here; the
language model is loaded by its name. Saved with transformers {in_text(config["transformers_version"])}.""",
        limits="The statistics belong to that language model and to questions like those they were taken from.",
        metadata={
            "library_name": "aag-hf",
            "base_model": hub_name(base),
            "base_model_relation": "adapter",
            "pipeline_tag": "feature-extraction",
            "tags": ["aag", "question-encoder", "whitening"],
        },
    )


def _document_encoder(folder: Path, repository: str) -> About:
    config = read_json(folder / "config.json")
    base, layer = config["backbone_name_or_path"], config["layer"]
    place = f"after {layer:.0%} of its depth" if isinstance(layer, float) else f"of layer {layer:d}"
    return About(
        summary=f"""\
A document encoder of {PACKAGE}: what HyperLoRA reads of a text to write it into an adapter.""",
        usage=f"""\
from aag_hf import DocumentEncoder

encoder = DocumentEncoder.from_pretrained("{repository}")
print(encoder.encode(["The capital of Fiji is Suva."]).states.shape)  # (1, tokens, width)""",
        training=f"""\
Hidden states of {_named(base)} {place}, standardised with the mean and standard deviation of the training documents.
Only these statistics are stored here; the language model is loaded by its name. Saved with transformers
{in_text(config["transformers_version"])}.""",
        limits="The statistics belong to that language model and to documents like those they were taken from.",
        metadata={
            "library_name": "aag-hf",
            "base_model": hub_name(base),
            "base_model_relation": "adapter",
            "pipeline_tag": "feature-extraction",
            "tags": ["aag", "document-encoder"],
        },
    )


def _named(base: str | None) -> str:
    return "unknown" if base is None else f"`{in_code(hub_name(base) or without_folder(base))}`"


def _count_parameters(folder: Path) -> int:
    total = 0
    for path in folder.glob("adapter_model*.safetensors"):
        with safe_open(path, framework="pt") as file:
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return total
