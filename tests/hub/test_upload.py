"""What is uploaded: the model and its card, and nothing that concerns this machine only."""

import json

import pytest
from huggingface_hub import ModelCard
from peft import get_peft_model
from transformers import AutoModelForCausalLM

from aag_hf import AwakeningConfig, AwakeningModel, FiDT5ForConditionalGeneration, HyperLoraConfig, QuestionEncoder
from aag_hf.awakening import share_weights
from aag_hf.cli.main import main
from aag_hf.cli.publish import PublishOptions, publish
from aag_hf.data import write_records
from aag_hf.errors import InputError
from aag_hf.hub import push_folder
from aag_hf.manifest import Manifest

QUESTIONS = [f"what is the {noun} of {place}?" for noun in ("capital", "currency") for place in "ABCDEFG"]


@pytest.fixture
def folder(tmp_path, tiny_llama_dir, tiny_tokenizer):
    """A composed model as training leaves it, over a base of the Hub that was loaded from a folder here."""
    base = AutoModelForCausalLM.from_pretrained(tiny_llama_dir)
    adapter = HyperLoraConfig(task_type="CAUSAL_LM", feature_dim=8, r=2, target_modules=["q_proj"])
    encoder = QuestionEncoder.from_backbone(base, tiny_tokenizer, feature_dim=8).fit_whitening(QUESTIONS)
    config = AwakeningConfig("me/base", training_recipe={"model_name_or_path": tiny_llama_dir, "r": 2})
    model = AwakeningModel(config, get_peft_model(share_weights(base), adapter), tiny_tokenizer, encoder)
    model.save_pretrained(tmp_path / "model")
    for name in (
        "manifest.json",
        "teacher/manifest.json",
        "teacher/reader/model.safetensors",
        "checkpoint-5/optimizer.pt",
        "checkpoint-5/trainer_state.json",
        "reader/training_args.bin",
        "runs/events.out.tfevents",
    ):
        path = tmp_path / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"train_file": str(tmp_path)}))
    return tmp_path / "model"


def base_of(folder):
    return json.loads((folder / "config.json").read_text())["training_recipe"]["model_name_or_path"]


def test_publishing_leaves_out_what_is_of_this_machine(folder, online, tiny_llama_dir):
    publish(PublishOptions(model=str(folder), repo_id="me/clean", push=True))
    repository = online.repositories["me/clean"]
    assert set(repository) == {
        "README.md",
        "config.json",
        "question_encoder/config.json",
        "question_encoder/model.safetensors",
        "question_encoder/tokenizer/tokenizer.json",
        "question_encoder/tokenizer/tokenizer_config.json",
        "reader/adapter_config.json",
        "reader/adapter_model.safetensors",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
    }
    for name in ("README.md", "reader/adapter_config.json", "question_encoder/config.json"):
        assert tiny_llama_dir not in repository[name].decode() and str(folder.parent) not in repository[name].decode()
    assert "| `model_name_or_path` | `llama` |" in repository["README.md"].decode()
    assert json.loads(repository["reader/adapter_config.json"])["base_model_name_or_path"] == "me/base"


def test_nothing_is_uploaded_without_push_or_with_a_base_that_only_this_machine_has(folder, online, tiny_llama_dir):
    publish(PublishOptions(model=str(folder), repo_id="me/local"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"base_model_name_or_path": tiny_llama_dir}))
    with pytest.raises(InputError, match="a folder of this machine"):
        publish(PublishOptions(model=str(folder), repo_id="me/local", push=True))
    with pytest.raises(InputError, match="a folder of this machine"):
        publish(PublishOptions(model=str(folder / "reader"), repo_id="me/local", push=True))
    with pytest.raises(InputError, match="set backbone_name_or_path"):
        publish(PublishOptions(model=str(folder / "question_encoder"), repo_id="me/local", push=True))
    assert "me/local" not in online.repositories


def test_an_invalid_card_stops_the_upload(folder, online):
    (folder / "README.md").write_text(f"---\nbase_model: {folder}\n---\n\n# Mine\n")
    with pytest.raises(ValueError, match="base_model"):
        push_folder(folder, "me/invalid")
    assert not online.repositories.get("me/invalid")


def test_pushing_a_model_uploads_its_card_and_keeps_one_written_there(folder, online):
    model = AwakeningModel.from_pretrained(folder, base_model=AutoModelForCausalLM.from_pretrained(base_of(folder)))
    model.push_to_hub("me/model")
    card = ModelCard(online.repositories["me/model"]["README.md"].decode())
    assert 'AwakeningPipeline("me/model")' in card.text and card.data.base_model == "me/base"
    assert online.commit_messages["me/model"] == ["Upload AwakeningModel"]

    online.repositories["me/model"]["README.md"] = b"# Written there\n"
    model.push_to_hub("me/model")
    assert online.repositories["me/model"]["README.md"] == b"# Written there\n"


def test_pushing_again_writes_our_card_anew(folder, online):
    model = AwakeningModel.from_pretrained(folder, base_model=AutoModelForCausalLM.from_pretrained(base_of(folder)))
    for base in ("me/base", "me/another"):
        model.config.base_model_name_or_path = base
        model.save_pretrained(folder, push_to_hub=True, repo_id="me/again", commit_message=base)
        assert ModelCard(online.repositories["me/again"]["README.md"].decode()).data.base_model == base
    assert online.commit_messages["me/again"] == ["me/base", "me/another"]


def test_our_card_takes_the_place_of_the_empty_one_that_peft_uploads(folder, online):
    base = AutoModelForCausalLM.from_pretrained(base_of(folder))
    AwakeningModel.from_pretrained(folder, base_model=base).reader.push_to_hub("me/adapter")
    assert "More Information Needed" in online.repositories["me/adapter"]["README.md"].decode()
    config = json.loads((folder / "reader" / "adapter_config.json").read_text())
    (folder / "reader" / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "me/base"}))
    publish(PublishOptions(model=str(folder / "reader"), repo_id="me/adapter", push=True))
    card = ModelCard(online.repositories["me/adapter"]["README.md"].decode())
    assert 'from_pretrained("me/adapter")' in card.text and card.data.library_name == "peft"


def test_a_part_is_uploaded_as_transformers_does(online, tiny_t5_dir, tmp_path):
    model = FiDT5ForConditionalGeneration.from_pretrained(tiny_t5_dir)
    model.push_to_hub("me/branched", revision="half", tags=["nq"])
    assert online.branches["me/branched"] == {"main", "half"}
    assert ModelCard(online.repositories["me/branched"]["README.md"].decode()).data.tags == ["nq"]
    model.save_pretrained(tmp_path / "fid", push_to_hub=True, repo_id="me/saved", commit_message="First")
    assert {"config.json", "model.safetensors"} <= set(online.repositories["me/saved"])


def test_an_encoder_is_uploaded_with_its_tokenizer(folder, online):
    encoder = QuestionEncoder.from_pretrained(
        folder / "question_encoder", backbone=AutoModelForCausalLM.from_pretrained(base_of(folder))
    )
    encoder.save_pretrained(folder / "encoder", push_to_hub=True, repo_id="me/whole")
    assert {"model.safetensors", "tokenizer/tokenizer.json"} <= set(online.repositories["me/whole"])


def test_a_folder_of_records_is_published_as_a_data_set(online, tmp_path):
    records = [{"id": "1", "question": "Where is Suva?", "answers": ["Fiji"]}]
    write_records(records, tmp_path / "train.jsonl.gz")
    Manifest({"command": "data"}).write(tmp_path / "train.jsonl.gz.manifest.json")
    assert main(["publish", "--data", str(tmp_path), "--repo_id", "me/records", "--push", "true"]) == 0
    repository = online.repositories["me/records"]
    assert set(repository) == {"README.md", "train.jsonl.gz"}
    assert 'load_dataset("me/records"' in repository["README.md"].decode()
    publish(PublishOptions(data=str(tmp_path), repo_id="me/again", push=True))
    assert 'load_dataset("me/again"' in online.repositories["me/again"]["README.md"].decode()


def test_your_own_card_stays_and_says_why_results_cannot_enter_it(folder, tmp_path):
    (folder / "README.md").write_text("# Mine\n")
    publish(PublishOptions(model=str(folder), repo_id="me/own"))
    assert (folder / "README.md").read_text() == "# Mine\n"
    row = {"name": "x", "exact_match": 1.0, "f1": 1.0, "best_subspan_em": 1.0, "exact_match_stderr": 0.1}
    (tmp_path / "results.json").write_text(json.dumps([row]))
    with pytest.raises(InputError, match="is your own and stays"):
        publish(
            PublishOptions(model=str(folder), repo_id="me/own", results=str(tmp_path / "results.json"), dataset="nq")
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "name either model"), (["--model", "a", "--data", "b"], "name either model"), (["--model", "x"], "holds no")],
)
def test_publish_says_what_is_wrong(arguments, message, capsys):
    assert main(["publish", "--repo_id", "me/x", *arguments]) == 2
    assert message in capsys.readouterr().err
