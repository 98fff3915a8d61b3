"""``aag demo``: a page on which a saved model is tried in the browser."""

import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from aag_hf.cli.arguments import parse_arguments
from aag_hf.cli.boundary import run_command
from aag_hf.cli.options import LoadingOptions
from aag_hf.cli.output import plain_console
from aag_hf.cli.processes import device, use_threads
from aag_hf.errors import InputError
from aag_hf.extras import named

if TYPE_CHECKING:
    from gradio import Blocks

    from aag_hf.demo.readers import Readers

LARGEST_FILE = "10mb"
VISITORS = 1000


@dataclass(kw_only=True)
class DemoOptions(LoadingOptions):
    """Options of ``aag demo``."""

    model: str = field(metadata={"help": "A saved model: directory or Hub id."})
    static_model: str | None = field(
        default=None, metadata={"help": "A saved reader to compare it with, such as a static LoRA."}
    )
    host: str = field(
        default="127.0.0.1",
        metadata={"help": "Address to listen on. By default only this machine reaches the page; 0.0.0.0 is for all."},
    )
    port: int = field(default=7860, metadata={"help": "Port to listen on."})
    share: bool = field(
        default=False,
        metadata={"help": "Also give the page a public address, through Gradio's server and a program it fetches."},
    )


def check(options: DemoOptions) -> None:
    """Refuse what would only fail once the model is loaded.

    Raises:
        ModuleNotFoundError: Gradio is not installed.
        InputError: Nothing can listen at the address.
    """
    if find_spec("gradio") is None:
        raise named(ModuleNotFoundError(name="gradio"))
    if options.port == 0:
        raise InputError("port is 0: expected 1 to 65535.")
    try:
        family, *_, address = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"nothing can listen on host {options.host}, port {options.port}: {reason}.") from None


def demo(options: DemoOptions) -> None:
    """Load the models and show the page until Ctrl-C or SIGTERM.

    Raises:
        InputError: See `check`, or a model cannot be loaded.
    """
    check(options)
    use_threads(options.threads)
    # By default it ends a process at once, and what visitors uploaded would stay.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with TemporaryDirectory(prefix="aag-demo-") as folder:
        # Gradio reads both while it is imported: uploads go where they are removed, and nobody is told of a start.
        os.environ["GRADIO_TEMP_DIR"] = folder
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        from aag_hf.demo.readers import Readers

        readers = Readers.from_pretrained(options.model, options.static_model, device(), **options.loading_arguments())
        page, addresses = open_page(readers, options, Path(folder))
        plain_console().print(f"{options.model}: {' and '.join(addresses)}; Ctrl-C ends it.")
        page.block_thread()


def open_page(readers: "Readers", options: DemoOptions, folder: Path) -> tuple["Blocks", list[str]]:
    """Serve the page from a thread of its own.

    Args:
        readers: What it asks.
        options: Where it listens.
        folder: For files to download.

    Returns:
        The page, and its addresses.
    """
    from aag_hf.demo.page import appearance, build_page

    page = build_page(readers, folder)
    _, address, public = page.launch(
        server_name=options.host,
        server_port=options.port,
        share=options.share,
        prevent_thread_lock=True,
        quiet=True,
        theme=appearance(),
        max_file_size=LARGEST_FILE,
        state_session_capacity=VISITORS,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
    )
    return page, [shown for shown in (address, public) if shown]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    (options,) = parse_arguments("demo", (DemoOptions,), argv)
    demo(options)


if __name__ == "__main__":
    sys.exit(run_command("demo", lambda: main(sys.argv[1:])))
