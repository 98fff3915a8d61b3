"""``aag serve``: answers over HTTP, as the OpenAI API does."""

import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from aag_hf.awakening import AwakeningModel
from aag_hf.awakening.loading import saved_directory
from aag_hf.cli.arguments import parse_arguments
from aag_hf.cli.boundary import run_command
from aag_hf.cli.options import LoadingOptions
from aag_hf.cli.output import plain_console
from aag_hf.cli.processes import device, use_threads
from aag_hf.cli.stage import refuse_processes
from aag_hf.contents import content_of
from aag_hf.errors import InputError
from aag_hf.locks import locked
from aag_hf.serving.adapter_names import adapters_path

if TYPE_CHECKING:
    from aag_hf.serving.answering import Answerer
    from aag_hf.serving.batching import Workers

API_KEY = "AAG_API_KEY"
VLLM_API_KEY = "VLLM_API_KEY"
# Names of this machine that no other can ask.
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
SECONDS_TO_END = 5


@dataclass(kw_only=True)
class ServeOptions(LoadingOptions):
    """Options of ``aag serve``."""

    model: str = field(metadata={"help": "A saved model: directory or Hub id."})
    served_model_name: str | None = field(
        default=None, metadata={"help": "What clients call it. The default is the last part of model."}
    )
    host: str = field(
        default="127.0.0.1", metadata={"help": "Address to listen on; others than this machine's need api_key."}
    )
    port: int = field(default=8000, metadata={"help": "Port to listen on; 0 takes a free one."})
    api_key: str | None = field(
        default=None,
        metadata={"help": f"Key that clients must send. The environment's {API_KEY} is seen by fewer eyes."},
    )
    max_batch_size: int = field(default=16, metadata={"help": "The most questions that are answered together."})
    document_store_gb: float = field(
        default=1.0, metadata={"help": "The most memory that documents take; the least recently used leave first."}
    )
    vllm: str | None = field(
        default=None,
        metadata={"help": f"Address of a vLLM server that answers; {VLLM_API_KEY} of the environment is its key."},
    )
    adapters_gb: float = field(
        default=1.0,
        metadata={
            "help": "With vllm, the most that adapters take on the RAM disk; the least recently used leave first."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.api_key = self.api_key or os.environ.get(API_KEY) or None
        if self.api_key is None and not self.is_of_this_machine:
            raise InputError(f"host is {self.host}, where others may ask: set {API_KEY} or api_key, or leave host out.")

    @property
    def is_of_this_machine(self) -> bool:
        """Whether no other machine can reach the host."""
        try:
            return self.host in LOOPBACK or ip_address(self.host).is_loopback
        except ValueError:
            return False


def serve(options: ServeOptions) -> None:
    """Answer until the process is told to end.

    Raises:
        ModuleNotFoundError: A package is missing.
        InputError: The port is taken, no vLLM server answers, or the model cannot be loaded or served.
    """
    import uvicorn

    from aag_hf.serving.answering import Answerer
    from aag_hf.serving.app import make_app

    refuse_processes("serve")
    use_threads(options.threads)
    name = options.served_model_name or Path(options.model).resolve().name
    if options.vllm is not None:
        from aag_hf.serving.through_vllm import check_server

        check_server(options.vllm, os.environ.get(VLLM_API_KEY))
    with _listening(options.host, options.port) as listener:
        directory = saved_directory(options.model)
        answerer = Answerer(AwakeningModel.from_pretrained(directory, **options.loading_arguments()).to(device()))
        with _working(answerer, directory, options) as workers:
            app = make_app(
                answerer,
                workers,
                name,
                int(options.document_store_gb * 1e9),
                options.api_key,
                LOOPBACK | {options.host} if options.is_of_this_machine else None,
            )
            host, port = listener.getsockname()[:2]
            address = f"[{host}]" if ":" in host else host
            plain_console().print(f"http://{address}:{port}/v1 serves {name}; Ctrl-C ends it")
            sys.stdout.flush()
            config = uvicorn.Config(
                app, lifespan="off", log_level="warning", timeout_graceful_shutdown=SECONDS_TO_END, server_header=False
            )
            uvicorn.Server(config).run(sockets=[listener])


@contextmanager
def _working(answerer: "Answerer", directory: Path, options: ServeOptions) -> Iterator["Workers"]:
    """Those who answer: a thread here, or vLLM with the adapters that the thread makes."""
    from aag_hf.serving.batching import Batcher

    if options.vllm is None:
        with Batcher(answerer.work, options.max_batch_size) as batcher:
            yield batcher
        return
    from aag_hf.serving.adapter_folder import AdapterFolder
    from aag_hf.serving.preparing import Preparer
    from aag_hf.serving.through_vllm import VllmAnswers

    path = adapters_path()
    with locked(path):
        preparer = Preparer(answerer, AdapterFolder(path, int(options.adapters_gb * 1e9)), content_of(directory))
        with Batcher(preparer.work, options.max_batch_size) as batcher:
            yield VllmAnswers(options.vllm, preparer, batcher, os.environ.get(VLLM_API_KEY))


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens, taken before the model is loaded, so that a port in use is seen at once."""
    try:
        (family, *_), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise InputError(f"{host}:{port}: nothing can listen there ({error}): choose another host or port.") from None


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    (options,) = parse_arguments("serve", (ServeOptions,), argv)
    serve(options)


if __name__ == "__main__":
    sys.exit(run_command("serve", lambda: main(sys.argv[1:])))
