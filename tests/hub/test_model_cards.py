"""A card for each kind of artefact: written when it is saved, valid on the Hub, and its code runs."""

import re

import pytest
from huggingface_hub import ModelCard, ModelCardData
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from aag_hf import AwakeningConfig, AwakeningModel, FiDT5ForConditionalGeneration, HyperLoraConfig, QuestionEncoder
from aag_hf.awakening import share_weights
from aag_hf.hub import leave_model_card, model_card
from aag_hf.hub.cards import NAMELESS, OURS

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
    fid.save_pretrained(folder / "fid_with_tokenizer")
    tiny_tokenizer.save_pretrained(folder / "fid_with_tokenizer")
    fid.save_pretrained(folder / "fid_with_tokenizer")
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
    "fid_with_tokenizer": ("aag-hf", "question-answering"),
    "encoder": ("aag-hf", "feature-extraction"),
    "composed": ("aag-hf", "question-answering"),
    "closed_book": ("aag-hf", "question-answering"),
    "reads_given": ("aag-hf", "question-answering"),
    "reads_fid": ("aag-hf", "question-answering"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_saving_leaves_a_card_of_our_own_whose_metadata_survives_yaml(saved, kind):
    card = ModelCard.load(saved / kind / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == KINDS[kind] and "aag-hf" in card.data.tags
    assert OURS in card.text and "More Information Needed" not in card.text
    assert ModelCardData(**card.data.to_dict()).to_dict() == card.data.to_dict()
    assert f"{model_card(saved / kind)}\n" == str(card)


@pytest.mark.parametrize("kind", KINDS)
def test_a_card_names_no_folder_of_this_machine(saved, kind, tiny_llama_dir, tiny_t5_dir):
    content = (saved / kind / "README.md").read_text()
    assert "base_model" not in ModelCard(content).data.to_dict()
    assert tiny_llama_dir not in content and tiny_t5_dir not in content


@pytest.mark.parametrize("kind", KINDS)
def test_the_code_of_a_card_runs_in_few_lines(saved, kind):
    (code,) = re.findall(r"^```python\n(.*?)^```", (saved / kind / "README.md").read_text(), flags=re.M | re.S)
    assert len([line for line in code.splitlines() if line]) <= 6
    exec(code.replace(NAMELESS, str(saved / kind)), {})


@pytest.mark.parametrize("kind", KINDS)
def test_the_hub_accepts_the_card(saved, kind, online):
    card = model_card(saved / kind, "me/this")
    card.validate()
    assert str(card) in online.validated_cards


def test_the_hub_refuses_a_card_with_a_base_that_only_this_machine_has(saved, online):
    card = model_card(saved / "fid")
    card.data.base_model = str(saved)
    with pytest.raises(ValueError, match="base_model"):
        card.validate()


def test_a_base_model_of_the_hub_and_its_relation_are_named(saved, tmp_path):
    model = FiDT5ForConditionalGeneration.from_pretrained(saved / "fid")
    model.name_or_path = model.config.name_or_path = "google-t5/t5-small"
    model.save_pretrained(tmp_path)
    data = ModelCard.load(tmp_path / "README.md").data
    assert (data.base_model, data.base_model_relation) == ("google-t5/t5-small", "finetune")
    # The folder does not tell; the card in it does.
    assert model_card(tmp_path, "me/fid").data.base_model == "google-t5/t5-small"


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
def adapter(base):
    config = HyperLoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], **PART)
    return get_peft_model(share_weights(base), config)


def test_a_second_save_writes_our_card_anew(adapter, saved, tmp_path):
    adapter.save_pretrained(tmp_path)
    first = (tmp_path / "README.md").read_text()
    adapter.peft_config["default"].lora_alpha = 7
    adapter.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == first.replace("alpha 16", "alpha 7")


def test_a_card_of_your_own_stays(adapter, tmp_path):
    own = "---\nlicense: mit\n---\n\n# Mine\n"
    (tmp_path / "README.md").write_text(own)
    adapter.save_pretrained(tmp_path)
    # PEFT adds its metadata to any card.
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.license == "mit" and card.text.strip().startswith("# Mine") and "HyperLoRA" not in card.text


def test_a_card_in_another_encoding_is_your_own(adapter, tmp_path):
    adapter.save_pretrained(tmp_path)
    (tmp_path / "README.md").write_bytes("Größe".encode("latin-1"))
    leave_model_card(tmp_path)
    assert (tmp_path / "README.md").read_bytes() == "Größe".encode("latin-1")


def test_a_card_of_ours_without_its_last_line_is_your_own(saved, tmp_path):
    model = FiDT5ForConditionalGeneration.from_pretrained(saved / "fid")
    model.save_pretrained(tmp_path)
    edited = (tmp_path / "README.md").read_text().replace(OURS, "My words.")
    (tmp_path / "README.md").write_text(edited)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == edited


def test_a_plain_lora_keeps_the_card_of_peft(base, tmp_path):
    get_peft_model(share_weights(base), LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path)
    assert OURS not in (tmp_path / "README.md").read_text()


def test_a_configuration_saved_alone_gets_no_card(adapter, tmp_path):
    adapter.peft_config["default"].save_pretrained(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["adapter_config.json"]


def test_a_licence_named_in_the_metadata_stays(saved, tmp_path):
    model = FiDT5ForConditionalGeneration.from_pretrained(saved / "fid")
    model.save_pretrained(tmp_path)
    path = tmp_path / "README.md"
    path.write_text(path.read_text().replace("library_name:", "license: mit\nlibrary_name:"))
    model.save_pretrained(tmp_path)
    assert ModelCard.load(path).data.license == "mit" and model_card(tmp_path, "me/fid").data.license == "mit"
