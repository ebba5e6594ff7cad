"""A page for completing pictures by hand: paint a hole, complete it, compare, download.

    python tools/web_demo.py [--checkpoint PATH] [--port 7860] [--max-side 1024] [--max-megabytes 20]

Needs Gradio (pip install -r requirements-web.txt; Python 3.10 or newer). Serves this machine alone unless --host says
otherwise, works without a network, asks nothing of one, and deletes uploads after an hour and at its end (Ctrl-C).
"""

# ruff: noqa: E402 (paddle comes before what imports it)
from __future__ import annotations

import argparse
import importlib
import logging
import os
import queue
import signal
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(1, str(PROJECT))

from utils.cli import UserError, friendly_errors, prepare_paddle

with friendly_errors():
    prepare_paddle()

import web_steps as steps

from tester import CHECKPOINT, Tester, find_checkpoint
from utils.config import TestConfig, load_config, run_folder
from utils.device import set_device
from utils.progress import warn
from utils.windows import MULTIPLE as LEAST_SIDE

CONFIG = "configs/test.yaml"  # names no run of one's own, so the released generator may stand in
LOOPBACK = "127.0.0.1"
WAITING = 8  # people in the queue; more are told that it is full


class MainThread:
    """Does in the main thread what the server's threads ask for, one thing after the other.

    Paddle works nowhere else: there Ctrl-C ends what it is doing, while a thread of the server would be torn down
    in the middle of it, which aborts the program.
    """

    def __init__(self) -> None:
        self.jobs: queue.Queue = queue.Queue()

    def call(self, work: Callable, *arguments: Any) -> Any:
        """For other threads: what `work` gives or raises; UserError if the program ends before."""
        future = Future()
        self.jobs.put((future, work, arguments))
        return future.result()

    def serve(self) -> None:
        """For the main thread, until KeyboardInterrupt."""
        while True:
            future, work, arguments = self.jobs.get()
            try:
                future.set_result(work(*arguments))
            except Exception as error:
                future.set_exception(error)
            except KeyboardInterrupt:
                future.set_exception(UserError("the program was stopped"))
                raise


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A page for completing pictures by hand.")
    parser.add_argument(
        "--checkpoint", default=CHECKPOINT, metavar="latest|released|PATH", help="default: %(default)s"
    )
    parser.add_argument("--config", default=CONFIG, help="whose run's latest (default: %(default)s)")
    parser.add_argument("--port", type=int, default=7860, help="default: %(default)s")
    parser.add_argument("--host", default=LOOPBACK, help="0.0.0.0 serves every machine (default: %(default)s)")
    parser.add_argument("--max-side", type=int, default=1024, metavar="N", help="work at N pixels (default: 1024)")
    parser.add_argument("--max-megabytes", type=int, default=20, metavar="N", help="of an upload (default: 20)")
    parser.add_argument("--device", choices=("cpu", "gpu"), help="default: the GPU if there is a usable one")
    args = parser.parse_args(argv)
    for option, value, low, high in (
        ("--port", args.port, 1, 65535),
        ("--max-side", args.max_side, LEAST_SIDE, 2**16),
        ("--max-megabytes", args.max_megabytes, 1, 10**4),
    ):
        if not low <= value <= high:
            raise UserError(f"{option} must be a whole number from {low} to {high}, not {value}")
    return args


def prepare_gradio(folder: str) -> None:
    """Imports it, told to keep its files in `folder` and to ask nothing of a network. UserError if it is absent."""
    os.environ["GRADIO_TEMP_DIR"] = folder
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_RUN_HISTORY"] = "False"
    # It asks itself whether it can be reached, which must not go through a proxy.
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), LOOPBACK, "localhost"]))
    try:
        importlib.import_module("gradio")
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        how = "pip install -r requirements-web.txt (needs Python 3.10 or newer)"
        raise UserError(f"gradio is not installed: {how}") from None


def serve(tester: Tester, args: argparse.Namespace, folder: str) -> None:
    """Until Ctrl-C or SIGTERM. UserError if the address cannot be had."""
    from web_page import STYLE, TEXTS, build_page  # imports gradio, which main has prepared

    # A browser that is closed in the middle of an upload is no defect of the program.
    logging.getLogger("uvicorn.error").addFilter(lambda record: "ClientDisconnect" not in str(record.exc_info))
    main_thread = MainThread()
    page = build_page(tester, args, folder, main_thread.call)
    page.queue(max_size=WAITING, default_concurrency_limit=1, api_open=False)
    try:
        page.launch(
            server_name=args.host, server_port=args.port, share=False, quiet=True, prevent_thread_lock=True,
            max_file_size=args.max_megabytes * steps.MEGABYTE, enable_monitoring=False, ssr_mode=False,
            i18n=TEXTS, css=STYLE,
        )  # fmt: skip
    except OSError:
        raise UserError(f"{args.host}:{args.port} cannot be served: choose another --port or --host") from None
    print(f"The page is at http://{args.host}:{args.port}; Ctrl-C stops it", flush=True)
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background jobs would ignore the first
        signal.signal(number, signal.default_int_handler)
    try:
        main_thread.serve()
    except KeyboardInterrupt:
        print("stopped")
    finally:
        page.close(verbose=False)


def main(argv: list[str] | None = None) -> int:
    with friendly_errors(), tempfile.TemporaryDirectory(prefix="web_demo_") as folder:
        args = parse_arguments(argv)
        prepare_gradio(folder)
        set_device(args.device)
        run = run_folder(load_config(args.config, TestConfig)) if args.checkpoint == "latest" else ""
        checkpoint = find_checkpoint(args.checkpoint, run, warn, fall_back=args.config == CONFIG)
        serve(Tester(checkpoint), args, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
