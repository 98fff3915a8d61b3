"""lm-evaluation-harness asks a saved reader: the answers and probabilities are those the reader gives by itself."""

import json

import pytest
import torch
from peft import get_peft_model

from aag_hf import AwakeningConfig, AwakeningModel, HyperLoraConfig, QuestionEncoder
from aag_hf.awakening import share_weights
from aag_hf.awakening.loading import load_language_model, load_tokenizer
from aag_hf.errors import InputError
from aag_hf.evaluation import evaluate_reader

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install aag-hf[lm-eval]")

from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager

from aag_hf.evaluation.lm_eval import AagLM

RECORDS = [
    {"id": f"{noun}-{place}", "question": f"what is the {noun} of {place * size}?", "answers": [f"{place} {noun}"]}
    for noun in ("capital", "currency")
    for size, place in enumerate("ABCDE", start=1)
]
TASK = """
task: made_questions
dataset_path: json
dataset_kwargs: {{data_files: {{train: {train}, test: {test}}}}}
training_split: train
test_split: test
fewshot_split: train
output_type: generate_until
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_target: "{{{{answers[0]}}}}"
target_delimiter: " "
generation_kwargs: {{until: ["\\n"], do_sample: false, max_gen_toks: 6}}
metric_list: [{{metric: exact_match}}]
"""


@pytest.fixture(scope="module", params=["llama", "t5"])
def saved(request, tiny_llama_dir, tiny_t5_dir, tmp_path_factory):
    path, task, names = {
        "llama": (tiny_llama_dir, "CAUSAL_LM", ["q_proj", "down_proj"]),
        "t5": (tiny_t5_dir, "SEQ_2_SEQ_LM", ["q", "wo"]),
    }[request.param]
    base, tokenizer = load_language_model(path), load_tokenizer(path)
    torch.manual_seed(1)
    adapter = HyperLoraConfig(
        task_type=task, feature_dim=8, r=2, lora_alpha=64, target_modules=names, init_weights=False
    )
    encoder = QuestionEncoder.from_backbone(base, tokenizer, feature_dim=8)
    encoder.fit_whitening([record["question"] for record in RECORDS])
    folder = tmp_path_factory.mktemp("saved") / request.param
    config = AwakeningConfig(path, answer_max_length=6)
    AwakeningModel(config, get_peft_model(share_weights(base), adapter), tokenizer, encoder).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def own(saved):
    return AwakeningModel.from_pretrained(saved)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    for name, records in (("train", RECORDS[:3]), ("test", RECORDS)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "made.yaml").write_text(TASK.format(train=folder / "train.jsonl", test=folder / "test.jsonl"))
    return TaskManager(include_path=str(folder), include_defaults=False)


def test_a_task_gets_the_answers_of_aag_evaluate(saved, own, tasks):
    ran = simple_evaluate(
        model="aag",
        model_args={"pretrained": saved, "batch_size": 4, "device": "cpu"},
        tasks=["made_questions"],
        task_manager=tasks,
        bootstrap_iters=0,
        log_samples=True,
    )
    expected = evaluate_reader(own, RECORDS)
    samples = sorted(ran["samples"]["made_questions"], key=lambda sample: sample["doc_id"])
    answers = [sample["resps"][0][0].strip() for sample in samples]
    if own.reader.config.is_encoder_decoder:
        # The harness counts the prompt's tokens in, and lets the decoder write as many more.
        answers = [answer[:6].strip() for answer in answers]
    assert answers == [row["prediction"] for row in expected["predictions"]] and len(set(answers)) > 1


@pytest.mark.parametrize("batch_size", [1, 4])
def test_loglikelihoods_are_the_readers_own(saved, own, batch_size):
    model = AagLM(pretrained=saved, device="cpu", batch_size=batch_size)
    apart = own.reader.config.is_encoder_decoder
    collator = own.reader_collator()
    requests, expected = [], []
    for record, features in zip(RECORDS, own.encode_features([r["question"] for r in RECORDS]).tolist()):
        prompt, answer = f"Question: {record['question']}\nAnswer:", record["answers"][0]
        batch = collator([record | {"features": features, "target": answer[:4]}])
        with torch.no_grad():
            logits = own.reader(**batch).logits
        labels = batch["labels"] if apart else batch["labels"][:, 1:]
        logits = logits if apart else logits[:, :-1]
        told = logits.log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0][labels >= 0]
        expected.append(told[:-1].sum().item())  # without the end token, which the harness does not ask for
        continuation = answer[:4] if apart else f" {answer[:4]}"
        requests.append(Instance("loglikelihood", record, (prompt, continuation), 0))
    found = [likelihood for likelihood, _ in model.loglikelihood(requests, disable_tqdm=True)]
    assert found == pytest.approx(expected, abs=1e-4)


def test_in_a_few_shot_prompt_the_last_question_counts(saved, own, tasks):
    model = AagLM(pretrained=saved, device="cpu", batch_size=4)
    prompt = "Question: one?\nAnswer: 1\n\nQ: two?\nA: 2\n\nQuestion: what  is three?\nAnswer:"
    assert model.question_of(prompt) == "what  is three?"
    few = AagLM(pretrained=saved, device="cpu", batch_size=4, question_pattern=r"^ask (.*)$")
    assert few.question_of("ask one\nask two\n") == "two"
    with pytest.raises(InputError, match="no question found in the prompt 'Once'"):
        model.question_of("Once")


@pytest.mark.parametrize("batch_size", ["auto", "auto:4"])
def test_what_the_harness_cannot_ask_is_named(saved, batch_size):
    with pytest.raises(InputError, match="expected a number"):
        AagLM(pretrained=saved, device="cpu", batch_size=batch_size)
    running = Instance("loglikelihood_rolling", {}, ("a text",), 0)
    with pytest.raises(InputError, match="which a running text has not"):
        AagLM(pretrained=saved, device="cpu").loglikelihood_rolling([running], disable_tqdm=True)
