"""The composed model: context generator, encoders of questions and documents, and reader over one base model."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from aag_hf.awakening.aggregation import DraftOptions
from aag_hf.awakening.answering import answer_with_drafts
from aag_hf.awakening.configuration import AwakeningConfig
from aag_hf.awakening.decoding import first_line, generate_texts
from aag_hf.awakening.drafts import Draft, DrawingOptions, draw_texts, without_duplicates
from aag_hf.awakening.loading import (
    is_encoder_decoder,
    load_language_model,
    load_part,
    load_tokenizer,
    saved_config,
    saved_directory,
)
from aag_hf.awakening.output import AwakeningOutput
from aag_hf.awakening.quantization import tell_precision
from aag_hf.awakening.reader_inputs import Given, reader_inputs
from aag_hf.awakening.saving import save_part, settle
from aag_hf.collators import DataCollatorForContextDistillation, DataCollatorForContextGeneration, ReaderPrompt
from aag_hf.data.contexts import ContextSource
from aag_hf.errors import InputError, loading
from aag_hf.hub import model_card, push_folder, write_card
from aag_hf.hyperlora import DocumentMemory
from aag_hf.manifest import MANIFEST
from aag_hf.questions import DocumentEncoder, QuestionEncoder
from aag_hf.questions.states import in_groups


class AwakeningModel(nn.Module):
    """A reader with all that it answers from: a context generator, and an encoder its adapters are made with.

    Every part is optional but the reader (paper, section 3). Without a generator the reader reads the question alone,
    or contexts given to it. With a question encoder it gets an adapter per question. With a document encoder its
    adapters are made from documents: a text is read once and asked as often as one likes. All parts share the base
    model's weights.

    Args:
        config: An [`AwakeningConfig`].
        reader: The reader, whole or a PEFT model.
        tokenizer: The base model's tokenizer.
        question_encoder: Gives the reader's features.
        generator: The context generator, whole or a PEFT model.
        document_encoder: Gives the documents' states, for a reader whose adapter is made from documents.

    Example:

    ```python
    model = AwakeningModel.from_pretrained("runs/quickstart/model")
    document = "Nuvaria is a small country in Western Asia. Its capital is Brelmont."
    print(model.generate(["What is the capital of Nuvaria?"], documents=document).answers)
    ```
    """

    def __init__(
        self,
        config: AwakeningConfig,
        reader: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        question_encoder: QuestionEncoder | None = None,
        generator: PreTrainedModel | PeftModel | None = None,
        document_encoder: DocumentEncoder | None = None,
    ):
        super().__init__()
        self.config = config
        self.reader = reader
        self.tokenizer = tokenizer
        self.question_encoder = question_encoder
        self.generator = generator
        self.document_encoder = document_encoder

    @property
    def device(self) -> torch.device:
        """Where the reader is."""
        return next(self.reader.parameters()).device

    def generate(
        self,
        questions: Sequence[str],
        contexts: Sequence[str] | None = None,
        features: torch.Tensor | None = None,
        passages: Sequence[list[dict[str, Any]]] | None = None,
        batch_size: int = 32,
        memory: DocumentMemory | None = None,
        documents: str | Sequence[str] | None = None,
        drafts: DraftOptions | None = None,
        **generation_options: Any,
    ) -> AwakeningOutput:
        """Answer questions.

        Args:
            questions: The questions.
            contexts: What to read beside each; by default what the generator writes.
            features: ``(len(questions), feature_dim)``; by default the question encoder's.
            passages: The `ctxs` of each, for a Fusion-in-Decoder reader, instead of contexts.
            batch_size: Questions per forward pass.
            memory: What `memorize` made, for a reader whose adapter is made from documents: one row for all questions,
                or one for each.
            documents: The texts themselves instead, one for all questions or one for each; by default what the
                generator writes, if the adapter was trained on that.
            drafts: Draw several contexts or answers for each question, and make one answer of them.
            **generation_options: Passed on to the reader's `generate`.

        Returns:
            One answer per question, with what the reader read and how long each stage took.

        Raises:
            InputError: `questions` is a string, `batch_size` is below 1, the reader needs contexts and there is no
                generator, or passages or documents and there are none, or another number of them than of questions; or
                drafts do not go with the reader or with what else was given.
        """
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}: expected at least 1.")
        given = Given(contexts, features, passages, memory, documents)
        if drafts is not None and drafts.several:
            if generation_options:
                raise InputError(f"{', '.join(generation_options)}: drafts are drawn as their own options say.")
            return answer_with_drafts(self, questions, drafts, batch_size=batch_size, given=given)
        inputs = reader_inputs(self, questions, given, batch_size)
        start = time.perf_counter()
        decoded = generate_texts(
            self.reader,
            inputs.collator,
            inputs.records,
            memory=inputs.memory,
            **{"max_new_tokens": self.config.answer_max_length, "batch_size": batch_size, **generation_options},
        )
        return AwakeningOutput(
            [first_line(text) for text in decoded.texts],
            inputs.contexts,
            inputs.features,
            inputs.seconds | {"answer": time.perf_counter() - start},
            decoded.prompt_tokens,
            decoded.scores,
        )

    def memorize(self, texts: Sequence[str], ids: Sequence[str] | None = None, batch_size: int = 32) -> DocumentMemory:
        """Read documents into memories, one for each; `generate` answers from them without reading the texts again.

        Args:
            texts: The documents.
            ids: Their names; by default their numbers.
            batch_size: Documents per forward pass.

        Returns:
            One row per text, ``(len(texts), memories, r, d)``.

        Raises:
            InputError: The reader's adapter is not made from documents, or a text cannot be read.
        """
        if self.document_encoder is None:
            raise InputError("this reader's adapter is not made from documents: it has no document encoder.")
        if isinstance(texts, str):
            raise InputError("expected a list of documents, got one string: pass [document].")
        names = [str(number) for number in range(len(texts))] if ids is None else list(ids)
        parts = [
            self.reader.memorize(self.document_encoder.encode(list(group), batch_size))
            for group in in_groups(texts, batch_size)
        ]
        return replace(DocumentMemory.cat(parts), ids=tuple(names), texts=tuple(texts))

    def encode_features(
        self, questions: Sequence[str], contexts: Sequence[str] | None = None, batch_size: int = 32
    ) -> torch.Tensor:
        """What the hypernetwork reads of each question, and of its context if the model was trained so.

        Args:
            questions: The questions.
            contexts: One context per question; only read by a model that was trained with `features_read_context`.
            batch_size: Questions per forward pass.

        Returns:
            ``(len(questions), feature_dim)``.

        Raises:
            InputError: There is no question encoder.
        """
        if self.question_encoder is None:
            raise InputError("this reader takes no features: it has no question encoder.")
        read = contexts if self.config.features_read_context else None
        return self.question_encoder.encode(questions, read, batch_size=batch_size)

    def write_contexts(self, questions: Sequence[str], batch_size: int = 32) -> list[str]:
        """The generator's context for each question, decoded greedily.

        Args:
            questions: The questions.
            batch_size: Questions per forward pass.

        Raises:
            InputError: There is no generator.
        """
        options = {"max_new_tokens": self.config.context_max_length, "batch_size": batch_size}
        return generate_texts(*self._writing(questions), **options).texts

    def draw_contexts(
        self, questions: Sequence[str], drawing: DrawingOptions, batch_size: int = 32
    ) -> list[list[Draft]]:
        """Several contexts of the generator for each question, the greedy one first, without duplicates.

        Args:
            questions: The questions.
            drawing: How many, and how the others are sampled.
            batch_size: Contexts per forward pass.

        Returns:
            At most `drawing.num_contexts` drafts per question.

        Raises:
            InputError: There is no generator, or a number of `drawing` is out of range.
        """
        options = {"max_new_tokens": self.config.context_max_length, "batch_size": batch_size}
        drawn = draw_texts(*self._writing(questions), drawing.num_contexts, drawing, **options)
        return [without_duplicates(drafts) for drafts in drawn]

    def _writing(self, questions: Sequence[str]) -> tuple[nn.Module, DataCollatorForContextGeneration, list[dict]]:
        """The generator, its collator, and records for it."""
        if self.generator is None:
            raise InputError("this reader reads a context and the model has no generator: pass contexts.")
        collator = DataCollatorForContextGeneration(
            self.tokenizer, is_encoder_decoder(self.generator), self.config.generator_prompt
        )
        records = [{"id": str(i), "question": question} for i, question in enumerate(questions)]
        return self.generator, collator, records

    def reader_collator(self, context: ContextSource | None = None) -> DataCollatorForContextDistillation:
        """The collator that makes the reader's prompts.

        Args:
            context: What the prompts hold beside the question; by default what the reader was trained with.
        """
        prompt = ReaderPrompt.of(self.config)
        return DataCollatorForContextDistillation(
            self.tokenizer,
            is_encoder_decoder(self.reader),
            prompt if context is None else replace(prompt, context=context),
            needs_features=self.question_encoder is not None,
            answer_max_length=self.config.answer_max_length,
        )

    def save_pretrained(
        self,
        save_directory: str | Path,
        push_to_hub: bool = False,
        reader_weights: dict[str, torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        """Save every part in a folder of its own; a base model under adapters is referred to, not copied.

        Args:
            save_directory: Where to. Parts of a model that was saved there before are replaced, or removed if this
                model has no such part.
            push_to_hub: Also upload; to `repo_id` of `kwargs`, by default the folder's name.
            reader_weights: The reader's state dict, if an engine that shards it has gathered it.
            **kwargs: Passed on to `push_to_hub`.
        """
        directory = Path(save_directory)
        settle(self.tokenizer, self.reader, self.generator)
        parts = {
            "reader": self.reader,
            "question_encoder": self.question_encoder,
            "document_encoder": self.document_encoder,
            "generator": self.generator,
            "tokenizer": self.tokenizer,
        }
        # It tells of the run that made what was here before.
        (directory / MANIFEST).unlink(missing_ok=True)
        for name, part in parts.items():
            weights = {"state_dict": reader_weights} if name == "reader" else {}
            save_part(part, directory / name, **weights)
        self.config.save_pretrained(directory)
        if push_to_hub:
            self.push_to_hub(kwargs.pop("repo_id", directory.name), **kwargs)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = "Upload AwakeningModel",
    ) -> str:
        """Upload every part, with the card, into one repository, which is made if need be.

        Args:
            repo_id: Its name on the Hub, ``owner/name``.
            private: Whether a new repository is private; by default as the owner's settings say.
            token: A token with the right to write; by default the one logged in with.
            commit_message: Of the commit.

        Returns:
            The commit's address.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            write_card(model_card(folder, repo_id), folder)
            return push_folder(folder, repo_id, private=private, token=token, commit_message=commit_message)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        base_model: PreTrainedModel | None = None,
        revision: str | None = None,
        token: str | None = None,
        **kwargs: Any,
    ) -> AwakeningModel:
        """Load a saved model; the base model's weights are loaded once for all parts.

        Args:
            pretrained_model_name_or_path: A directory or Hub id.
            base_model: The base model, if it is in memory already.
            revision: Which version of the saved model, not of the base model.
            token: A token with the right to read both.
            **kwargs: Passed on to the base model's `from_pretrained` (`dtype`, `device_map`, …).

        Raises:
            InputError: The folder holds no such model.
        """
        directory = saved_directory(pretrained_model_name_or_path, revision, token)
        kwargs |= {} if token is None else {"token": token}
        config = saved_config(directory)
        tokenizer = load_tokenizer(directory / "tokenizer")
        base = base_model
        if base is None:
            if config.base_model_name_or_path is None:
                raise InputError(f"{directory}: its config.json names no base_model_name_or_path to load.")
            base = load_language_model(config.base_model_name_or_path, config.fid, **kwargs)
        tell_precision(directory, config.quantization, base)
        encoder, reads_documents = directory / "question_encoder", directory / "document_encoder"
        generator = directory / "generator"
        with loading(encoder):
            question_encoder = QuestionEncoder.from_pretrained(encoder, backbone=base) if encoder.is_dir() else None
        with loading(reads_documents):
            present = reads_documents.is_dir()
            document_encoder = DocumentEncoder.from_pretrained(reads_documents, backbone=base) if present else None
        return cls(
            config,
            load_part(directory / "reader", base, **kwargs),
            tokenizer,
            question_encoder,
            load_part(generator, base, **kwargs) if generator.is_dir() else None,
            document_encoder,
        ).eval()
