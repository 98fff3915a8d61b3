"""Draws drafts for questions, has the reader answer from them, and makes one answer of each question's answers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from aag_hf.awakening.aggregation import JOINED, Candidate, DraftOptions, vote
from aag_hf.awakening.answer_scorer import AnswerScorer
from aag_hf.awakening.decoding import first_line, generate_texts
from aag_hf.awakening.drafts import draw_texts
from aag_hf.awakening.evidence import evidence_of, starts
from aag_hf.awakening.output import Answered, AwakeningOutput, Drafts
from aag_hf.awakening.reader_inputs import Given, reader_inputs
from aag_hf.errors import InputError
from aag_hf.hyperlora import DocumentMemory

if TYPE_CHECKING:
    from aag_hf.awakening.model import AwakeningModel

_NOTHING = Given()


def answer_with_drafts(
    model: AwakeningModel,
    questions: Sequence[str],
    options: DraftOptions,
    drafts: Drafts | None = None,
    batch_size: int = 32,
    given: Given = _NOTHING,
) -> AwakeningOutput:
    """Answer questions from several drafts each.

    Args:
        model: The composed model.
        questions: The questions.
        options: How many drafts, how they are drawn and what becomes of them.
        drafts: The contexts of each question, if they were drawn before.
        batch_size: Rows per forward pass.
        given: What the reader is given beside the questions. Contexts that are drawn take the place of all of it.

    Raises:
        InputError: The options do not go together or with the model.
    """
    options.check()
    options.check_reader(model.config)
    scorer = AnswerScorer.load(options.scorer) if options.aggregation == "best" and options.scorer else None
    if options.aggregation in JOINED:
        _refuse(given)
        drafts, seconds = _drawn(model, questions, options, drafts, batch_size)
        together = _together(model, questions, drafts, options, batch_size)
        output = model.generate(questions, batch_size=batch_size, **vars(together))
        output.seconds["context"] += seconds
        output.contexts = ["\n".join(draft.text for draft in each) for each in drafts]
        output.drafts = [list(each) for each in drafts]
        return output
    answered = answer_each(model, questions, options, drafts, batch_size, given)
    start = time.perf_counter()
    if options.aggregation == "vote":
        chosen = [vote(candidates) for candidates in answered.candidates]
    else:
        chosen = [evidence.best(scorer) for evidence in evidence_of(model, questions, answered, batch_size)]
    seconds_by_stage = dict(answered.seconds)
    seconds_by_stage["answer"] += time.perf_counter() - start
    read = answered.drafts
    return AwakeningOutput(
        [candidate.answer for candidate in chosen],
        answered.inputs.contexts if read is None else [d[c.draft].text for d, c in zip(read, chosen)],
        None,
        seconds_by_stage,
        answered.input_tokens,
        [candidate.score for candidate in chosen],
        None if read is None else [list(each) for each in read],
    )


def answer_each(
    model: AwakeningModel,
    questions: Sequence[str],
    options: DraftOptions,
    drafts: Drafts | None = None,
    batch_size: int = 32,
    given: Given = _NOTHING,
) -> Answered:
    """One answer per draft: greedy ones from contexts, or several that are drawn without any.

    Arguments and errors are those of `answer_with_drafts`.
    """
    limits = {"max_new_tokens": model.config.answer_max_length, "batch_size": batch_size}
    if options.num_contexts == 1:
        inputs = reader_inputs(model, questions, given, batch_size)
        start = time.perf_counter()
        drawn = draw_texts(
            model.reader,
            inputs.collator,
            inputs.records,
            options.num_answers,
            options,
            memory=inputs.memory,
            lines=True,
            **limits,
        )
        candidates = [[Candidate(first_line(text), score) for text, score in each] for each in drawn]
        tokens = int(inputs.collator.generation_inputs(inputs.records)["attention_mask"].sum())
        return Answered(candidates, None, inputs, tokens, inputs.seconds | {"answer": time.perf_counter() - start})
    _refuse(given)
    drafts, seconds = _drawn(model, questions, options, drafts, batch_size)
    texts = [draft.text for each in drafts for draft in each]
    repeated = [question for question, each in zip(questions, drafts) for _ in each]
    inputs = reader_inputs(model, repeated, _one_by_one(model, repeated, texts), batch_size)
    inputs.seconds["context"] += seconds
    start = time.perf_counter()
    decoded = generate_texts(model.reader, inputs.collator, inputs.records, memory=inputs.memory, **limits)
    assert decoded.scores is not None
    told = list(zip(map(first_line, decoded.texts), decoded.scores))
    candidates = [
        [Candidate(answer, score, place) for place, (answer, score) in enumerate(told[first : first + len(each)])]
        for first, each in zip(starts(drafts), drafts)
    ]
    times = inputs.seconds | {"answer": time.perf_counter() - start}
    return Answered(candidates, drafts, inputs, decoded.prompt_tokens, times)


def _drawn(
    model: AwakeningModel, questions: Sequence[str], options: DraftOptions, drafts: Drafts | None, batch_size: int
) -> tuple[Drafts, float]:
    """At most `num_contexts` contexts of each question, and the seconds it took to write them."""
    start = time.perf_counter()
    if drafts is None:
        drafts = model.draw_contexts(questions, options, batch_size)
    return [each[: options.num_contexts] for each in drafts], time.perf_counter() - start


def _one_by_one(model: AwakeningModel, questions: Sequence[str], texts: Sequence[str]) -> Given:
    """A draft for each question, as what the reader reads."""
    documents = list(map(_document, questions, texts))
    if model.config.fid:
        return Given(passages=[[_passage(document)] for document in documents])
    return Given(
        contexts=None if model.config.context == "none" else texts,
        documents=None if model.document_encoder is None else documents,
    )


def _together(
    model: AwakeningModel, questions: Sequence[str], drafts: Drafts, options: DraftOptions, batch_size: int
) -> Given:
    """All drafts of each question, as what the reader reads."""
    if options.aggregation == "fuse" and not model.config.fid:
        return Given(contexts=["\n".join(draft.text for draft in each) for each in drafts])
    read = [[_document(question, draft.text) for draft in each] for question, each in zip(questions, drafts)]
    if options.aggregation == "fuse":
        return Given(passages=[list(map(_passage, each)) for each in read])
    texts = list(dict.fromkeys(text for each in read for text in each))
    place = {text: number for number, text in enumerate(texts)}
    memory = model.memorize(texts, batch_size=batch_size)
    means = [memory[[place[text] for text in each]].sum([1 / len(each)] * len(each)) for each in read]
    return Given(memory=DocumentMemory.cat(means))


def _document(question: str, draft: str) -> str:
    """A draft as a document. A blank one cannot be read, and of a single token nothing can be remembered."""
    return draft if len(draft.split()) > 1 else f"{question} {draft}".strip()


def _passage(text: str) -> dict[str, Any]:
    return {"title": "", "text": text}


def _refuse(given: Given) -> None:
    """Refuse what drawn contexts would replace."""
    named = [name for name, value in vars(given).items() if value is not None]
    if named:
        raise InputError(f"{', '.join(named)} and num_contexts were given: several contexts take the place of these.")
