"""The layout of the page. What it shows comes from the other files of this folder."""

from __future__ import annotations

import functools
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from aag_hf.awakening import AwakeningModel
from aag_hf.data.files import SUFFIXES
from aag_hf.demo import adapter, batch
from aag_hf.demo.documents import Documents, forget, memory_of, recall, remember
from aag_hf.demo.files import uploaded_text
from aag_hf.demo.readers import BASE, BASE_WITH_TEXT, OURS, STATIC, Readers, Reading
from aag_hf.errors import InputError
from aag_hf.markdown import in_code
from aag_hf.questions.relevance import LITTLE

# Seconds after which what a visitor left is deleted.
KEPT = 3600
# More rows than anybody reads on a page; the file has all.
ROWS = 200
# In pixels: with shares a narrow page would break words, where now the table is scrolled.
COLUMNS = {"question": "240px", "answer": "200px", "expected": "200px", "right": "80px"}
HOW: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal"}

logger = logging.getLogger(__name__)


def build_page(readers: Readers, folder: Path) -> gr.Blocks:
    """The page, ready to launch.

    Args:
        readers: What it asks.
        folder: Where files to download are written.
    """
    with gr.Blocks(title="aag-hf", analytics_enabled=False, delete_cache=(KEPT, KEPT)) as page:
        gr.Markdown(f"## Awakening Augmented Generation\n\n`{in_code(readers.name)}`")
        documents = gr.State((), time_to_live=KEPT)
        with gr.Tab("Ask"):
            _ask_tab(readers)
        with gr.Tab("Documents"):
            _documents_tab(readers, documents)
        with gr.Tab("Batch"):
            _batch_tab(readers, documents, folder)
    return page


def appearance() -> gr.Theme:
    """The theme. Its fonts are those of the visitor's machine, so that none is fetched; small print is dark enough."""
    theme = gr.themes.Default(
        primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    return theme.set(block_info_text_color="*neutral_600", block_info_text_color_dark="*neutral_300")


def _ask_tab(readers: Readers) -> None:
    question = gr.Textbox(label="Question", placeholder="What is the capital of Nuvaria?", autofocus=True)
    text = gr.Textbox(label="Text to answer from", info=_about_text(readers), lines=3, visible=readers.takes_text)
    button = gr.Button("Ask", variant="primary")
    error = _error()
    with gr.Row():
        answers = {
            name: gr.Textbox(label=name, interactive=False, visible=shown, min_width=240, placeholder="–")
            for name, shown in {
                BASE: readers.base is not None,
                BASE_WITH_TEXT: False,
                STATIC: readers.static is not None,
                OURS: True,
            }.items()
        }
    written = gr.Textbox(label="Written by the context generator", interactive=False, visible=False)
    norms = gr.Plot(show_label=False, format="png", visible=False)
    tokens = gr.HighlightedText(label="How strongly each token is written into the adapter", visible=False)
    most = gr.Textbox(label="Written most strongly", interactive=False, visible=False)

    def ask(asked: str | None, given: str | None) -> list[Any]:
        given = given or ""
        readings = readers.ask(asked or "", given)
        ours = readings[OURS]
        assert isinstance(ours, Reading)
        changes = readers.run(adapter.update_norms, readers.model, ours)
        pieces = []
        if readers.reads_documents and ours.memory is not None:
            pieces = readers.run(adapter.written_tokens, readers.model, given.strip() or ours.read)
        return [
            *(_shown(readings.get(name)) for name in answers),
            gr.update(value=ours.read, visible=ours.written),
            gr.update(value=adapter.heat_map(changes) if changes else None, visible=bool(changes)),
            gr.update(value=[piece for piece in pieces if piece[0]], visible=bool(pieces)),
            gr.update(value=", ".join(piece for piece, _ in adapter.strongest(pieces)), visible=bool(pieces)),
        ]

    outputs = [*answers.values(), written, norms, tokens, most]
    empty = [gr.update(value=None)] * len(answers) + [gr.update(value=None, visible=False)] * 4
    gr.on([button.click, question.submit], _told(ask, empty), [question, text], [*outputs, error], **HOW)


def _documents_tab(readers: Readers, documents: gr.State) -> None:
    if not readers.reads_documents:
        gr.Markdown(
            "This model's adapter is not made from documents. A model trained with "
            "`aag train --adapter_from document` remembers the texts that are read here."
        )
        return
    with gr.Row():
        with gr.Column(min_width=320):
            text = gr.Textbox(label="Text", lines=6, max_lines=12)
            with gr.Row():
                upload = gr.UploadButton("Upload a text file", file_types=["text"], min_width=140)
                add = gr.Button("Read", variant="primary", min_width=140)
        with gr.Column(min_width=320):
            remembered = gr.Radio([], label="Remembered documents", info="None of these texts is in the prompt.")
            remove = gr.Button("Remove the chosen document", interactive=False)
    error = _error()
    question = gr.Textbox(label="Question about the documents")
    button = gr.Button("Ask the memory", variant="primary")
    answer = gr.Textbox(label="Answer", interactive=False, placeholder="–")
    name = gr.State("")

    def fill(path: str) -> tuple[str, str]:
        found, content = uploaded_text(Path(path))
        return content, found

    def after(kept: Documents) -> list[Any]:
        choices = [(f"{document.name} · {document.tokens} tokens", document.name) for document in kept]
        chosen = kept[0].name if kept else None
        return [kept, gr.update(choices=choices, value=chosen), gr.update(interactive=bool(kept)), gr.update(value="")]

    def read(kept: Documents, content: str | None, called: str) -> list[Any]:
        return [*after(readers.run(remember, readers.model, kept, content or "", called)), "", ""]

    def ask(kept: Documents, asked: str | None) -> list[Any]:
        return [_shown(readers.run(recall, readers.model, kept, asked or ""))]

    list_outputs = [documents, remembered, remove, answer]
    upload.upload(_told(fill, [gr.skip()] * 2), upload, [text, name, error], **HOW)
    # A text that is changed by hand is no longer the file's.
    text.input(lambda: "", None, name, **HOW)
    add.click(_told(read, [gr.skip()] * 6), [documents, text, name], [*list_outputs, text, name, error], **HOW)
    remove.click(
        _told(lambda kept, chosen: after(forget(kept, chosen)), [gr.skip()] * 4),
        [documents, remembered],
        [*list_outputs, error],
        **HOW,
    )
    gr.on(
        [button.click, question.submit],
        _told(ask, [gr.update(value=None)]),
        [documents, question],
        [answer, error],
        **HOW,
    )


def _batch_tab(readers: Readers, documents: gr.State, folder: Path) -> None:
    upload = gr.File(
        label="Text with one question per line, or records",
        file_types=[batch.PLAIN, *SUFFIXES],
        height=140,
    )
    button = gr.Button("Answer all", variant="primary")
    error = _error()
    summary = gr.Textbox(label="Result", interactive=False, placeholder="–")
    table = gr.Dataframe(
        headers=list(COLUMNS),
        datatype="str",
        column_widths=list(COLUMNS.values()),
        interactive=False,
        wrap=True,
        label="Answers",
        visible=False,
    )
    download = gr.DownloadButton("Download the answers", visible=False)

    def answer(path: str | None, kept: Documents, progress: gr.Progress = gr.Progress()) -> list[Any]:  # noqa: B008
        if path is None:
            raise InputError("there is no file: choose one.")
        memory = memory_of(kept) if kept else None
        answered = batch.answer_file(
            readers, Path(path), memory, lambda done, count: progress((done, count), unit="questions")
        )
        target = Path(tempfile.mkdtemp(dir=folder)) / "answers.jsonl"
        batch.write_answers(answered, target)
        return [
            answered.told(),
            gr.update(value=[_cells(row) for row in answered.rows[:ROWS]], visible=True),
            gr.update(value=str(target), visible=True),
        ]

    nothing = [gr.update(value=None), gr.update(value=None, visible=False), gr.update(value=None, visible=False)]
    outputs = [summary, table, download, error]
    button.click(
        _told(answer, nothing), [upload, documents], outputs, api_visibility="private", show_progress_on=summary
    )


def _error() -> gr.Textbox:
    return gr.Textbox(label="This did not work", interactive=False, visible=False, elem_classes="error")


def _told(function: Callable[..., Any], instead: list[Any]) -> Callable[..., list[Any]]:
    """`function` with one more output, the message of its error; then its other outputs are those of `instead`."""

    @functools.wraps(function)
    def call(*args: Any) -> list[Any]:
        try:
            values = function(*args)
        except InputError as error:
            message = str(error)
        except Exception as error:
            logger.exception("the page met an error")
            message = f"Unexpected {type(error).__name__}: the log of the server tells more."
        else:
            return [*values, gr.update(value="", visible=False)]
        return [*instead, gr.update(value=message, visible=True)]

    return call


def _shown(reading: Reading | str | None) -> dict[str, Any]:
    if reading is None:
        return gr.update(value=None)
    if isinstance(reading, str):
        return gr.update(value=reading, info="cannot answer this")
    facts = [f"{reading.prompt_tokens} prompt tokens", f"{reading.seconds:.2f} s"]
    if reading.score is not None:
        facts.append(f"score {reading.score:.2f}")
    if reading.relevance is not None:
        hardly = " (the text is hardly about this question)" if reading.relevance < LITTLE else ""
        facts.append(f"relevance {reading.relevance:.2f}{hardly}")
    return gr.update(value=reading.answer, info=", ".join(facts), visible=True)


def _cells(row: dict[str, Any]) -> list[str]:
    right = {True: "yes", False: "no", None: ""}[row.get("right")]
    return [row["question"], row["answer"], " | ".join(row.get("expected", [])), right]


def _about_text(readers: Readers) -> str:
    if readers.reads_documents:
        use = "The model reads it once into its adapter."
    elif readers.model.config.fid:
        use = "The model reads it passage by passage, with an empty line between them."
    else:
        use = "The model reads it in its prompt."
    return f"{use} Left empty, the context generator writes one." if _writes(readers.model) else use


def _writes(model: AwakeningModel) -> bool:
    return model.generator is not None and not model.config.fid
