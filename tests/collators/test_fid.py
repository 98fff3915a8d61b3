import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast

from aag_hf.collators.fid import DataCollatorForFiD
from aag_hf.errors import InputError
from aag_hf.fid import FiDT5Config, FiDT5ForConditionalGeneration

WORDS = [
    "question:",
    "title:",
    "context:",
    "who",
    "wrote",
    "the",
    "old",
    "book",
    "wrote",
    "it",
    "was",
    "by",
    "ann",
    "in",
    "spring",
    "bob",
    "rome",
]


def word_tokenizer(**overrides):
    """Splits as T5's: words that carry the space before them, `</s>` at the end."""
    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2}
    for word in ["▁" + word for word in WORDS]:
        vocabulary.setdefault(word, len(vocabulary))
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names | overrides)


def record(name="q1", question="who wrote the old book", texts=("ann wrote it", "it was by bob in spring"), **extra):
    ctxs = [{"title": "book", "text": text} for text in texts]
    return {"id": name, "question": question, "answers": ["ann", "bob"], "ctxs": ctxs, **extra}


def words(tokenizer, ids):
    return tokenizer.decode(ids).split()


def test_passages_read_question_title_context():
    tokenizer = word_tokenizer()
    batch = DataCollatorForFiD(tokenizer)([record()])
    assert batch["input_ids"].shape == batch["attention_mask"].shape == batch["question_mask"].shape == (1, 2, 16)
    text = tokenizer.decode(batch["input_ids"][0, 0][batch["attention_mask"][0, 0].bool()])
    assert text == "question: who wrote the old book title: book context: ann wrote it</s>"
    assert batch["labels"].tolist() == [tokenizer("ann")["input_ids"]]


def test_question_mask_covers_the_question_and_not_its_words_elsewhere():
    tokenizer = word_tokenizer()
    batch = DataCollatorForFiD(tokenizer)([record(texts=("who wrote the old book", "ann"))])
    for ids, mask in zip(batch["input_ids"][0], batch["question_mask"][0]):
        assert mask.nonzero().flatten().tolist() == [1, 2, 3, 4, 5]
        assert words(tokenizer, ids[mask]) == ["who", "wrote", "the", "old", "book"]


def test_truncation_cuts_the_context_and_never_the_question():
    tokenizer = word_tokenizer()
    question = "who wrote the old book"
    for max_length in range(7, 16):
        batch = DataCollatorForFiD(tokenizer, max_length=max_length)([record(question=question)])
        assert batch["input_ids"].shape[-1] <= max_length
        for ids, mask in zip(batch["input_ids"][0], batch["question_mask"][0]):
            assert words(tokenizer, ids[mask]) == question.split()
            assert (ids == tokenizer.eos_token_id).sum() == 1
    with pytest.raises(InputError, match="record 'q1': the question alone takes 7 tokens, max_length is 6"):
        DataCollatorForFiD(tokenizer, max_length=6)([record(question=question)])


def test_missing_passages_become_padding():
    batch = DataCollatorForFiD(word_tokenizer())([record(), record("q2", texts=("ann",))])
    assert batch["attention_mask"].sum(-1).gt(0).tolist() == [[True, True], [True, False]]
    assert batch["input_ids"][1, 1].eq(0).all() and not batch["question_mask"][1, 1].any()


def test_num_passages_keeps_the_best_ones():
    collator = DataCollatorForFiD(word_tokenizer(), num_passages=1)
    assert torch.equal(collator([record()])["input_ids"], collator([record(texts=("ann wrote it",))])["input_ids"])


def test_lengths_are_rounded_up_to_the_multiple():
    batch = DataCollatorForFiD(word_tokenizer(), pad_to_multiple_of=8)([record(), record("q2", target="it was by ann")])
    assert batch["input_ids"].shape[-1] == 16 and batch["labels"].shape[-1] == 8


def test_labels_take_the_target_and_ignore_padding():
    tokenizer = word_tokenizer()
    batch = DataCollatorForFiD(tokenizer, answer_max_length=3)([record(), record("q2", target="it was by ann")])
    first, cut = tokenizer("ann")["input_ids"], tokenizer("it was")["input_ids"]
    assert batch["labels"].tolist() == [[*first, -100], cut]


def test_workers_give_the_same_batches():
    records = [record(f"q{i}", texts=["ann wrote it", "bob"][: 1 + i % 2]) for i in range(6)]
    collator = DataCollatorForFiD(word_tokenizer())
    here = list(DataLoader(records, batch_size=2, collate_fn=collator))
    workers = list(DataLoader(records, batch_size=2, collate_fn=collator, num_workers=2))
    for ours, theirs in zip(here, workers, strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_batches_feed_the_reader_and_ragged_questions_read_as_alone():
    torch.manual_seed(0)
    model = FiDT5ForConditionalGeneration(
        FiDT5Config(vocab_size=32, d_model=16, d_kv=4, d_ff=32, num_layers=2, num_heads=4, decoder_start_token_id=0)
    ).eval()
    collator = DataCollatorForFiD(word_tokenizer())
    records = [record(), record("q2", texts=("ann",))]

    def logits(batch):
        return model(**{name: batch[name] for name in ("input_ids", "attention_mask", "labels")}).logits

    together, alone = logits(collator(records)), logits(collator(records[1:]))
    torch.testing.assert_close(together[1:], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ctxs", [None, []])
def test_a_record_without_passages_is_named(ctxs):
    with pytest.raises(InputError, match="record 'q7' has no passages"):
        DataCollatorForFiD(word_tokenizer())([record(), record("q7") | {"ctxs": ctxs}])


def test_a_passage_without_text_is_named():
    with pytest.raises(InputError, match=r"record 'q7': ctxs\[1\] has no text"):
        DataCollatorForFiD(word_tokenizer())([record("q7", texts=("ann", "  "))])


def test_unusable_settings_are_refused():
    with pytest.raises(InputError, match="truncation_side"):
        DataCollatorForFiD(word_tokenizer(truncation_side="left"))
    with pytest.raises(InputError, match="padding token"):
        DataCollatorForFiD(word_tokenizer(pad_token=None))
    with pytest.raises(InputError, match="num_passages is 0"):
        DataCollatorForFiD(word_tokenizer(), num_passages=0)
