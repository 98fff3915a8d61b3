"""`aag demo` refuses what cannot work before it loads a model."""

import importlib.util

from aag_hf.cli import demo
from aag_hf.cli.main import main


def test_without_gradio_it_says_how_to_install_it(monkeypatch, capsys):
    monkeypatch.setattr(demo, "find_spec", lambda name: None if name == "gradio" else importlib.util.find_spec(name))
    assert main(["demo", "--model", "no such folder"]) == 2
    assert capsys.readouterr().err == "aag demo: gradio is not installed: run `pip install 'aag-hf[demo]'`.\n"


def test_an_address_of_another_machine_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(demo, "find_spec", lambda name: name)
    assert main(["demo", "--model", "no such folder", "--host", "192.0.2.1"]) == 2
    assert "nothing can listen on host 192.0.2.1, port 7860" in capsys.readouterr().err
    assert main(["demo", "--model", "no such folder", "--port", "0"]) == 2
    assert "port is 0: expected 1 to 65535" in capsys.readouterr().err
