import ast
import inspect
import textwrap

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    MambaConfig,
    MambaForCausalLM,
)

from aag_hf.data import ContextCompressor
from aag_hf.data.compression import compression_report, count_tokens
from aag_hf.data.ranking import question_losses
from aag_hf.errors import InputError

RESTRICTION = " We can get the answer to this question in the given documents."
TEXTS = [
    "Oslo is the capital of Norway and lies at the head of a fjord, where the ships of the north come and go.",
    "The first prize in physics was given to a man who found rays that pass through the hand and show its bones.",
    "The quick brown fox jumps over the lazy dog, again and again, until the dog gets up and walks slowly away.",
]
RECORDS = [
    {
        "id": f"q{number}",
        "question": question,
        "answers": [answer],
        "ctxs": [{"title": title, "text": text} for title, text in zip(("Oslo", "prize", "fox"), TEXTS, strict=True)],
    }
    for number, (question, answer) in enumerate(
        [("who won the first prize in physics", "Röntgen"), ("what is the capital of Norway", "Oslo")]
    )
]


def plain_loss(model, tokenizer, passage, question):
    ids = tokenizer(passage + question + RESTRICTION, return_tensors="pt")["input_ids"]
    given = len(tokenizer(passage)["input_ids"])
    with torch.no_grad():
        logits = model(ids).logits[0].float()
    return cross_entropy(logits[given - 1 : -1], ids[0, given:]).item()


def test_batched_ranking_equals_one_pair_at_a_time(tiny_model, tiny_tokenizer):
    pairs = [(text[:cut], record["question"]) for record in RECORDS for text in TEXTS for cut in (1, 9, 40, 200)]
    expected = [plain_loss(tiny_model, tiny_tokenizer, *pair) for pair in pairs]
    for batch_tokens in (1, 300, 10_000):
        assert question_losses(tiny_model, tiny_tokenizer, pairs, batch_tokens) == pytest.approx(expected, abs=1e-4)


def test_a_passage_beyond_the_models_length_still_gets_a_loss(tiny_model, tiny_tokenizer):
    (loss,) = question_losses(tiny_model, tiny_tokenizer, [(" ".join(TEXTS * 40), "where is Oslo")])
    assert 0 < loss < 100


def test_rank_only_keeps_whole_passages_best_first_as_many_as_fit(tiny_model, tiny_tokenizer):
    losses = [plain_loss(tiny_model, tiny_tokenizer, text, RECORDS[0]["question"]) for text in TEXTS]
    ranked = [TEXTS[place] for place in sorted(range(3), key=losses.__getitem__)]
    for kept in (1, 2, 3):
        expected = "\n\n".join(ranked[:kept])
        room = count_tokens(tiny_tokenizer, expected)
        (record,) = ContextCompressor(tiny_model, tiny_tokenizer, target_tokens=room).compress(RECORDS[:1])
        assert record == RECORDS[0] | {"compressed_context": expected}
    (record,) = ContextCompressor(tiny_model, tiny_tokenizer, target_tokens=1).compress(RECORDS[:1])
    assert record["compressed_context"] == ranked[0]


def test_a_record_does_not_depend_on_its_batch_mates(tiny_model, tiny_tokenizer):
    compressor = ContextCompressor(tiny_model, tiny_tokenizer, target_tokens=90)
    together = compressor.compress(RECORDS)
    assert together == [compressor.compress([record])[0] for record in RECORDS]
    assert together[0]["compressed_context"] and "compressed_context" not in RECORDS[0]


def test_sentences_are_ranked_alone_and_each_says_what_it_is_about(tiny_model, tiny_tokenizer):
    text = "It has 5.4 million people. Its capital is Suva! The sea is near."
    sentences = [f"Fiji: {part}" for part in ("It has 5.4 million people.", "Its capital is Suva!", "The sea is near.")]
    losses = [plain_loss(tiny_model, tiny_tokenizer, sentence, RECORDS[0]["question"]) for sentence in sentences]
    record = RECORDS[0] | {"ctxs": [{"title": "Fiji", "text": text}]}
    (best,) = ContextCompressor(tiny_model, tiny_tokenizer, target_tokens=1, sentences=True).compress([record])
    assert best["compressed_context"] == sentences[losses.index(min(losses))]


def test_a_title_stands_before_a_text_that_does_not_name_it(tiny_model, tiny_tokenizer):
    record = RECORDS[0] | {"ctxs": [{"title": "Nobel", "text": TEXTS[1]}]}
    (compressed,) = ContextCompressor(tiny_model, tiny_tokenizer).compress([record])
    assert compressed["compressed_context"] == f"Nobel: {TEXTS[1]}"


def token_level(model, tokenizer, **options):
    options = {"target_tokens": 64, "token_level": True, "iterative_size": 50} | options
    return ContextCompressor(model, tokenizer, **options)


@pytest.mark.parametrize("iterative_size", [50, 200])
def test_token_level_equals_full_passes_without_a_cache(tiny_model, tiny_tokenizer, monkeypatch, iterative_size):
    longllmlingua = pytest.importorskip("aag_hf.data.longllmlingua")
    long = [
        record | {"ctxs": [passage | {"text": f"{passage['text']} {passage['text']}"} for passage in record["ctxs"]]}
        for record in RECORDS
    ]
    cached = token_level(tiny_model, tiny_tokenizer, iterative_size=iterative_size).compress(long)
    windows = []

    class WithoutCache(longllmlingua.LongLLMLingua):
        """Runs the model over all tokens up to `end` for every window; stand-ins take the place of keys and values."""

        def get_ppl(self, text, granularity, input_ids, attention_mask, past_key_values=None, end=None, **_):
            end = end or input_ids.shape[1]
            past = past_key_values[0][0].shape[2] if past_key_values else 0
            with torch.no_grad():
                logits = tiny_model(input_ids[:, :end]).logits[0]
            losses = cross_entropy(logits[:-1], input_ids[0, 1:end], reduction="none")
            windows.append(end)
            return losses[past:], [[torch.zeros(1, 1, end, 1)] * 2]

    monkeypatch.setattr(longllmlingua, "LongLLMLingua", WithoutCache)
    assert token_level(tiny_model, tiny_tokenizer, iterative_size=iterative_size).compress(long) == cached
    if iterative_size == 50:
        assert len(windows) / 2 / len(RECORDS) >= 3


def test_token_level_drops_tokens_and_holds_context_alone(tiny_model, tiny_tokenizer):
    pytest.importorskip("llmlingua")
    for record in token_level(tiny_model, tiny_tokenizer).compress(RECORDS):
        text = record["compressed_context"]
        assert count_tokens(tiny_tokenizer, text) < count_tokens(tiny_tokenizer, "\n\n".join(TEXTS))
        assert record["question"] not in text and "We can get the answer" not in text and text == text.strip()


@pytest.mark.parametrize("drop_tokens", [False, True])
def test_bfloat16_models_compress(tiny_model, tiny_tokenizer, drop_tokens):
    if drop_tokens:
        pytest.importorskip("llmlingua")
    model = type(tiny_model)(tiny_model.config).to(torch.bfloat16).train()
    compressed = token_level(model, tiny_tokenizer, token_level=drop_tokens).compress(RECORDS)
    assert all(record["compressed_context"] for record in compressed)
    assert model.training


def test_the_adapter_sets_every_attribute_of_its_parent(tiny_model, tiny_tokenizer):
    longllmlingua = pytest.importorskip("aag_hf.data.longllmlingua")
    ours = vars(longllmlingua.LongLLMLingua(tiny_model, tiny_tokenizer))
    for method in ("__init__", "load_model"):
        tree = ast.parse(textwrap.dedent(inspect.getsource(getattr(longllmlingua.PromptCompressor, method))))
        theirs = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and set_on_self(node)}
        assert theirs and theirs <= ours.keys()


def set_on_self(node):
    return isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name) and node.value.id == "self"


@pytest.mark.parametrize("ctxs", [None, [{"title": "T", "text": "  "}], [{"title": "T"}]])
def test_a_record_without_passages_is_refused_by_id(tiny_model, tiny_tokenizer, ctxs):
    record = {"id": "q7", "question": "q", "answers": ["a"], "ctxs": ctxs}
    with pytest.raises(InputError, match="record 'q7'"):
        ContextCompressor(tiny_model, tiny_tokenizer).compress([RECORDS[0], record])


@pytest.mark.parametrize("token_level", [False, True])
def test_where_nothing_was_found_nothing_is_left(tiny_model, tiny_tokenizer, token_level):
    record = {"id": "q7", "question": "q", "answers": ["a"], "ctxs": []}
    compressor = ContextCompressor(tiny_model, tiny_tokenizer, token_level=token_level)
    assert compressor.compress([record]) == [record | {"compressed_context": ""}]


def test_impossible_targets_are_refused(tiny_model, tiny_tokenizer):
    with pytest.raises(InputError, match="target_tokens is 0"):
        ContextCompressor(tiny_model, tiny_tokenizer, target_tokens=0)


def test_report_counts_tokens_and_surviving_answers(tiny_tokenizer):
    compressed = [
        RECORDS[0] | {"compressed_context": "The first prize", "answers": ["physics"]},
        RECORDS[1] | {"compressed_context": "Oslo is the capital", "answers": ["Oslo"]},
        RECORDS[1] | {"compressed_context": "a fox", "answers": ["Bergen"]},
    ]
    report = compression_report(compressed, tiny_tokenizer)
    assert report["questions"] == 3
    assert report["tokens_before"] == count_tokens(tiny_tokenizer, "\n\n".join(TEXTS))
    assert 0 < report["tokens_after"] < 20
    assert report["answer_before"] == pytest.approx(2 / 3) and report["answer_after"] == pytest.approx(1 / 3)
    assert report["answer_survival"] == 0.5


def bloom(vocabulary):
    return BloomForCausalLM(BloomConfig(vocab_size=vocabulary, hidden_size=32, n_layer=2, n_head=4))


def gemma3(vocabulary):
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    heads = {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": 16}
    return Gemma3ForCausalLM(Gemma3TextConfig(vocab_size=vocabulary, **sizes, **heads))


def mamba(vocabulary):
    return MambaForCausalLM(MambaConfig(vocab_size=vocabulary, hidden_size=32, num_hidden_layers=2, state_size=4))


@torch.no_grad()
@pytest.mark.parametrize("make", [bloom, gemma3, mamba])
def test_models_without_positions_or_with_windows_rank_as_one_at_a_time(make, tiny_tokenizer):
    torch.manual_seed(0)
    model = make(len(tiny_tokenizer)).eval()
    pairs = [(text, question) for text in TEXTS for question in ("where is Oslo", "who?")]
    expected = []
    for passage, question in pairs:
        ids = tiny_tokenizer(passage + question + RESTRICTION, return_tensors="pt")["input_ids"]
        start = len(tiny_tokenizer(passage)["input_ids"])
        logits = model(input_ids=ids).logits[0, start - 1 : -1]
        expected.append(cross_entropy(logits, ids[0, start:]).item())
    assert question_losses(model, tiny_tokenizer, pairs) == pytest.approx(expected, abs=1e-4)
