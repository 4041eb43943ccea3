"""The command line: options, and which command they belong to.

What it promises: misuse ends with status 2 and a line on stderr that says what to do; a pipe that
closes and Ctrl-C end it without a traceback; only the command that is run is imported, because a
help text must not wait for a DNS library.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Final

from gate import __version__
from gate.reason import GateError

JOBS: Final = 8
"""Checks at the same time, unless --jobs says otherwise; a destination never sees more than two."""
PORT: Final = 8080
MISUSE: Final = 2
INTERRUPTED: Final = 128 + signal.SIGINT
PIPE_CLOSED: Final = 128 + signal.SIGPIPE

Run = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status. Without `argv`: the process's arguments."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a character gets its code, not an exception.
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(argv)
    run: Run = options.run
    try:
        status = run(options)
        sys.stdout.flush()
        return status
    except GateError as error:
        sys.stderr.write(f"gate: {error}\n")
        return MISUSE
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # What is still buffered would fail once more when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gate", description="Tells a signup form whether an e-mail address can receive mail."
    )
    parser.add_argument("--version", action="version", version=f"gate {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Run, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        sub.set_defaults(run=run)
        return sub

    _add_config(command("serve", _serve, "answer checks over HTTP"))
    _add_check(command("check", _check, "check addresses; - reads them from standard input"))
    demo = command("demo", _demo, "serve with a practice mail world and a page to try")
    demo.add_argument("--port", type=int, default=PORT, metavar="N", help=f"default {PORT}")
    keys = command("keys", _keys, "make keys for a site")
    new = keys.add_subparsers(title="actions", metavar="ACTION", required=True)
    pair = new.add_parser("new", help="print a new pair and the settings that belong to it")
    pair.add_argument("--name", default="my site", help="name of the site, for you and the log")
    _add_doctor(command("doctor", _doctor, "say whether this gate is fit for the internet"))
    _add_webhooks(command("webhooks", _webhooks, "list or replay messages that nobody took"))
    _add_probing(command("probing", _probing, "stop asking mail servers, or go on"))
    _add_explain(command("explain-reply", _explain, "say what replies of mail servers mean"))
    file = command("store", _store, "mend the store's file")
    mend = file.add_subparsers(title="actions", metavar="ACTION", required=True)
    _add_config(mend.add_parser("recover", help="keep what a damaged file still holds"))
    rows = command("providers", _providers, "list what is known of providers, and what it is worth")
    _add_config(rows)
    rows.add_argument("--json", action="store_true", help="one JSON object a line")
    table = command("settings", _settings, "list every setting, its default and its meaning")
    _add_config(table)
    table.add_argument(
        "--check", action="store_true", help="say whether those in use are good, and list nothing"
    )
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", metavar="FILE", help="settings; else $GATE_CONFIG, else ./gate.toml"
    )


def _add_check(parser: argparse.ArgumentParser) -> None:
    _add_config(parser)
    parser.add_argument("address", nargs="+", metavar="ADDRESS")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "--jobs", type=int, default=JOBS, metavar="N", help=f"checks at once; default {JOBS}"
    )
    parser.add_argument("--timeout-ms", type=int, metavar="N", help="longest time of one check")
    parser.add_argument("--explain", action="store_true", help="add timed steps and the dialogue")


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    _add_config(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="one check; may be repeated"
    )
    parser.add_argument("--timeout", type=float, metavar="S", help="seconds for all checks")
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="HOST",
        help="mail domain or IP address to greet on port 25, instead of the big ones",
    )
    parser.add_argument(
        "--send-test", metavar="ADDRESS", help="send one message to this address of yours"
    )
    parser.add_argument("--all", action="store_true", help="--send-test from each egress address")


def _add_webhooks(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="print what was given up, the newest first")
    again = actions.add_parser("replay", help="deliver them after all")
    again.add_argument("id", nargs="*", metavar="ID", help="as list prints it; none: all")
    for action, name in ((listing, "list"), (again, "replay")):
        action.set_defaults(action=name)
        _add_config(action)


def _add_probing(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    off = actions.add_parser("off", help="ask no mail server from now on, restarts included")
    on = actions.add_parser("on", help="ask again")
    status = actions.add_parser("status", help="say how things stand; exit 1 while it is off")
    for action, name in ((off, "off"), (on, "on"), (status, "status")):
        action.set_defaults(action=name)
        _add_config(action)
    for action in (off, on):
        action.add_argument("--why", default="", metavar="TEXT", help="shown to whoever asks later")


def _add_explain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "reply", nargs="*", metavar="REPLY", help="a raw reply; none: read standard input"
    )
    parser.add_argument("--stage", default="rcpt", help="what was answered; default rcpt")
    parser.add_argument("--provider", metavar="NAME", help="a name of providers.toml")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def _serve(options: argparse.Namespace) -> int:
    from gate.cli.serving import serve

    return serve(options.config)


def _demo(options: argparse.Namespace) -> int:
    from gate.cli.serving import demo

    return demo(options.port)


def _check(options: argparse.Namespace) -> int:
    from gate.cli.check import run

    return run(options)


def _keys(options: argparse.Namespace) -> int:
    from gate.cli.printing import new_pair

    sys.stdout.write(new_pair(options.name))
    return 0


def _providers(options: argparse.Namespace) -> int:
    from gate.cli.providers import run

    return run(options)


def _settings(options: argparse.Namespace) -> int:
    from gate.cli.printing import settings_table
    from gate.settings.read import load

    if options.check:
        load(options.config, os.environ)
        sys.stdout.write("the settings are good\n")
    else:
        sys.stdout.write(settings_table())
    return 0


def _webhooks(options: argparse.Namespace) -> int:
    from gate.cli.webhooks import run

    return run(options)


def _store(options: argparse.Namespace) -> int:
    from gate.cli.store import run

    return run(options)


def _doctor(options: argparse.Namespace) -> int:
    from gate.cli.doctor import run

    return run(options)


def _probing(options: argparse.Namespace) -> int:
    from gate.cli.probing import run

    return run(options)


def _explain(options: argparse.Namespace) -> int:
    from gate.cli.explain import run

    return run(options)
