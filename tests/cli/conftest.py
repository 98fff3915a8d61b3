import pytest

from aag_hf.cli.main import main


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The folder of a quickstart at its smallest."""
    directory = tmp_path_factory.mktemp("quickstart") / "run"
    assert main(["quickstart", "--preset", "smoke", "--output_dir", str(directory), "--threads", "1"]) == 0
    return directory
