"""The command `play`: a page on this machine to try a model on."""

from __future__ import annotations

import argparse

from tinyalpaca.console import deliver, require_output, warn

DESCRIPTION = """Open a page on this machine: write with a model, see why it wrote what it wrote.

Tokens are coloured by surprise; a click shows what might have come instead and where the model
looked. Of a run that is still training the page draws the curves, and takes better weights as they
come. The page answers to this machine only, and only at the address that is printed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, and where the page is."""
    parser.add_argument(
        "--checkpoint",
        default="runs/shakespeare",
        metavar="DIR",
        help="folder of a run or a model, or one of Hugging Face's (default: %(default)s)",
    )
    parser.add_argument(
        "--port", type=int, default=0, metavar="N", help="port of the page (default: a free one)"
    )
    parser.add_argument(
        "--no-browser", action="store_true", help="print the address and open no browser"
    )
    parser.add_argument(
        "--device", default="cpu", choices=("cpu", "gpu", "auto"), help="where to compute"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    import webbrowser

    from minigrad.device import choose_device
    from tinyalpaca.play import PlayServer
    from tinyalpaca.play.session import Session
    from tinyalpaca.runs.layout import CHECKPOINTS
    from tinyalpaca.training.metrics_file import METRICS

    require_output()
    if not 0 <= args.port < 1 << 16:
        raise ValueError(f"--port must be from 0 to 65535, it is {args.port}")
    session = Session(args.checkpoint, choose_device(args.device))
    try:
        session.generator()
    except FileNotFoundError:
        begun = (session.folder / METRICS).is_file() or (session.folder / CHECKPOINTS).is_dir()
        if not begun:  # no run that will have a model soon
            raise
        warn(f"{args.checkpoint} has no weights yet: they are taken as soon as there are some.")
    with PlayServer(session, args.port) as server:
        deliver(f"{server.address}\nCtrl-C ends it.")
        if not args.no_browser:
            webbrowser.open(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            warn("")
    return 0
