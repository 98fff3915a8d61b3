"""``aag serve``: answers over HTTP, as the OpenAI API does."""

import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from aag_hf.awakening import AwakeningModel
from aag_hf.cli.arguments import parse_arguments
from aag_hf.cli.boundary import run_command
from aag_hf.cli.options import LoadingOptions, device, refuse_processes, use_threads
from aag_hf.cli.output import plain_console
from aag_hf.errors import InputError

API_KEY = "AAG_API_KEY"
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
        InputError: The port is taken, or the model cannot be loaded or served.
    """
    import uvicorn

    from aag_hf.serving.answering import Answerer
    from aag_hf.serving.app import make_app
    from aag_hf.serving.batching import Batcher

    refuse_processes("serve")
    use_threads(options.threads)
    name = options.served_model_name or Path(options.model).resolve().name
    with _listening(options.host, options.port) as listener:
        model = AwakeningModel.from_pretrained(options.model, **options.loading_arguments()).to(device())
        answerer = Answerer(model)
        with Batcher(answerer.work, options.max_batch_size) as batcher:
            app = make_app(
                answerer,
                batcher,
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
