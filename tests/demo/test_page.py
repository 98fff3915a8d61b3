"""The page in a real browser, headless: Playwright with the Chromium or Chrome of the system."""

import json
import os
import shutil
import socket
from pathlib import Path

import pytest

from aag_hf.cli.demo import DemoOptions, open_page
from aag_hf.cli.main import main

pytest.importorskip("gradio", reason="the page needs gradio: pip install '.[demo]'")
sync_api = pytest.importorskip("playwright.sync_api", reason="the browser is driven by playwright: pip install it")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
if BROWSER is None:
    pytest.skip("no chromium or google-chrome is installed", allow_module_level=True)

sync_api.expect.set_options(timeout=20_000)

MARKUP = "<img src=x onerror=alert(1)>"
QUESTION = "What is the capital of Nuvaria?"


@pytest.fixture(scope="module")
def address(documents_readers, tmp_path_factory):
    """Of the page of a reader of documents."""
    folder = tmp_path_factory.mktemp("page")
    with socket.socket() as free, pytest.MonkeyPatch.context() as environment:
        free.bind(("127.0.0.1", 0))
        options = DemoOptions(model="tiny", port=free.getsockname()[1])
        free.close()
        environment.setenv("GRADIO_TEMP_DIR", str(folder))
        page, addresses = open_page(documents_readers, options, folder)
        yield addresses[0]
        page.close()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, address):
    """Opens the page as a new visitor; in the end nothing may have gone wrong in it or have come from elsewhere."""
    wrong, contexts = [], []

    def open_one():
        contexts.append(browser.new_context(viewport={"width": 1400, "height": 900}))
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: (wrong.append("a dialog"), dialog.dismiss()))
        page.on("request", lambda r: wrong.append(r.url) if not r.url.startswith((address, "data:", "blob:")) else None)
        page.goto(address)
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert wrong == []


def check_widths(page, name):
    """No width makes the page wider than its window, and no data became an element."""
    assert page.locator("img[src=x]").count() == 0
    for width in (400, 1400):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if folder := os.environ.get("AAG_SCREENSHOTS"):
            page.screenshot(path=Path(folder) / f"{name}_{width}.png", full_page=True)


def test_a_visitor_asks_reads_removes_and_runs_a_batch(visit, tmp_path):
    page, expect = visit(), sync_api.expect
    question = page.get_by_label("Question", exact=True)
    question.fill(QUESTION)
    question.press("Enter")
    expect(page.get_by_label("This did not work")).to_have_value(
        "this reader's adapter is made from a document: give it a text."
    )
    page.get_by_label("Text to answer from").fill(f"The capital of Nuvaria is Brel. {MARKUP}")
    question.press("Enter")
    expect(page.get_by_text("prompt tokens")).to_have_count(4)
    expect(page.get_by_label("This did not work")).to_have_count(0)
    expect(page.get_by_label("Written most strongly")).not_to_have_value("")
    expect(page.locator("img[src^='data:image/png']")).to_be_visible()
    check_widths(page, "ask")

    page.get_by_role("tab", name="Documents").click()
    page.get_by_label("Text", exact=True).fill(f"{MARKUP} is the capital.")
    page.get_by_role("button", name="Read").click()
    expect(page.get_by_role("radio")).to_have_count(1)
    (tmp_path / "ostmark.txt").write_text("Ostmark pays with the ost.")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Upload a text file").click()
    chooser.value.set_files(tmp_path / "ostmark.txt")
    expect(page.get_by_label("Text", exact=True)).to_have_value("Ostmark pays with the ost.")
    page.get_by_role("button", name="Read").click()
    expect(page.get_by_label("ostmark.txt · 26 tokens")).to_be_visible()
    page.get_by_label("Question about the documents").fill(QUESTION)
    page.get_by_label("Question about the documents").press("Enter")
    told = page.get_by_text("prompt tokens").filter(visible=True)
    expect(told).to_have_count(1)
    expect(told).to_contain_text("the text is hardly about this question")
    check_widths(page, "documents")
    page.get_by_role("button", name="Remove the chosen document").click()
    expect(page.get_by_role("radio")).to_have_count(1)
    expect(page.get_by_label("ostmark.txt · 26 tokens")).to_be_checked()

    page.get_by_role("tab", name="Batch").click()
    (tmp_path / "questions.jsonl").write_text(json.dumps({"question": MARKUP, "answers": ["Brel"]}))
    page.locator("input[type=file]").last.set_input_files(tmp_path / "questions.jsonl")
    expect(page.get_by_role("button", name="Clear")).to_be_visible()
    page.get_by_role("button", name="Answer all").click()
    download = page.get_by_role("button", name="Download the answers")
    expect(download).to_be_visible()
    assert "exact match" in page.get_by_label("Result").input_value()
    expect(page.get_by_text(MARKUP).filter(visible=True).first).to_be_visible()
    with page.expect_download() as saved:
        download.click()
    (row,) = map(json.loads, Path(saved.value.path()).read_text().splitlines())
    assert row["question"] == MARKUP and row["expected"] == ["Brel"]
    check_widths(page, "batch")


def test_visitors_do_not_see_each_others_documents(visit):
    one, other, expect = visit(), visit(), sync_api.expect
    for page in (one, other):
        page.get_by_role("tab", name="Documents").click()
    one.get_by_label("Text", exact=True).fill("The secret is Brel.")
    one.get_by_role("button", name="Read").click()
    expect(one.get_by_role("radio")).to_have_count(1)
    other.get_by_label("Question about the documents").fill("What is the secret?")
    other.get_by_role("button", name="Ask the memory").click()
    expect(other.get_by_label("This did not work")).to_have_value("no document is remembered: read one first.")
    expect(other.get_by_role("radio")).to_have_count(0)


def test_the_port_must_be_free(address, capsys):
    port = address.rstrip("/").rpartition(":")[2]
    assert main(["demo", "--model", "x", "--port", port]) == 2
    assert f"nothing can listen on host 127.0.0.1, port {port}" in capsys.readouterr().err
