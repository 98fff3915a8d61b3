"""Both training commands, for causal and encoder-decoder models: what is trained is saved, reloads, and can be used."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Seq2SeqTrainingArguments, TrainerState

from aag_hf import AwakeningModel
from aag_hf.cli.checkpoints import last_whole_checkpoint
from aag_hf.cli.main import main
from aag_hf.data import load_countries, read_records, write_records
from aag_hf.data.folds import fold_of
from aag_hf.evaluation import evaluate_reader

TRAINER = ["--max_steps", "2", "--per_device_train_batch_size", "4", "--report_to", "none", "--save_strategy", "no"]
TRAINER += ["--disable_tqdm", "true", "--learning_rate", "0.01"]


@pytest.fixture(params=["llama", "t5"])
def base(request, tiny_llama_dir, tiny_t5_dir):
    return tiny_llama_dir if request.param == "llama" else tiny_t5_dir


@pytest.fixture(scope="module")
def train_file(tmp_path_factory):
    records = [
        record | {"compressed_context": record["ctxs"][0]["text"], "generated_context": "from memory"}
        for record in load_countries()["train"][:40]
    ]
    path = tmp_path_factory.mktemp("data") / "train.jsonl"
    write_records(records, path)
    return str(path)


def train(base, train_file, output, *options):
    target_modules = ["q", "wo"] if "t5" in base else ["q_proj", "down_proj"]
    arguments = ["--model_name_or_path", base, "--train_file", train_file, "--output_dir", str(output)]
    adapter = ["--feature_dim", "8", "--r", "2", "--target_modules", *target_modules]
    return main(["train", *arguments, *adapter, *TRAINER, *options])


@pytest.mark.parametrize("method", ["aag", "lora", "full"])
@pytest.mark.parametrize("context", ["none", "generated", "passages"])
def test_every_method_and_context_trains_reloads_and_answers(base, train_file, method, context, tmp_path):
    assert train(base, train_file, tmp_path / "reader", "--method", method, "--context", context) == 0
    records = read_records(train_file)[:6]
    first = AwakeningModel.from_pretrained(tmp_path / "reader")
    assert (first.question_encoder is not None) == (method == "aag")
    result = evaluate_reader(first, records)
    assert result["count"] == 6
    again = evaluate_reader(AwakeningModel.from_pretrained(tmp_path / "reader"), records)
    assert [row["prediction"] for row in again["predictions"]] == [row["prediction"] for row in result["predictions"]]


def test_without_padding_it_trains_the_same_reader_and_an_encoder_decoder_is_refused(
    base, train_file, tmp_path, capsys
):
    rc = train(base, train_file, tmp_path / "packed", "--padding_free", "true")
    if "t5" in base:
        assert rc == 2 and "padding_free is for causal models" in capsys.readouterr().err
        return
    assert rc == 0 and train(base, train_file, tmp_path / "padded") == 0
    packed, padded = (
        dict(AwakeningModel.from_pretrained(tmp_path / name).reader.named_parameters()) for name in ("packed", "padded")
    )
    for name, parameter in padded.items():
        torch.testing.assert_close(packed[name], parameter, rtol=1e-4, atol=2e-6)


def test_features_may_read_the_context_too(base, train_file, tmp_path):
    options = ["--context", "generated", "--features_read_context", "true"]
    assert train(base, train_file, tmp_path / "reader", *options) == 0
    model = AwakeningModel.from_pretrained(tmp_path / "reader")
    features = [model.generate(["who?"], contexts=[context]).features for context in ("one", "another")]
    assert not torch.allclose(*features)


def test_a_reader_learns_from_a_teacher_that_reads_passages(base, train_file, tmp_path):
    assert train(base, train_file, tmp_path / "teacher", "--method", "lora", "--context", "passages") == 0
    assert train(base, train_file, tmp_path / "student", "--teacher", str(tmp_path / "teacher")) == 0
    assert train(base, train_file, tmp_path / "alone") == 0
    weights = []
    for name in ("student", "alone"):
        model = AwakeningModel.from_pretrained(tmp_path / name)
        weights.append(torch.cat([p.flatten() for n, p in model.reader.named_parameters() if "hyperlora_net" in n]))
    assert not torch.equal(*weights)


def test_a_student_of_a_teacher_whose_base_has_changed_is_another_run(tiny_llama_dir, train_file, tmp_path, capsys):
    of_teacher = shutil.copytree(tiny_llama_dir, tmp_path / "of_teacher")
    teacher = ["--method", "lora", "--context", "passages"]
    assert train(str(of_teacher), train_file, tmp_path / "teacher", *teacher) == 0
    student = (tiny_llama_dir, train_file, tmp_path / "student", "--teacher", str(tmp_path / "teacher"))
    assert train(*student) == 0 == train(*student)
    file = of_teacher / "model.safetensors"
    save_file({name: 2 * weight for name, weight in load_file(file).items()}, file, {"format": "pt"})
    assert train(*student) == 2
    assert "teacher_base was" in capsys.readouterr().err


def test_a_cache_inside_an_output_or_a_teacher_is_refused(tiny_llama_dir, train_file, tmp_path, capsys):
    for place in (tmp_path / "out", tmp_path / "out" / "cache", tmp_path / "teacher"):
        options = ["--teacher", str(tmp_path / "teacher"), "--teacher_cache_dir", str(place)]
        assert train(tiny_llama_dir, train_file, tmp_path / "out", *options) == 2
        assert "keep teacher_cache_dir apart" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_names_of_checkpoints_are_left_to_checkpoints(tiny_llama_dir, train_file, tmp_path, capsys):
    assert train(tiny_llama_dir, train_file, tmp_path / "out.checkpoints") == 2
    assert "choose another output" in capsys.readouterr().err
    assert train(tiny_llama_dir, train_file, ".") == 2
    assert "output_dir is '.': name a folder inside of it" in capsys.readouterr().err


def test_a_teacher_that_takes_features_is_refused(base, train_file, tmp_path, capsys):
    assert train(base, train_file, tmp_path / "teacher") == 0
    assert train(base, train_file, tmp_path / "student", "--teacher", str(tmp_path / "teacher")) == 2
    assert "takes features itself" in capsys.readouterr().err


def test_a_finished_run_is_kept_and_another_one_refused(base, train_file, tmp_path, capsys):
    assert train(base, train_file, tmp_path / "reader") == 0
    before = (tmp_path / "reader" / "config.json").stat().st_mtime_ns
    assert train(base, train_file, tmp_path / "reader") == 0
    assert (tmp_path / "reader" / "config.json").stat().st_mtime_ns == before
    assert [path.name for path in tmp_path.iterdir()] == ["reader"]
    assert train(base, train_file, tmp_path / "reader", "--seed", "7") == 2
    assert "seed was 42, is 7" in capsys.readouterr().err


def test_a_stopped_run_goes_on_from_its_checkpoint_to_the_same_weights(tiny_llama_dir, train_file, tmp_path):
    def weights(output, *options):
        assert train(tiny_llama_dir, train_file, output, "--save_strategy", "steps", "--save_steps", "1", *options) == 0
        model = AwakeningModel.from_pretrained(output)
        return {n: p for n, p in model.reader.named_parameters() if "hyperlora_net" in n}

    whole = weights(tmp_path / "whole")
    checkpoints = tmp_path / "whole.checkpoints"
    (tmp_path / "stopped.checkpoints").mkdir()
    (checkpoints / "checkpoint-1").rename(tmp_path / "stopped.checkpoints" / "checkpoint-1")
    (checkpoints / "manifest.json").rename(tmp_path / "stopped.checkpoints" / "manifest.json")
    resumed = weights(tmp_path / "stopped")
    assert all(torch.equal(resumed[name], parameter) for name, parameter in whole.items())


@pytest.mark.parametrize("state", ['{"global_step": 2}', "{", "[]", "[" * 100_000, ""])
def test_a_checkpoint_without_a_whole_state_is_not_resumed(tmp_path, state):
    arguments = Seq2SeqTrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    for step in (1, 2):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        TrainerState(global_step=step, epoch=1.0).save_to_json(str(folder / "trainer_state.json"))
        for name in ("optimizer.pt", "rng_state.pth"):
            torch.save({}, folder / name)
    assert last_whole_checkpoint(arguments) == tmp_path / "checkpoint-2"
    (tmp_path / "checkpoint-2" / "trainer_state.json").write_text(state)
    assert last_whole_checkpoint(arguments) == tmp_path / "checkpoint-1"


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_generator_trains_and_writes_contexts_for_every_record(base, train_file, method, tmp_path):
    names = ["q", "wo"] if "t5" in base else ["q_proj", "down_proj"]
    arguments = ["--model_name_or_path", base, "--train_file", train_file, "--method", method, *TRAINER]
    arguments += ["--target_modules", *names]
    assert main(["train-generator", *arguments, "--output_dir", str(tmp_path / "generator")]) == 0
    written = tmp_path / "generated.jsonl"
    generating = ["generate", "--model_name_or_path", base, "--generator", str(tmp_path / "generator")]
    generating += ["--input", train_file, "--output", str(written), "--context_max_length", "5", "--batch_size", "16"]
    assert main(generating) == 0
    records = {record["id"]: record for record in read_records(written)}
    assert set(records) == {record["id"] for record in read_records(train_file)}
    assert all("generated_context" in record for record in records.values())
    drawing = [*generating, "--num_contexts", "3", "--seed", "5"]
    assert main(drawing) == 2
    assert main([*drawing, "--overwrite", "true"]) == 0
    for record in read_records(written):
        texts = [draft["text"] for draft in record["generated_contexts"]]
        assert texts[0] == record["generated_context"] == records[record["id"]]["generated_context"]
        assert len(set(texts)) == len(texts) <= 3 and all(d["score"] <= 0 for d in record["generated_contexts"])


def test_cross_fitting_gives_each_question_a_generator_that_has_not_seen_it(tiny_llama_dir, train_file, tmp_path):
    arguments = ["--model_name_or_path", tiny_llama_dir, "--train_file", train_file, *TRAINER, "--folds", "2"]
    generators = [str(tmp_path / f"fold{fold}") for fold in range(2)]
    for fold, output in enumerate(generators):
        assert main(["train-generator", *arguments, "--fold", str(fold), "--output_dir", output]) == 0

    def contexts(name, *names):
        output = tmp_path / f"{name}.jsonl"
        options = ["--model_name_or_path", tiny_llama_dir, "--input", train_file, "--output", str(output)]
        assert main(["generate", *options, "--generator", *names, "--context_max_length", "8"]) == 0
        return {record["id"]: record["generated_context"] for record in read_records(output)}

    alone = [contexts(f"alone{i}", generator) for i, generator in enumerate(generators)]
    crossed = contexts("crossed", *generators)
    records = read_records(train_file)
    assert all(crossed[record["id"]] == alone[fold_of(record, 2)][record["id"]] for record in records)


def test_an_entity_is_in_one_fold_and_folds_are_even():
    records = [record for split in load_countries().values() for record in split]
    folds = {}
    for record in records:
        folds.setdefault(record["entity"], set()).add(fold_of(record, 2))
    assert all(len(members) == 1 for members in folds.values())
    assert 0.4 < sum(members == {0} for members in folds.values()) / len(folds) < 0.6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fold", "2", "--folds", "2"], "expected 0 to 1"),
        (["--train_file", ""], "train_file is missing"),
        (["--dtype", "float8"], "dtype must be one of"),
        (["--threads", "0"], "threads is 0: expected 1"),
    ],
)
def test_options_that_cannot_work_are_named(tiny_llama_dir, train_file, options, message, tmp_path, capsys):
    arguments = ["--model_name_or_path", tiny_llama_dir, "--train_file", train_file, *TRAINER]
    assert main(["train-generator", *arguments, "--output_dir", str(tmp_path / "x"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_what_the_reader_lacks_is_named_with_the_command_that_makes_it(tiny_llama_dir, train_file, tmp_path, capsys):
    bare = tmp_path / "bare.jsonl"
    bare.write_text(json.dumps({"id": "1", "question": "who?", "answers": ["me"]}) + "\n")
    assert train(tiny_llama_dir, str(bare), tmp_path / "x", "--method", "lora", "--context", "generated") == 2
    assert "record 1: has no generated_context: run `aag generate` first" in capsys.readouterr().err
