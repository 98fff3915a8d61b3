"""The repository of kernels: Hugging Face's `kernels` loads it, and it computes what this package computes."""

import tomllib

import pytest
import torch
from torch import nn

from aag_hf.errors import InputError
from aag_hf.hub.kernel_repository import main, write_kernel_repository
from aag_hf.kernels.hyper_lora import hyper_lora_naive

REASON = 'kernels is not installed: run `pip install ".[dev]"`'


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "hyper-lora"
    write_kernel_repository(folder, "me/hyper-lora")
    return folder


@pytest.fixture
def hub():
    """The package, and not the folder `kernels` of this repository."""
    pytest.importorskip("kernels.load", reason=REASON)
    import kernels

    return kernels


@pytest.fixture
def kernel(hub, repository):
    return hub.get_local_kernel(repository)


def tensors(dtype=torch.float64):
    torch.manual_seed(0)
    shapes = {"x": (3, 5, 32), "weight": (48, 32), "a": (3, 32, 8), "b": (3, 8, 48), "bias": (48,)}
    return {name: torch.randn(shape, dtype=dtype).requires_grad_() for name, shape in shapes.items()}


def assert_same_with_gradients(ours, theirs, given, **tolerance):
    torch.testing.assert_close(ours, theirs, **tolerance)
    way = torch.randn_like(ours)
    expected = torch.autograd.grad(ours, list(given.values()), way)
    found = torch.autograd.grad(theirs, list(given.values()), way)
    for name, one, other in zip(given, expected, found):
        torch.testing.assert_close(one, other, msg=lambda message, name=name: f"{name}: {message}", **tolerance)


def test_it_has_the_layout_that_kernel_builder_takes(repository):
    build = tomllib.loads((repository / "build.toml").read_text())
    assert build["general"]["edition"] == 5 and build["general"]["hub"] == {"repo-id": "me/hyper-lora"}
    assert build["torch-noarch"] == {}
    sources = repository / "torch-ext" / build["general"]["name"].replace("-", "_")
    for backend in build["general"]["backends"]:
        variant = repository / "build" / f"torch-{backend}"
        assert {path.name for path in variant.glob("*.py")} == {path.name for path in sources.iterdir()} | {"_ops.py"}
    assert "import aag_hf" not in "".join(path.read_text() for path in sources.iterdir())


def test_it_computes_the_formula_and_its_gradients(kernel):
    given = tensors()
    ours = hyper_lora_naive(**given, scale=0.5)
    assert_same_with_gradients(ours, kernel.hyper_lora_linear(**given, scale=0.5, use_triton=True), given)


def test_its_triton_kernels_compute_it_too_as_operators_of_their_own(kernel, monkeypatch):
    pytest.importorskip("triton", reason="triton is not installed: the kernels have no interpreter to run in")
    monkeypatch.setattr(kernel.functional, "choose_path", lambda *facts: "triton")
    given = tensors(torch.float32)
    with torch.profiler.profile() as profile:
        theirs = kernel.hyper_lora_linear(**given, scale=0.5, use_triton=True)
    ran = {event.key for event in profile.key_averages()}
    assert f"{kernel.__name__}::hyper_lora_shrink" in ran and "aag_hf::hyper_lora_shrink" not in ran
    assert_same_with_gradients(hyper_lora_naive(**given, scale=0.5), theirs, given, rtol=1e-4, atol=1e-4)


def test_its_layer_takes_the_place_of_another_in_training(hub, repository):
    @hub.use_kernel_forward_from_hub("Adapted")
    class Adapted(nn.Linear):
        def forward(self, x, a, b, scale=1.0, cu_seqlens=None):
            raise AssertionError("the kernel did not take its place")

    layer = nn.Sequential(Adapted(32, 48, dtype=torch.float64))
    layers = hub.LocalLayerRepository(repository, layer_name="HyperLoraLinear")
    with hub.use_kernel_mapping({"Adapted": {"cpu": layers}}):
        hub.kernelize(layer, device="cpu", mode=hub.Mode.TRAINING)
    given = {name: tensor for name, tensor in tensors().items() if name in ("x", "a", "b")}
    expected = hyper_lora_naive(given["x"], layer[0].weight, given["a"], given["b"], layer[0].bias, scale=2.0)
    assert_same_with_gradients(expected, layer[0](**given, scale=2.0), given)


def test_the_description_of_each_build_fits_its_files(hub, repository):
    from kernels._rust import Digest, DigestAlgorithm, Metadata

    for variant in (repository / "build").iterdir():
        described = Metadata.read_from_file(variant / "metadata.json").digest
        described.validate(Digest.hash_variant(DigestAlgorithm.SHA256, variant))


def test_another_folders_content_and_names_that_the_hub_refuses_stay_out(repository, tmp_path, capsys):
    with pytest.raises(InputError, match="holds something already"):
        write_kernel_repository(repository, "me/hyper-lora")
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "new"), "not a name"])
    assert "not a name" in str(ended.value) and not (tmp_path / "new").exists()
