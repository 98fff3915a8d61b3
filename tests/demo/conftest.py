import pytest

from aag_hf.cli.main import main
from aag_hf.data import load_countries, write_records
from aag_hf.demo.readers import Readers

TRAINER = ["--max_steps", "2", "--per_device_train_batch_size", "4", "--report_to", "none", "--save_strategy", "no"]
TRAINER += ["--disable_tqdm", "true", "--learning_rate", "0.02", "--threads", "1", "--use_cpu", "true"]


@pytest.fixture(scope="session")
def saved(tiny_llama_dir, tmp_path_factory):
    """Folders of three small readers: of the question, of documents, and a static one that reads a text."""
    folder = tmp_path_factory.mktemp("saved")
    write_records(load_countries()["train"][:16], folder / "train.jsonl")
    kinds = {
        "question": ["--method", "aag", "--feature_dim", "4", "--r", "2"],
        "documents": ["--adapter_from", "document", "--r", "4"],
        "static": ["--method", "lora", "--context", "passages", "--r", "2"],
    }
    for name, options in kinds.items():
        base = ["--model_name_or_path", tiny_llama_dir, "--train_file", str(folder / "train.jsonl")]
        assert main(["train", *base, "--output_dir", str(folder / name), *options, *TRAINER]) == 0
    return folder


@pytest.fixture(scope="session")
def documents_readers(saved):
    return Readers.from_pretrained(str(saved / "documents"), str(saved / "static"))


@pytest.fixture(scope="session")
def question_readers(saved):
    return Readers.from_pretrained(str(saved / "question"))
