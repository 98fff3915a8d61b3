"""What an adapter consists of: how much it changes each layer, and which tokens of a document it keeps."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedTokenizerBase

from aag_hf import to_lora
from aag_hf.awakening import AwakeningModel
from aag_hf.demo.readers import Reading
from aag_hf.hyperlora.config import HYPERLORA

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WEIGHT = re.compile(r"base_model\.model\.(.+)\.lora_A\.weight")


def update_norms(model: AwakeningModel, reading: Reading) -> dict[str, float]:
    """How much the adapter of a question changes each layer.

    Args:
        model: The reader.
        reading: What it made of the question.

    Returns:
        The Frobenius norm of the update of each adapted layer's weight, by the layer's name; empty for a reader whose
        adapter is not made from anything.
    """
    pairs: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = defaultdict(list)
    configs = getattr(model.reader, "peft_config", {})
    for name in model.reader.active_adapters if configs else ():
        if configs[name].peft_type != HYPERLORA:
            continue
        from_memory = configs[name].hypernetwork == "memory"
        config, weights = to_lora(
            model.reader,
            None if from_memory else reading.features,
            name,
            memory=reading.memory if from_memory else None,
        )
        for found in filter(None, map(_WEIGHT.fullmatch, weights)):
            a, b = (weights[found[0].replace("lora_A", matrix)].double() for matrix in ("lora_A", "lora_B"))
            pairs[found[1]].append((a, b * (config.lora_alpha / config.r)))
    return {layer: _norm_of_sum(parts) for layer, parts in pairs.items()}


def _norm_of_sum(parts: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """The norm of the sum of ``b a``, which is never made: it is as large as the layer."""
    a, b = torch.cat([a for a, _ in parts]), torch.cat([b for _, b in parts], dim=1)
    return float(((a @ a.T) * (b.T @ b)).sum().clamp(min=0).sqrt())


def grid(norms: dict[str, float]) -> tuple[list[str], list[str], list[list[float]]]:
    """The norms as a table.

    Returns:
        The modules, which are its rows; the layers, which are its columns; and the norms, NaN where a layer has no such
        module.
    """
    places = {name: _place(name) for name in norms}
    stacks = [stack for stack, _, _ in places.values()]
    # How many names all stacks begin with: `encoder` and `decoder` of a T5 share none, a single stack all.
    shared = next((i for i, names in enumerate(zip(*stacks)) if len(set(names)) > 1), min(map(len, stacks)))
    columns = {name: " ".join([*stack[shared : shared + 1], number]) for name, (stack, number, _) in places.items()}
    modules = list(dict.fromkeys(module for _, _, module in places.values()))
    layers = list(dict.fromkeys(columns.values()))
    values = [[float("nan")] * len(layers) for _ in modules]
    for name, norm in norms.items():
        values[modules.index(places[name][2])][layers.index(columns[name])] = norm
    return modules, layers, values


def _place(name: str) -> tuple[tuple[str, ...], str, str]:
    """The stack, the number and the module of a layer."""
    parts = name.split(".")
    first = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    if first is None:
        return (), "–", parts[-1]
    module = [part for part in parts[first + 1 :] if not part.isdigit()]
    return tuple(parts[:first]), parts[first], ".".join(module[-2:])


def heat_map(norms: dict[str, float]) -> Figure:
    """A picture of `grid`."""
    from matplotlib.figure import Figure

    modules, layers, values = grid(norms)
    figure = Figure(figsize=(5.5, 1.6 + 0.3 * len(modules)), dpi=120, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(values, aspect="auto", cmap="viridis", vmin=0)
    axes.set_title("Norm of the adapter's update of each layer", fontsize="medium")
    axes.set_yticks(range(len(modules)), modules)
    step = -(-len(layers) // 12)
    axes.set_xticks(range(0, len(layers), step), layers[::step], rotation=0 if max(map(len, layers)) < 3 else 60)
    axes.set_xlabel("layer")
    figure.colorbar(image, ax=axes)
    return figure


def written_tokens(model: AwakeningModel, text: str) -> list[tuple[str, float | None]]:
    """The pieces of a text, and how strongly each is written into the adapter.

    Args:
        model: A reader whose adapter is made from documents.
        text: The document.

    Returns:
        The text in pieces, in order, each with its gate (the mean over memories) relative to the strongest, 0 to 1.
        ``None`` for a piece that no memory holds.
    """
    encoder = model.document_encoder
    assert encoder is not None
    states = encoder.encode([text])
    gates = model.reader.gates(states)[0].mean(-1)
    assert states.mask is not None
    strongest = float(gates.max())
    strengths = [
        float(gate) / strongest if held else None for gate, held in zip(gates.tolist(), states.mask[0].tolist())
    ]
    return list(zip(_pieces(encoder.tokenizer, text), strengths, strict=True))


def _pieces(tokenizer: PreTrainedTokenizerBase, text: str) -> list[str]:
    if not tokenizer.is_fast:
        return [tokenizer.decode([token]) for token in tokenizer(text, verbose=False)["input_ids"]]
    pieces, place = [], 0
    for _, end in tokenizer(text, verbose=False, return_offsets_mapping=True)["offset_mapping"]:
        # Tokens that share a letter of several bytes all end after it: the first of them gets it.
        pieces.append(text[place:end])
        place = max(place, end)
    return pieces


def strongest(tokens: list[tuple[str, float | None]], count: int = 8) -> list[tuple[str, float]]:
    """The pieces that are written most strongly, each once."""
    best: dict[str, float] = {}
    for piece, strength in tokens:
        if strength is not None and piece.strip():
            best[piece.strip()] = max(strength, best.get(piece.strip(), 0.0))
    return sorted(best.items(), key=lambda item: -item[1])[:count]
