"""A card for each kind of model: made from its folder, valid on the Hub, and its code runs."""

import json
import re
import shutil

import pytest
from huggingface_hub import ModelCard, ModelCardData
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from aag_hf import AwakeningConfig, AwakeningModel, FiDT5ForConditionalGeneration, HyperLoraConfig, QuestionEncoder
from aag_hf.awakening import share_weights
from aag_hf.cli.main import main
from aag_hf.errors import InputError
from aag_hf.hub import model_card, write_card
from aag_hf.hub.cards import OURS

QUESTIONS = [f"what is the {noun} of {place}?" for noun in ("capital", "currency") for place in "ABCDEFG"]
PART = {"feature_dim": 8, "r": 2, "init_weights": False}


@pytest.fixture(scope="module")
def base(tiny_llama_dir):
    return AutoModelForCausalLM.from_pretrained(tiny_llama_dir)


@pytest.fixture(scope="module")
def saved(base, tiny_llama_dir, tiny_t5_dir, tiny_tokenizer, tmp_path_factory):
    """A folder for each kind, as `save_pretrained` leaves it."""
    folder = tmp_path_factory.mktemp("saved")
    adapter = HyperLoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], **PART)
    reader = get_peft_model(share_weights(base), adapter)
    reader.save_pretrained(folder / "hyperlora")
    t5 = AutoModelForSeq2SeqLM.from_pretrained(tiny_t5_dir)
    adapter = HyperLoraConfig(task_type="SEQ_2_SEQ_LM", target_modules=["q"], static=True, **PART)
    get_peft_model(t5, adapter).save_pretrained(folder / "hyperlora_t5")
    fid = FiDT5ForConditionalGeneration.from_pretrained(tiny_t5_dir)
    fid.save_pretrained(folder / "fid")
    encoder = QuestionEncoder.from_backbone(base, tiny_tokenizer, feature_dim=8).fit_whitening(QUESTIONS)
    encoder.save_pretrained(folder / "encoder")
    short = {"answer_max_length": 3, "context_max_length": 3}
    generator = get_peft_model(share_weights(base), LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    for name, config, parts in (
        ("composed", AwakeningConfig(tiny_llama_dir, context="generated", **short), (reader, encoder, generator)),
        ("closed_book", AwakeningConfig(tiny_llama_dir, **short), (base, None, None)),
        ("reads_given", AwakeningConfig(tiny_llama_dir, context="compressed", **short), (base, None, None)),
        ("reads_fid", AwakeningConfig(tiny_t5_dir, context="passages", fid=True, **short), (fid, None, None)),
    ):
        reader, encoder, generator = parts
        AwakeningModel(config, reader, tiny_tokenizer, encoder, generator).save_pretrained(folder / name)
    return folder


KINDS = {
    "hyperlora": ("peft", "question-answering"),
    "hyperlora_t5": ("peft", "question-answering"),
    "fid": ("aag-hf", "question-answering"),
    "encoder": ("aag-hf", "feature-extraction"),
    "composed": ("aag-hf", "question-answering"),
    "closed_book": ("aag-hf", "question-answering"),
    "reads_given": ("aag-hf", "question-answering"),
    "reads_fid": ("aag-hf", "question-answering"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_card_has_metadata_that_survives_yaml(saved, kind):
    card = model_card(saved / kind, "me/this")
    assert (card.data.library_name, card.data.pipeline_tag) == KINDS[kind] and "aag-hf" in card.data.tags
    assert OURS in card.text and "More Information Needed" not in card.text
    assert ModelCardData(**card.data.to_dict()).to_dict() == card.data.to_dict()
    assert ModelCard(str(card)).data.to_dict() == card.data.to_dict()


@pytest.mark.parametrize("kind", KINDS)
def test_saving_leaves_no_card_of_ours(saved, kind):
    cards = list((saved / kind).rglob("README.md"))
    assert all(OURS not in card.read_text() for card in cards)
    assert not (saved / kind / "README.md").exists() or kind.startswith("hyperlora")


@pytest.mark.parametrize("kind", KINDS)
def test_a_card_names_no_folder_of_this_machine(saved, kind, tiny_llama_dir, tiny_t5_dir):
    content = str(model_card(saved / kind, "me/this"))
    assert "base_model" not in ModelCard(content).data.to_dict()
    assert tiny_llama_dir not in content and tiny_t5_dir not in content


@pytest.mark.parametrize("kind", KINDS)
def test_the_code_of_a_card_runs_in_few_lines(saved, kind):
    card = model_card(saved / kind, str(saved / kind))
    (code,) = re.findall(r"^```python\n(.*?)^```", str(card), flags=re.M | re.S)
    assert len([line for line in code.splitlines() if line]) <= 6
    exec(code, {})


@pytest.mark.parametrize("kind", KINDS)
def test_the_hub_accepts_the_card(saved, kind, online):
    card = model_card(saved / kind, "me/this")
    card.validate()
    assert str(card) in online.validated_cards


def test_the_hub_refuses_a_card_with_a_base_that_only_this_machine_has(saved, online):
    card = model_card(saved / "fid", "me/fid")
    card.data.base_model = str(saved)
    with pytest.raises(ValueError, match="base_model"):
        card.validate()


@pytest.fixture
def fid(saved, tmp_path):
    """A folder of its own with a card of ours."""
    FiDT5ForConditionalGeneration.from_pretrained(saved / "fid").save_pretrained(tmp_path)
    assert write_card(model_card(tmp_path, "me/fid"), tmp_path)
    return tmp_path


def test_a_base_model_of_the_hub_and_its_relation_are_named(saved, tmp_path):
    shutil.copytree(saved / "composed", tmp_path / "composed")
    config = json.loads((tmp_path / "composed" / "config.json").read_text())
    for reader, relation in (("reader", "adapter"), ("another", "finetune")):
        (tmp_path / "composed" / "reader").rename(tmp_path / "composed" / reader)
        changed = config | {"base_model_name_or_path": "me/base"}
        (tmp_path / "composed" / "config.json").write_text(json.dumps(changed))
        data = model_card(tmp_path / "composed", "me/this").data
        assert (data.base_model, data.base_model_relation) == ("me/base", relation)


def test_metadata_that_somebody_named_stays(fid):
    path = fid / "README.md"
    path.write_text(path.read_text().replace("library_name:", "license: mit\nbase_model: google/t5\nlibrary_name:"))
    assert write_card(model_card(fid, "me/fid"), fid)
    data = ModelCard.load(path).data
    assert (data.license, data.base_model, data.base_model_relation) == ("mit", "google/t5", "finetune")


def test_measurements_become_metadata(saved, online):
    rows = [{"exact_match": 41.239, "f1": 50.0, "best_subspan_em": 45.0}, {"exact_match": 1.0, "f1": 1.0}]
    card = model_card(saved / "composed", "me/reader", rows=rows, results="| a table |", dataset="nq_open")
    card.validate()
    data = ModelCard(str(card)).data
    assert data.datasets == ["nq_open"] and data.metrics == ["exact_match", "f1", "best_subspan_em"]
    assert [(r.metric_type, r.metric_value, r.dataset_name) for r in data.eval_results] == [
        ("exact_match", 41.24, "nq_open"),
        ("f1", 50.0, "nq_open"),
        ("best_subspan_em", 45.0, "nq_open"),
    ]


@pytest.fixture
def adapter(base, tmp_path):
    """The folder of an adapter as PEFT leaves it, with its empty card."""
    config = HyperLoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], **PART)
    get_peft_model(share_weights(base), config).save_pretrained(tmp_path)
    return tmp_path


def test_our_card_replaces_the_empty_one_of_peft_and_is_written_anew(adapter):
    assert "More Information Needed" in (adapter / "README.md").read_text()
    assert write_card(model_card(adapter, "me/this"), adapter)
    first = (adapter / "README.md").read_text()
    config = (adapter / "adapter_config.json").read_text().replace('"lora_alpha": 16', '"lora_alpha": 7')
    (adapter / "adapter_config.json").write_text(config)
    assert write_card(model_card(adapter, "me/this"), adapter)
    assert (adapter / "README.md").read_text() == first.replace("alpha 16", "alpha 7")


@pytest.mark.parametrize("own", ["---\nlicense: mit\n---\n\n# Größe\n", f"---\nlicense: [mit\n---\n\n{OURS}\n"])
def test_a_card_of_your_own_stays(adapter, own):
    """Also one in another encoding, and one of ours whose metadata is broken."""
    content = own.encode("latin-1")
    (adapter / "README.md").write_bytes(content)
    assert not write_card(model_card(adapter, "me/this"), adapter)
    assert (adapter / "README.md").read_bytes() == content


def test_a_card_of_ours_without_its_last_line_is_your_own(fid):
    edited = (fid / "README.md").read_text().replace(OURS, "My words.")
    (fid / "README.md").write_text(edited)
    assert not write_card(model_card(fid, "me/fid"), fid)
    assert (fid / "README.md").read_text() == edited


def test_a_plain_lora_has_no_card_of_ours(base, tmp_path):
    get_peft_model(share_weights(base), LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="holds no composed model, HyperLoRA adapter"):
        model_card(tmp_path, "me/this")


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("reader", "its part reader is missing"),
        ("tokenizer", "its part tokenizer is missing"),
        ("reader/adapter_model.safetensors", "reader: has no weights"),
        ("question_encoder/model.safetensors", "question_encoder: has no weights"),
        ("generator/adapter_model.safetensors", "generator: has no weights"),
    ],
)
def test_half_a_model_is_not_called_ready_to_publish(saved, tmp_path, gone, said, capsys):
    folder = shutil.copytree(saved / "composed", tmp_path / "model")
    path = folder / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert main(["publish", "--model", str(folder), "--repo_id", "me/model"]) == 2
    assert said in capsys.readouterr().err and not (folder / "README.md").exists()
