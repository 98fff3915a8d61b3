"""What a memory hypernetwork made of documents: to keep, to add up, to take apart again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from aag_hf.errors import InputError
from aag_hf.locks import temporary_file

FILE = "memory.safetensors"


@dataclass(frozen=True)
class DocumentMemory:
    """Memories of documents, a row for each, made by ``model.memorize``.

    Memories of one model add up: all documents share the A of every layer, so that the sum of their memories is the
    memory of all of them, and a document that is subtracted again leaves no trace beyond rounding. Nothing checks that
    it was ever added.

    Args:
        tensor: ``(batch, memories, r, d)``.
        ids: A name for each row.
        made_by: Fingerprint of the hypernetwork that wrote them; only its model can read them.
        base_model: Name of the model under it, where it has one.
        texts: What each row was made of, where it is kept; [`~aag_hf.awakening.memories_for`] chooses by it.

    Raises:
        InputError: Another number of ids or texts than rows.

    Example:

    ```python
    memory = model.memorize(encoder.encode(["The capital of Nuvaria is Brel.", "Ostmark pays with the ost."]))
    both = memory.sum()
    only_the_second = both - memory[[0]]
    model.generate(input_ids=ids, memory=only_the_second)
    ```
    """

    tensor: torch.Tensor
    ids: tuple[str, ...]
    made_by: str
    base_model: str | None = None
    texts: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.tensor.dim() != 4:
            raise InputError(f"a memory has shape (batch, memories, r, d), got {tuple(self.tensor.shape)}.")
        if not all(isinstance(text, str) for text in (*self.ids, *(self.texts or ()))):
            raise InputError("the ids and texts of a memory are strings: give strings.")
        if len(self.ids) != len(self.tensor):
            raise InputError(f"{len(self.ids)} ids for {len(self.tensor)} memories: give one for each.")
        if self.texts is not None and len(self.texts) != len(self.tensor):
            raise InputError(f"{len(self.texts)} texts for {len(self.tensor)} memories: give one for each.")

    def __len__(self) -> int:
        return len(self.tensor)

    def __getitem__(self, rows: int | slice | Sequence[int] | torch.Tensor) -> DocumentMemory:
        """The memories of some rows, also several times the same; of one number, a memory of one row."""
        indices = torch.arange(len(self))[[rows] if isinstance(rows, int) else rows]
        chosen = indices.tolist()
        return replace(
            self,
            tensor=self.tensor[indices.to(self.tensor.device)],
            ids=tuple(self.ids[i] for i in chosen),
            texts=None if self.texts is None else tuple(self.texts[i] for i in chosen),
        )

    def __add__(self, other: DocumentMemory | int) -> DocumentMemory:
        """Row by row, what both say in one memory.

        Raises:
            InputError: `other` is of another model, or has another number of rows.
        """
        # `sum` begins with the number 0.
        if type(other) is int and other == 0:
            return self
        return self._with(other, 1) if isinstance(other, DocumentMemory) else NotImplemented

    __radd__ = __add__

    def __sub__(self, other: DocumentMemory) -> DocumentMemory:
        """Row by row, what was added taken out again. What was never added is left as its opposite.

        Raises:
            InputError: As for a sum.
        """
        return self._with(other, -1) if isinstance(other, DocumentMemory) else NotImplemented

    def __mul__(self, weight: float) -> DocumentMemory:
        if not isinstance(weight, int | float):
            return NotImplemented
        return replace(self, tensor=self.tensor * weight, ids=tuple(f"{weight:g} {name}" for name in self.ids))

    __rmul__ = __mul__

    def sum(self, weights: Sequence[float] | None = None) -> DocumentMemory:
        """All rows as one memory, each times its weight.

        Raises:
            InputError: Another number of weights than rows.
        """
        if weights is not None and len(weights) != len(self):
            raise InputError(f"{len(weights)} weights for {len(self)} memories: give one for each.")
        of_rows = torch.ones(len(self)) if weights is None else torch.tensor(weights, dtype=torch.float32)
        total = torch.einsum("b,bmrd->mrd", of_rows.to(self.tensor), self.tensor)
        texts = None if self.texts is None else ("\n\n".join(self.texts),)
        return replace(self, tensor=total.unsqueeze(0), ids=(" + ".join(self.ids),), texts=texts)

    @staticmethod
    def cat(memories: Sequence[DocumentMemory]) -> DocumentMemory:
        """The rows of several memories, one after another.

        Raises:
            InputError: None, or memories of different models.
        """
        if not memories:
            raise InputError("no memories to put together.")
        first = memories[0]
        for other in memories[1:]:
            first._check_same_kind(other)
        tensors = [memory.tensor.to(first.tensor.device) for memory in memories]
        ids = tuple(name for memory in memories for name in memory.ids)
        known = all(memory.texts is not None for memory in memories)
        texts = tuple(text for memory in memories for text in memory.texts or ()) if known else None
        return replace(first, tensor=torch.cat(tensors), ids=ids, texts=texts)

    def to(self, device: torch.device | str) -> DocumentMemory:
        """The same on another device."""
        return replace(self, tensor=self.tensor.to(device))

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Save as ``memory.safetensors`` in a folder, or in a file whose name ends in ``.safetensors``."""
        path = Path(save_directory)
        path = path if path.suffix == ".safetensors" else path / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        made = {"made_by": self.made_by, "ids": self.ids, "base_model": self.base_model, "texts": self.texts}
        tensor = self.tensor.detach().cpu().contiguous()
        with temporary_file(path) as temporary:
            save_file({"memory": tensor}, temporary, metadata={"memory": json.dumps(made)})
            temporary.replace(path)

    @classmethod
    def from_pretrained(cls, path: str | Path) -> DocumentMemory:
        """Load what `save_pretrained` saved.

        Args:
            path: The folder, or the file itself.

        Raises:
            InputError: There is none, or it is damaged or holds something else.
        """
        path = Path(path)
        path = path / FILE if path.is_dir() else path
        if not path.is_file():
            raise InputError(f"{path}: no such file: expected memories that `aag memorize` or save_pretrained wrote.")
        try:
            with safe_open(path, framework="pt") as file:
                made = json.loads(file.metadata()["memory"])
                tensor = file.get_tensor("memory")
            if not isinstance(made["ids"], list) or not isinstance(made["texts"], list | None):
                raise TypeError("its ids and texts are no lists")
            texts = None if made["texts"] is None else tuple(made["texts"])
            memory = cls(tensor, tuple(made["ids"]), str(made["made_by"]), made["base_model"], texts)
        except (SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path}: no document memories, or damaged ones ({error}): memorize again.") from None
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            raise InputError(f"{path}: its memories have NaN or infinity: memorize the documents again.")
        return memory

    def _with(self, other: DocumentMemory, sign: int) -> DocumentMemory:
        self._check_same_kind(other)
        if len(self) != len(other):
            raise InputError(
                f"{len(self)} and {len(other)} memories: rows add up one by one; `memory.sum()` makes one row of all."
            )
        mark = "+" if sign > 0 else "-"
        names = tuple(f"{one} {mark} {two}" for one, two in zip(self.ids, other.ids))
        texts = None
        if sign > 0 and self.texts is not None and other.texts is not None:
            texts = tuple(f"{one}\n\n{two}" for one, two in zip(self.texts, other.texts))
        return replace(self, tensor=self.tensor + sign * other.tensor.to(self.tensor.device), ids=names, texts=texts)

    def _check_same_kind(self, other: DocumentMemory) -> None:
        if self.made_by != other.made_by or self.tensor.shape[1:] != other.tensor.shape[1:]:
            raise InputError("these memories were made by different models: memorize both with the same one.")
