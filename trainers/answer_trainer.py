"""What the trainers of both stages share."""

from typing import Any

from torch import nn
from transformers import Seq2SeqTrainer

from aag_hf.data.errors import InputError
from aag_hf.trainers.answer_logits import QUESTION_MASK, innermost, is_encoder_decoder

TEACHER = "teacher_"


class AnswerTrainer(Seq2SeqTrainer):
    """A Trainer whose loss is a mean over the answer tokens of the local batch.

    Several such means are averaged with equal weight: over the batches of one accumulated step, over the processes.
    Logits are those of the answer tokens alone, so metrics can only be computed from generated answers.

    Raises:
        InputError: Metrics without generation; generation in evaluation with a causal model, whose rows already hold
            the answers; or a collator's tokenizer with more tokens than the model has embeddings.
    """

    loss_is_scaled_for_ga = False

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._check_tokenizer()
        if self.args.predict_with_generate and not is_encoder_decoder(self.model):
            raise InputError(
                "predict_with_generate would let a causal model read the answers, which stand in its rows: leave it "
                "off and use `aag_hf.evaluation.evaluate_reader`."
            )
        if self.compute_metrics is not None and not self.args.predict_with_generate:
            raise InputError(
                "compute_metrics needs generated answers: set predict_with_generate=True for an encoder-decoder model, "
                "or use `aag_hf.evaluation.evaluate_reader`."
            )

    def _check_tokenizer(self) -> None:
        tokenizer = getattr(self.data_collator, "tokenizer", None)
        embeddings = innermost(self.model).get_input_embeddings().num_embeddings
        if tokenizer is not None and len(tokenizer) > embeddings:
            raise InputError(
                f"the collator's tokenizer {tokenizer.name_or_path!r} has {len(tokenizer)} tokens and the model has "
                f"embeddings for {embeddings}: load the tokenizer of the model, or resize the embeddings."
            )

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, *args: Any, **kwargs: Any
    ) -> Any:
        inputs = self._prepare_inputs(inputs)
        loss, _, _ = super().prediction_step(model, inputs, True)
        if prediction_loss_only or not self.args.predict_with_generate:
            return loss, None, None
        prompts = {n: v for n, v in inputs.items() if n not in ("labels", QUESTION_MASK) and not n.startswith(TEACHER)}
        _, tokens, _ = super().prediction_step(model, prompts, False, *args, **kwargs)
        return loss, tokens, inputs["labels"]
