"""T5 from the command line: Fusion-in-Decoder readers and teachers, and every system of the paper's table."""

import json
from pathlib import Path

import pytest
import torch

from aag_hf.awakening import AwakeningModel
from aag_hf.awakening.aggregation import DraftOptions
from aag_hf.cli.main import main
from aag_hf.data.countries import load_countries
from aag_hf.data.records import read_records, write_records
from aag_hf.errors import InputError
from aag_hf.evaluation import evaluate_reader
from aag_hf.fid import FiDT5ForConditionalGeneration

RECIPE = Path(__file__).resolve().parents[2] / "configs" / "recipes" / "t5_paper.yaml"
TRAINER = ["--max_steps", "2", "--per_device_train_batch_size", "4", "--report_to", "none", "--save_strategy", "no"]


@pytest.fixture(scope="module")
def train_file(tmp_path_factory):
    records = [record for record in load_countries()["train"] if record["relation"] in ("capital", "continent")][:12]
    passages = [record["ctxs"][0] for record in records]
    for i, record in enumerate(records):
        record["ctxs"] = [passages[i], passages[i - 1], passages[i - 2]]
        record["generated_context"] = "from memory"
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    write_records(records, path)
    return str(path)


@pytest.fixture(scope="module")
def train(train_file, tiny_t5_dir):
    def run(output, *options):
        arguments = ["--model_name_or_path", tiny_t5_dir, "--train_file", train_file, "--output_dir", str(output)]
        adapter = ["--feature_dim", "8", "--r", "2", "--target_modules", "q", "v", "--prompt_max_length", "128"]
        return main(["train", *arguments, *adapter, *TRAINER, *options])

    return run


FID = ["--context", "passages", "--fid", "true", "--passages", "2"]


@pytest.mark.parametrize("method", ["aag", "lora", "full"])
def test_a_fid_reader_trains_reloads_and_answers(train, train_file, method, tmp_path):
    assert train(tmp_path / "reader", "--method", method, *FID) == 0
    records = read_records(train_file)
    model = AwakeningModel.from_pretrained(tmp_path / "reader")
    inner = model.reader if method == "full" else model.reader.get_base_model()
    assert isinstance(inner, FiDT5ForConditionalGeneration)
    result = evaluate_reader(model, records)
    assert result["count"] == len(records)
    # Two passages of more than half the limit each: joined in one prompt, they could not all have been read.
    assert result["input_tokens"] > 128
    with pytest.raises(InputError, match="pass `passages`"):
        model.generate(["who?"])
    drafts = [{"text": text, "score": -1.0} for text in ("one", "another")]
    fused = [record | {"generated_contexts": drafts} for record in records]
    asked = [record["question"] for record in records]
    passages = [[{"title": "", "text": draft["text"]} for draft in drafts]] * len(records)
    told = evaluate_reader(model, fused, drafts=DraftOptions(num_contexts=2, aggregation="fuse"))["predictions"]
    assert [row["prediction"] for row in told] == model.generate(asked, passages=passages).answers
    assert evaluate_reader(model, fused, drafts=DraftOptions(num_contexts=2, aggregation="marginal"))["count"]
    with pytest.raises(InputError, match="reads 2 passages"):
        evaluate_reader(model, fused, drafts=DraftOptions(num_contexts=3, aggregation="fuse"))


@pytest.mark.parametrize("cached", [False, True])
def test_a_reader_of_memory_learns_from_a_fid_teacher(train, cached, tmp_path):
    assert train(tmp_path / "teacher", "--method", "full", *FID) == 0
    cache = ["--teacher_cache_dir", str(tmp_path / "cache")] if cached else []
    options = ["--context", "generated", "--teacher", str(tmp_path / "teacher"), *cache]
    assert train(tmp_path / "student", *options) == 0
    assert train(tmp_path / "alone", "--context", "generated") == 0
    weights = []
    for name in ("student", "alone"):
        reader = AwakeningModel.from_pretrained(tmp_path / name).reader
        weights.append(torch.cat([p.flatten() for n, p in reader.named_parameters() if "hyperlora_net" in n]))
    assert not torch.equal(*weights)


@pytest.mark.parametrize("cached", [False, True])
def test_all_terms_of_the_loss_are_logged(train, cached, tmp_path):
    assert train(tmp_path / "teacher", "--method", "lora", *FID) == 0
    options = ["--teacher", str(tmp_path / "teacher"), "--hidden_weight", "0.1", "--attention_weight", "0.1"]
    eager = ["--attn_implementation", "eager", "--logging_steps", "1", "--save_strategy", "steps", "--save_steps", "2"]
    options += ["--teacher_cache_dir", str(tmp_path / "cache")] if cached else []
    assert train(tmp_path / "student", "--context", "generated", *options, *eager) == 0
    state = tmp_path / "student.checkpoints" / "checkpoint-2" / "trainer_state.json"
    logged = json.loads(state.read_text())["log_history"][-1]
    terms = {"answer_cross_entropy", "distillation_kl", "hidden_alignment", "attention_alignment"}
    assert terms <= logged.keys() and all(logged[term] > 0 for term in terms)


def test_a_trained_teacher_is_saved_beside_its_student_and_differs_from_before(train, train_file, tmp_path, capsys):
    assert train(tmp_path / "teacher", "--method", "full", *FID) == 0
    options = ["--context", "generated", "--teacher", str(tmp_path / "teacher"), "--train_teacher", "true"]
    options += ["--teacher_learning_rate", "0.01"]
    assert train(tmp_path / "student", *options) == 0
    folders = (tmp_path / "teacher", tmp_path / "student" / "teacher")
    before, after = (dict(AwakeningModel.from_pretrained(folder).reader.named_parameters()) for folder in folders)
    assert any(not torch.equal(parameter, after[name]) for name, parameter in before.items())
    assert evaluate_reader(AwakeningModel.from_pretrained(folders[1]), read_records(train_file)[:2])["count"] == 2
    assert train(tmp_path / "adapter", "--method", "lora", *FID) == 0
    assert train(tmp_path / "x", *options, "--teacher", str(tmp_path / "adapter")) == 2
    assert "is an adapter: train_teacher trains a teacher whole" in capsys.readouterr().err
    assert train(tmp_path / "x", *options, "--teacher_cache_dir", str(tmp_path / "cache")) == 2
    assert "teacher_cache_dir keeps a frozen teacher's answers" in capsys.readouterr().err


def test_fid_of_another_model_or_without_passages_is_refused(train, tiny_llama_dir, tmp_path, capsys):
    assert train(tmp_path / "x", "--fid", "true") == 2
    assert "fid reads several passages" in capsys.readouterr().err
    assert train(tmp_path / "x", *FID, "--model_name_or_path", tiny_llama_dir) == 2
    assert "is a llama model: fid needs a T5" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_converted_checkpoint_can_be_trained_from(train, tiny_t5_dir, tmp_path, capsys):
    converted = str(tmp_path / "fid")
    assert main(["convert-fid", "--source", tiny_t5_dir, "--output_dir", converted]) == 0
    assert train(tmp_path / "reader", "--model_name_or_path", converted, *FID) == 0
    assert main(["convert-fid", "--source", tiny_t5_dir, "--output_dir", converted]) == 2
    assert "exists already" in capsys.readouterr().err


SYSTEMS = {
    "T5, closed book": ["--method", "full", "--context", "none"],
    "LoRA, closed book": ["--method", "lora", "--context", "none"],
    "LoRA, 1 document": ["--method", "lora", "--context", "generated"],
    "AAG, 0 documents": ["--context", "none", "--teacher", "FID"],
    "AAG, 1 document": ["--context", "generated", "--teacher", "FID"],
    "AAG, 10 passages": ["--context", "passages", "--passages", "3", "--fid", "true", "--teacher", "FID"],
}


@pytest.fixture(scope="module")
def run_recipe(train_file, tiny_t5_dir):
    def run(output, *options):
        arguments = ["train", "--config", str(RECIPE), "--train_file", train_file, "--output_dir", str(output)]
        small = ["--model_name_or_path", tiny_t5_dir, "--bf16", "false", "--feature_dim", "8", "--r", "2"]
        return main([*arguments, *small, *TRAINER, *options])

    return run


@pytest.fixture(scope="module")
def fid_teacher(run_recipe, tmp_path_factory):
    output = tmp_path_factory.mktemp("teacher") / "fid"
    assert run_recipe(output, "--method", "full", "--context", "passages", "--passages", "3", "--fid", "true") == 0
    return str(output)


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_of_the_papers_table_trains_from_the_recipe_and_answers(
    run_recipe, fid_teacher, train_file, system, tmp_path, capsys
):
    options = [fid_teacher if option == "FID" else option for option in SYSTEMS[system]]
    assert run_recipe(tmp_path / "reader", *options) == 0
    said = capsys.readouterr().out.partition("Trained: ")[2].splitlines()[0]
    parts = {part.rpartition(" ")[0] for part in said.split(", ")}
    whole = {"DenseReluDense", "layer_norm", "final_layer_norm"}
    if "full" in options:
        # The embeddings are T5's `shared`; only a reader trained whole moves them.
        assert parts == {"shared", "encoder", "decoder"}
    else:
        assert parts == whole | ({"LoRA"} if "lora" in options else {"hypernetworks"})
    result = evaluate_reader(AwakeningModel.from_pretrained(tmp_path / "reader"), read_records(train_file)[:4])
    assert result["count"] == 4
