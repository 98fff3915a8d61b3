"""What the trainers of both stages share."""

import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import Seq2SeqTrainer
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import BestRun, EvalLoopOutput, TrainOutput

from aag_hf.collators.prompts import Cuts
from aag_hf.errors import InputError
from aag_hf.trainers.answer_logits import QUESTION_MASK, AnswerOutputs, innermost, is_encoder_decoder
from aag_hf.trainers.batch_rows import DOCUMENTS, TEACHER, first_rows, number_of_rows
from aag_hf.trainers.checkpointing import check_checkpointing
from aag_hf.trainers.divergence import RECORD_IDS, GradientCheck, WithRecordIds, check_terms

AnswerMetrics = Callable[[Sequence[dict[str, Any]]], dict[str, float]]


class Terms(NamedTuple):
    """The loss of a batch, term by term.

    Attributes:
        answers: The trained model's output at the answer tokens.
        values: The mean of each term over the batch's answer tokens, by name.
        weights: The weight of each term in the loss.
    """

    answers: AnswerOutputs
    values: dict[str, Tensor]
    weights: dict[str, float]

    @property
    def loss(self) -> Tensor:
        """The weighted sum."""
        return torch.stack([self.weights[name] * value for name, value in self.values.items()]).sum()


class AnswerTrainer(Seq2SeqTrainer):
    """A Trainer whose loss is a mean over answer tokens.

    In training it is the mean over all answer tokens of an optimizer step, however these are spread over accumulated
    batches and processes. In evaluation it is the mean over the whole data set, and each example counts once. Each term
    of the loss is logged by its name. There are logits of answer tokens only, so metrics can only be computed from
    generated answers. With ``train_sampling_strategy="group_by_length"`` the rows of a batch have about equal length.
    Subclasses define `compute_terms`.

    Training stops with a [`~aag_hf.errors.DivergenceError`] if a loss or a gradient is not finite. At the end a message
    says how many texts the collator cut.

    Args:
        answer_metrics: Takes the records of an evaluation and returns metrics of generated answers, such as
            [`~aag_hf.evaluation.ReaderMetrics`] of a causal reader. All processes call it.
        **kwargs: As in [`~transformers.Seq2SeqTrainer`].

    Raises:
        InputError: One of these is asked for: metrics without generation; generation in evaluation with a causal model,
            whose rows already hold the answers; `answer_metrics` of a model in shards; packed rows for several GPUs in
            one process; `dispatch_batches`; label smoothing or a loss function, which the loss would ignore; a
            tokenizer with more tokens than the model has embeddings; or checkpointing that gives wrong gradients (see
            [`~.checkpointing.check_checkpointing`]).
    """

    data_collator: Any

    def __init__(self, *args: Any, answer_metrics: AnswerMetrics | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.answer_metrics = answer_metrics
        # The Trainer counts the answer tokens of a step only for models that use the number themselves.
        self.model_accepts_loss_kwargs = True
        self._training_sums: dict[str, list[Tensor]] = defaultdict(list)
        self._evaluation_sums: dict[str, list[Tensor]] = defaultdict(list)
        self._lengths: list[tuple[Dataset, list[int]]] = []
        self._gradient_check = GradientCheck()
        self.add_callback(self._gradient_check)
        self._check_tokenizer()
        check_checkpointing(self.model, self.args, self.accelerator)
        self._let_each_process_collate()
        if getattr(self.data_collator, "padding_free", False) and self.args.n_gpu > 1:
            raise InputError("padding_free rows cannot be divided among GPUs: start a process for each with torchrun.")
        if getattr(self.data_collator, DOCUMENTS, None) is not None:
            if self.args.n_gpu > 1:
                raise InputError("documents cannot be divided among GPUs: start a process for each with torchrun.")
            if self.args.dataloader_num_workers > 0:
                raise InputError(
                    "the collator encodes documents with the model: leave dataloader_num_workers at 0, so that it does "
                    "so in the process that has it."
                )
        if answer_metrics is not None and self.is_sharded:
            raise InputError(
                "answer_metrics generates on each process alone, which holds only a shard of the model with ZeRO-3 and "
                "FSDP: leave it out and run `aag evaluate` on what was saved."
            )
        if self.args.label_smoothing_factor or self.compute_loss_func is not None:
            raise InputError(
                "the loss is the sum of this trainer's own terms, which are not smoothed: leave label_smoothing_factor "
                "and compute_loss_func out."
            )
        if self.args.predict_with_generate and not is_encoder_decoder(self.model):
            raise InputError(
                "predict_with_generate would let a causal model read the answers, which stand in its rows: leave it "
                "off and give the trainer answer_metrics, an `aag_hf.evaluation.ReaderMetrics`."
            )
        if self.compute_metrics is not None and not self.args.predict_with_generate:
            raise InputError(
                "compute_metrics needs generated answers: set predict_with_generate=True for an encoder-decoder model, "
                "or give the trainer answer_metrics, an `aag_hf.evaluation.ReaderMetrics`."
            )

    def _let_each_process_collate(self) -> None:
        """Keep Accelerate from letting the first process collate a stream for all, and cut the batch.

        Neither packed rows nor the columns of a teacher cache can be cut by examples.
        """
        loading = self.accelerator.dataloader_config
        if loading.dispatch_batches:
            raise InputError(
                "dispatch_batches cuts a batch by its examples, and not all of its tensors have a row for each: leave "
                "it out of accelerator_config."
            )
        loading.dispatch_batches = False

    @property
    def is_sharded(self) -> bool:
        """Whether no process holds the whole model: with FSDP and ZeRO-3."""
        return self.is_fsdp_enabled or is_deepspeed_zero3_enabled()

    def compute_terms(self, model: nn.Module, inputs: dict[str, Any]) -> Terms:
        """The terms of a batch's loss. `model` is the trained model, as the Trainer wrapped it."""
        raise NotImplementedError

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The batch's mean or, if the step's number of answer tokens is given, its share of the step's mean."""
        record_ids = inputs.pop(RECORD_IDS, None)
        terms = self.compute_terms(model, inputs)
        loss = terms.loss
        if model.training:
            check_terms(terms.values, loss, self.state.global_step + 1, record_ids)
            self._gradient_check.record_ids.extend(record_ids or ())
        share = self._share_of_step(terms.answers.labels, num_items_in_batch, loss.dtype)
        if model.training:
            _collect(self._training_sums, terms.values, share)
        loss = share * loss
        return (loss, {"logits": terms.answers.logits}) if return_outputs else loss

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        # Losses that an earlier run, such as a trial of a search, had not logged yet.
        self._training_sums.clear()
        output = super().train(*args, **kwargs)
        cut: Any = getattr(self.data_collator, "cut", Cuts())
        if cut.told():
            warnings.warn(f"To fit their limits in training, {cut.told()}.", stacklevel=2)
        return output

    def _run_epoch(self, **kwargs: Any) -> None:
        # Resumed from a checkpoint of its last step, the Trainer would train one more.
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(**kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        trained: Any = self.model if model is None else model
        active = list(getattr(trained, "active_adapters", ()) if hasattr(trained, "peft_config") else ())
        if len(active) < 2:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        # The Trainer loads one of several adapters that add up.
        for name in active:
            folder = Path(resume_from_checkpoint) / name
            folder = folder if folder.is_dir() else folder.parent
            trained.load_adapter(str(folder), name, is_trainable=True)
        trained.base_model.set_adapter(active)

    def hyperparameter_search(
        self,
        hp_space: Callable[[Any], dict[str, float]] | None = None,
        compute_objective: Callable[[dict[str, float]], float] | None = None,
        **kwargs: Any,
    ) -> BestRun | list[BestRun]:
        """As [`~transformers.Trainer.hyperparameter_search`]. The default objective is the loss, without its terms.

        Args:
            hp_space: The values of a trial, by argument.
            compute_objective: Gives the objective from the metrics of an evaluation. By default the objective is the
                loss.
            **kwargs: As there.
        """
        return super().hyperparameter_search(hp_space, compute_objective or itemgetter("eval_loss"), **kwargs)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:
            logs = {**logs, **self._means(self._training_sums)}
        super().log(logs, *args, **kwargs)

    def evaluation_loop(
        self, dataloader: DataLoader, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any
    ) -> EvalLoopOutput:
        output = super().evaluation_loop(dataloader, *args, metric_key_prefix=metric_key_prefix, **kwargs)
        # The Trainer's own loss weights all batches equally, and counts examples repeated to fill the last one.
        means = self._means(self._evaluation_sums)
        if self.answer_metrics is not None:
            means |= self.answer_metrics(dataloader.dataset)
        output.metrics.update({f"{metric_key_prefix}_{name}": mean for name, mean in means.items()})
        return output

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, *args: Any, **kwargs: Any
    ) -> Any:
        inputs = self._prepare_inputs(inputs)
        rows = self._rows_to_count(number_of_rows(inputs))
        with torch.no_grad(), self.compute_loss_context_manager():
            # A process without rows of its own still has to help gather sharded weights.
            terms = self.compute_terms(model, first_rows(inputs, max(rows, 1)))
        tokens = torch.tensor(len(terms.answers.labels) if rows else 0, device=terms.loss.device)
        _collect(self._evaluation_sums, {"loss": terms.loss, **terms.values}, tokens)
        if prediction_loss_only or not self.args.predict_with_generate:
            return terms.loss, None, None
        prompts = {n: v for n, v in inputs.items() if n not in ("labels", QUESTION_MASK) and not n.startswith(TEACHER)}
        _, tokens, _ = super().prediction_step(model, prompts, False, *args, **kwargs)
        return terms.loss, tokens, inputs["labels"]

    def get_train_dataloader(self) -> DataLoader:
        collator = self.data_collator
        self.data_collator = WithRecordIds(collator)
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = collator

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if not self._groups_records(dataset):
            return super()._get_train_sampler(train_dataset)
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LengthGroupedSampler(size, lengths=self._row_lengths(dataset))

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler | None:
        if not self._groups_records(eval_dataset):
            return super()._get_eval_sampler(eval_dataset)
        generator = torch.Generator().manual_seed(self.args.seed)
        return LengthGroupedSampler(
            self.args.eval_batch_size, lengths=self._row_lengths(eval_dataset), generator=generator
        )

    def _groups_records(self, dataset: Dataset) -> bool:
        """Whether batches are grouped by lengths that only the collator knows, since records are not tokenized yet."""
        grouped = self.args.train_sampling_strategy == "group_by_length" and hasattr(dataset, "__len__")
        return grouped and self.args.length_column_name not in dataset[0] and "input_ids" not in dataset[0]

    def _row_lengths(self, dataset: Dataset) -> list[int]:
        """The length of each record's row. Each data set is tokenized once to find out."""
        known = next((lengths for one, lengths in self._lengths if one is dataset), [])
        if len(known) != len(dataset):
            rows = (self.data_collator([record]) for record in dataset)
            # Rows that enter above the embeddings have no ids, but as many labels as tokens.
            known = [row.get("input_ids", row["labels"]).numel() for row in rows]
            self._lengths.append((dataset, known))
        return known

    def _share_of_step(self, labels: Tensor, num_items_in_batch: Tensor | int | None, dtype: torch.dtype) -> Tensor:
        """Turns a batch's mean into its share of the step's mean. Gradients are averaged over processes later."""
        if num_items_in_batch is None:
            return torch.tensor(1.0, device=labels.device, dtype=dtype)
        processes = self.accelerator.num_processes if self.args.average_tokens_across_devices else 1
        # DataParallel gets the number once per device.
        tokens = torch.as_tensor(num_items_in_batch, device=labels.device, dtype=dtype).max()
        return processes * len(labels) / tokens.clamp(min=1)

    def _rows_to_count(self, rows: int) -> int:
        """How many rows of a batch are not repetitions, which make the last batches of all processes equally large."""
        state = self.accelerator.gradient_state
        if not state.end_of_dataloader or state.remainder <= 0:
            return rows
        return min(max(state.remainder - rows * self.accelerator.process_index, 0), rows)

    def _means(self, sums: dict[str, list[Tensor]]) -> dict[str, float]:
        """The mean of each term over everything collected on all processes. Empties `sums`."""
        means = {}
        for name, collected in sums.items():
            weight, total = self.accelerator.reduce(torch.stack(collected).sum(0), "sum").tolist()
            means[name] = total / weight if weight else 0.0
        sums.clear()
        return means

    def _check_tokenizer(self) -> None:
        tokenizer = getattr(self.data_collator, "tokenizer", None)
        embeddings = innermost(self.model).get_input_embeddings().num_embeddings
        if tokenizer is not None and len(tokenizer) > embeddings:
            raise InputError(
                f"the collator's tokenizer {tokenizer.name_or_path!r} has {len(tokenizer)} tokens and the model has "
                f"embeddings for {embeddings}: load the tokenizer of the model, or resize the embeddings."
            )


def _collect(sums: dict[str, list[Tensor]], values: dict[str, Tensor], weight: Tensor) -> None:
    """Append ``(weight, weight · value)`` of each term."""
    for name, value in values.items():
        value = value.detach().float()
        weight = weight.to(value)
        sums[name].append(torch.stack([weight, weight * value]))
