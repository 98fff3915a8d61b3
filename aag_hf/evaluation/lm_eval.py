"""Saved readers in lm-evaluation-harness, as its model ``aag``; needs the extra ``lm-eval``.

``python -m aag_hf.evaluation.lm_eval`` is the harness's own command line, which knows the model:

    python -m aag_hf.evaluation.lm_eval run --model aag --model_args pretrained=runs/aag,dtype=float32 --tasks nq_open
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from lm_eval.__main__ import cli_evaluate
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM

from aag_hf.awakening import AwakeningModel
from aag_hf.errors import InputError

# The last line that begins so is the question, since a few-shot prompt holds answered questions before it.
QUESTION = r"^\s*(?:Question|Q):\s*(.*\S)"


@register_model("aag")
class AagLM(HFLM):
    """A saved [`~aag_hf.AwakeningModel`] that the harness asks: its reader, with the adapter of each prompt's question.

    The tasks word the prompts. The reader's own prompt and its generator play no part.

    Args:
        pretrained: The folder or Hub id of the model.
        question_pattern: A regular expression whose group is the question. It is matched line by line, and the last
            match counts.
        device: Where to run it; by default an accelerator if there is one.
        dtype: The base model's dtype.
        revision: Revision of the saved model.
        batch_size: Prompts per forward pass.
        quantization_config: As in `from_pretrained` of the base model.
        **kwargs: As `HFLM` takes them.

    Raises:
        InputError: The reader reads each passage apart, its features read a context, its adapter is made from
            documents, or the batch size is ``"auto"``; later, a prompt has no question.
    """

    def __init__(
        self,
        pretrained: str,
        question_pattern: str = QUESTION,
        device: str | None = None,
        dtype: str | torch.dtype = "auto",
        revision: str | None = None,
        batch_size: int | str = 1,
        quantization_config: Any = None,
        **kwargs: Any,
    ):
        if not str(batch_size).isdigit():
            raise InputError(
                f"batch_size is {batch_size!r}: expected a number: prompts are tried with their questions."
            )
        loading = {} if quantization_config is None else {"quantization_config": quantization_config}
        composed = AwakeningModel.from_pretrained(pretrained, revision=revision, dtype=dtype, **loading)
        if composed.config.fid or composed.config.features_read_context or composed.document_encoder is not None:
            raise InputError(f"{pretrained}: reads what the harness's prompts do not tell apart: use `aag evaluate`.")
        place = "cpu" if not torch.accelerator.is_available() else str(torch.accelerator.current_accelerator())
        composed.to(device or place)
        super().__init__(pretrained=composed.reader, tokenizer=composed.tokenizer, batch_size=int(batch_size), **kwargs)
        self.composed = composed
        self.question_pattern = re.compile(question_pattern, re.MULTILINE)
        self._questions: dict[tuple[int, ...], str] = {}
        self._prompts: list[str] = []

    def question_of(self, prompt: str) -> str:
        """The question that a prompt ends with.

        Raises:
            InputError: There is none.
        """
        found = self.question_pattern.findall(prompt)
        if not found:
            raise InputError(
                f"no question found in the prompt {prompt[-80:]!r}: pass question_pattern, a regular expression whose "
                "group is the question."
            )
        return found[-1]

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str] | None, list[int], list[int]]], *args: Any, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        if self.composed.question_encoder is not None:
            # The harness sorts the requests and passes on rows of tokens. From these the question of a row is found
            # again.
            self._questions = {}
            for texts, context, continuation in requests:
                if texts is None:
                    raise InputError("this reader makes its adapter from a question, which a running text has not.")
                self._questions[self._read(context, continuation)] = self.question_of(texts[0])
        return super()._loglikelihood_tokens(requests, *args, **kwargs)

    def _read(self, context: Sequence[int], continuation: Sequence[int]) -> tuple[int, ...]:
        """The tokens of a request that the model reads, as the harness cuts them."""
        if self.backend == "seq2seq":
            return tuple(context[-self.max_length :])
        return tuple([*context, *continuation][-(self.max_length + 1) :][:-1])

    def _model_call(
        self, inps: torch.Tensor, attn_mask: torch.Tensor | None = None, labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits of the rows, each with the adapter of its question. The arguments are those of `HFLM`."""
        if self.composed.question_encoder is None:
            return super()._model_call(inps, attn_mask, labels)
        inputs = {"input_ids": inps, "features": self._features([self._question_of_row(row) for row in inps.tolist()])}
        if labels is not None:
            inputs |= {"attention_mask": attn_mask, "labels": labels}
        with torch.no_grad():
            return self.model(**inputs).logits

    def _question_of_row(self, row: list[int]) -> str:
        """The longest request that the row begins with. What follows it is padding."""
        lengths = range(len(row), 0, -1)
        return next(self._questions[tuple(row[:n])] for n in lengths if tuple(row[:n]) in self._questions)

    def tok_batch_encode(self, strings: list[str], *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """As in `HFLM`, which generates for these prompts next."""
        self._prompts = list(strings)
        return super().tok_batch_encode(strings, *args, **kwargs)

    def _model_generate(self, context: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.composed.question_encoder is not None:
            kwargs["features"] = self._features(list(map(self.question_of, self._prompts)))
        with torch.no_grad():
            return super()._model_generate(context, *args, **kwargs)

    def _features(self, questions: list[str]) -> torch.Tensor:
        return self.composed.encode_features(questions).to(self.device)


if __name__ == "__main__":
    cli_evaluate()
