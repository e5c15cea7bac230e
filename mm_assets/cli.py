"""`mm`: parse, call, print.

What the commands do is in ``commands``, imported only for the command that was asked for, so that ``mm --help`` is
instant and ``mm drop`` never loads Dagster. Errors are one sentence on stderr: exit status 1 for a failed check, gate
or store, 2 for bad usage.
"""

import argparse
import functools
import importlib
import json
import logging
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from mm_assets.errors import MmError, UsageError
from mm_assets.identity.canonical import to_json
from mm_assets.operations.screen import Outcome, make_console
from mm_assets.settings import MAX_PARALLEL, MAX_SHARDS, clear_math_modes

FAILED = 1
BAD_USAGE = 2
INTERRUPTED = 130
MAX_HELP_WIDTH = 100

if TYPE_CHECKING:
    _Commands: TypeAlias = argparse._SubParsersAction[Any]  # pyright: ignore[reportPrivateUsage]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        args = build_parser().parse_args(given)
    except UsageError as error:
        return _fail(error, BAD_USAGE, as_json="--json" in given)
    logging.basicConfig(level=logging.INFO if args.verbose else logging.WARNING, format="%(levelname)s %(message)s")
    if not args.verbose:
        # Libraries warn developers; a user can do nothing about it.
        warnings.simplefilter("ignore")
    # A terminated command ends the workers it started, as an interrupted one does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # Before a command loads a library that would read them.
        clear_math_modes()
        outcome = _call(args)
    except MmError as error:
        return _fail(error, BAD_USAGE if isinstance(error, UsageError) else FAILED, as_json=args.json)
    except KeyboardInterrupt as error:
        sentence = "interrupted. Run the command again: what was committed is not computed twice."
        return _fail(error, INTERRUPTED, as_json=args.json, sentence=sentence)
    except BrokenPipeError:
        # The reader of our output (`mm ... | head`) is gone; the interpreter would complain again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        sentence = f"{error.filename or 'file'}: {error.strerror or error}."
        return _fail(error, FAILED, as_json=args.json, sentence=sentence)
    if args.json:
        print(json.dumps(to_json(outcome.result), ensure_ascii=False, sort_keys=True))
    return 0 if outcome.ok else FAILED


def _fail(error: BaseException, status: int, *, as_json: bool, sentence: str | None = None) -> int:
    """Says what went wrong: one sentence on stderr, and with ``--json`` one object on stdout."""
    text = sentence or str(error)
    print(f"mm: {text}", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": text, "class": type(error).__name__, "status": status}, ensure_ascii=False))
    return status


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are raised, so that ``--json`` holds for them too."""

    def error(self, message: str) -> NoReturn:
        """Raises what argparse would print.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"{message}. See `{self.prog} --help`.")


def _call(args: argparse.Namespace) -> Outcome:
    module, _, function = args.handler.partition(":")
    handler = getattr(importlib.import_module(f"mm_assets.commands.{module}"), function)
    return handler(args, make_console(to_stderr=args.json))


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = _Parser(prog="mm", description="From raw multimodal data in S3 to promoted models.", **_layout())
    parser.add_argument("--version", action="version", version=f"mm {metadata.version('mm-assets')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    demo = _command(commands, "demo", "demo:demo", "Build a real drop and run the whole pipeline on it.")
    demo.add_argument("--release", default="demo", metavar="R", help="name of the release (default: demo)")
    _add_drop(commands)
    _add_release(commands)
    _add_run(commands)
    _command(commands, "verify", "inspect:verify", "Re-hash every object that anything refers to.")
    trace = _command(commands, "trace", "inspect:trace", "Show where a sample went, or what a model was made from.")
    what = trace.add_mutually_exclusive_group(required=True)
    what.add_argument("--sample", metavar="ID", help="a sample: SOURCE/DROP/KEY, or KEY where it is unambiguous")
    what.add_argument("--model", metavar="REF", help="a release, a manifest digest, or production")
    events = _command(
        commands, "openlineage", "inspect:openlineage", "Write OpenLineage events of a release to a file."
    )
    events.add_argument("--release", required=True, metavar="R", help="an open release")
    events.add_argument("--output", required=True, type=Path, metavar="FILE", help="where to write, one event a line")
    explain = _command(commands, "explain", "inspect:explain", "Show why a sample is or is not in a release.")
    explain.add_argument("--release", required=True, metavar="R", help="an open release")
    explain.add_argument("--sample", required=True, metavar="ID", help="SOURCE/DROP/KEY, or KEY")
    train = _command(commands, "train", "train:train", "Train what the spec of a model says, apart from any release.")
    train.add_argument("--spec", required=True, metavar="FILE", help="spec.json of a model, or one changed by hand")
    train.add_argument("--output", required=True, metavar="DIR", help="a new folder for the model's files")
    replay = _command(commands, "replay", "replay:replay", "Train random segments of a model again, bit for bit.")
    replay.add_argument("model", metavar="MODEL", help="a release, a manifest digest, or production")
    replay.add_argument(
        "--segments", type=_count, default=3, metavar="K", help="segments between two checkpoints (default: 3)"
    )
    replay.add_argument("--seed", type=int, metavar="N", help="chooses the segments (default: a random one, printed)")
    replay.add_argument(
        "--world-size", type=_count, metavar="N", help="processes (default: MM_WORLD_SIZE); changes no bit"
    )
    bisect = _command(commands, "bisect", "replay:bisect", "Show why two models differ, and where first.")
    for name in ("first", "second"):
        bisect.add_argument(name, metavar="MODEL", help="a release, a manifest digest, or production")
    diff = _command(commands, "diff", "diff:diff", "Show two releases or models side by side.")
    for name in ("first", "second"):
        diff.add_argument(name, metavar="REF", help="a release, a manifest digest of a model, or production")
    diff.add_argument("--html", type=Path, metavar="FILE", help="also write one page with tables and charts")
    _add_rules(commands)
    _add_policy(commands)
    _add_encoder(commands)
    _add_deadletter(commands)
    adopt = _command(commands, "adopt", "adopt:adopt", "Prove that changed code makes the same bytes, on a sample.")
    adopt.add_argument("--asset", required=True, metavar="A", help="the asset whose code changed")
    adopt.add_argument(
        "--samples", type=_count, default=3, metavar="K", help="partitions to compute again (default: 3)"
    )
    _add_store(commands)
    ui = _command(commands, "ui", "ui:ui", "Serve the Dagster UI on this machine until Ctrl-C.")
    ui.add_argument("--port", type=int, default=3000, metavar="N", help="port on 127.0.0.1 (default: 3000)")
    return parser


def _count(text: str, maximum: int = MAX_PARALLEL) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= maximum:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 to {maximum}, got {text!r}")
    return int(text)


def _shards(text: str) -> int:
    return _count(text, MAX_SHARDS)


def _add_run(commands: "_Commands") -> None:
    run = _command(commands, "run", "run:run", "Materialize a release, or some stages of it, and check it.")
    run.add_argument("--release", required=True, metavar="R", help="an open release")
    run.add_argument(
        "--stage",
        metavar="S",
        action="append",
        default=[],
        help="a stage, such as features; may be repeated (default: all)",
    )
    run.add_argument("--force", action="store_true", help="compute again what is cached, and compare")
    run.add_argument(
        "--parallel", type=_count, metavar="N", help="shards at a time (default: MM_PARALLEL, or the number of cores)"
    )


def _add_drop(commands: "_Commands") -> None:
    family = _family(commands, "drop", "Make, check, push or register a delivery of raw data.")
    create = _command(family, "create", "drop:create", "Make a valid drop from a local folder: writes its drop.json.")
    create.add_argument("folder", type=Path, metavar="FOLDER", help="tars, or an index with files, or class folders")
    _add_delivery(create)
    check = _command(family, "check", "drop:check", "List every problem of a drop by file and line.")
    check.add_argument("folder", type=Path, metavar="FOLDER", help="a folder made by `mm drop create`")
    push = _command(family, "push", "drop:push", "Upload a drop to the store; its drop.json goes last.")
    push.add_argument("folder", type=Path, metavar="FOLDER", help="a folder made by `mm drop create`")
    register = _command(family, "register", "drop:register", "Make a drop of data in S3, which stay there.")
    register.add_argument("uri", metavar="S3_URI", help="s3://BUCKET/PREFIX of tars, or of an index with files")
    _add_delivery(register)
    register.add_argument(
        "--description", type=Path, metavar="FILE", help="a source.yaml (default: the one in the store)"
    )


def _add_delivery(command: argparse.ArgumentParser) -> None:
    command.add_argument("--source", required=True, metavar="S", help="name of the source system")
    command.add_argument("--drop", required=True, metavar="D", help="name of this delivery")
    command.add_argument("--index", metavar="FILE", help="the index, if it is not called index.* or metadata.*")


def _add_release(commands: "_Commands") -> None:
    family = _family(commands, "release", "Open, list and show dataset releases.")
    opened = _command(family, "open", "release:open_release", "Pin data, rules and a configuration as a new release.")
    opened.add_argument("--release", required=True, metavar="R", help="name of the new release")
    opened.add_argument("--drop", action="extend", nargs="+", metavar="S/D", help="a pushed drop")
    opened.add_argument("--data-of", metavar="R0", help="an experiment on the data of this release, by reference")
    opened.add_argument("--parent", metavar="R0", help="the release this one adds to")
    opened.add_argument(
        "--encoder",
        metavar="E",
        help="what embeds: bootstrap (classical descriptors), production (the towers of the model in production), or "
        "the name of an encoder of the store (default: bootstrap)",
    )
    opened.add_argument("--policy", metavar="P", help="curation policy (default: default, or that of R0)")
    opened.add_argument("--config", metavar="X", help="configuration (default: multimodal_cpu, or that of R0)")
    opened.add_argument("--exclude", action="extend", nargs="+", metavar="ID", help="samples to leave out (globs)")
    _command(family, "list", "release:list_all", "List every open release and its progress.")
    opened.add_argument("--use", metavar="PURPOSE", help="what it is for: refused unless its sources allow that")
    opened.add_argument("--shards", type=_shards, metavar="N", help="number of shards (default: from the drops' size)")
    named = _command(family, "evaluation", "release:name_evaluation", "Name a frozen release an evaluation set.")
    named.add_argument("--release", required=True, metavar="R", help="a frozen release, whose test split never trains")
    named.add_argument("--reason", required=True, metavar="TEXT", help="why")
    excluded = _command(family, "exclude", "release:exclude", "Leave samples out of an open release, on record.")
    excluded.add_argument("sample", nargs="+", metavar="ID", help="samples to leave out (globs)")
    excluded.add_argument("--release", required=True, metavar="R", help="an open release")
    excluded.add_argument("--reason", required=True, metavar="TEXT", help="why")
    show = _command(family, "show", "release:show", "Show what a release pins, its progress and its failures.")
    show.add_argument("release", metavar="R", help="an open release")


def _add_rules(commands: "_Commands") -> None:
    family = _family(commands, "rules", "Show or replace the rules that checks and gates are judged by.")
    shown = _command(family, "show", "rules:show", "Show the rules in force, and why they were replaced.")
    shown.add_argument("--release", required=True, metavar="R", help="an open release")
    replaced = _command(family, "set", "rules:replace", "Replace rules files of a release and record why.")
    replaced.add_argument("file", type=Path, nargs="+", metavar="FILE", help="a rules file, such as promotion.yaml")
    replaced.add_argument("--release", required=True, metavar="R", help="an open release")
    replaced.add_argument("--reason", required=True, metavar="TEXT", help="why")


def _add_policy(commands: "_Commands") -> None:
    family = _family(commands, "policy", "Show, add and try the curation policies of the store.")
    _command(family, "list", "policy:list_all", "List every policy and its versions.")
    shown = _command(family, "show", "policy:show", "Show the expressions of a policy by reason.")
    shown.add_argument("policy", metavar="P", help="NAME, or NAME@VERSION")
    added = _command(family, "add", "policy:add", "Add a policy file to the store as a new version.")
    added.add_argument("file", type=Path, metavar="FILE", help="a policy: NAME.sql, or YAML with a name and reasons")
    tried = _command(family, "try", "policy:try_on", "Show what a policy would do to a frozen release.")
    tried.add_argument("policy", metavar="FILE", help="a policy file, or the name of a policy of the store")
    tried.add_argument("--release", required=True, metavar="R", help="a frozen release")


def _add_encoder(commands: "_Commands") -> None:
    family = _family(commands, "encoder", "Add and list encoders with weights from elsewhere.")
    added = _command(family, "add", "encoder:add", "Store a model saved by transformers as an encoder.")
    added.add_argument("folder", type=Path, metavar="FOLDER", help="config.json, model.safetensors, and its processor")
    added.add_argument("--name", required=True, metavar="N", help="what releases call it")
    _command(family, "list", "encoder:list_all", "List what can embed a release.")


def _add_deadletter(commands: "_Commands") -> None:
    family = _family(commands, "deadletter", "Show and replay what a release rejected.")
    listed = _command(family, "list", "deadletter:list_all", "Count dead letters by reason, modality, source and drop.")
    shown = _command(family, "show", "deadletter:show", "Show a dead letter and where its bytes are.")
    shown.add_argument("letter", metavar="ID", help="SOURCE/DROP/KEY, KEY, a raw object, or a digest")
    replayed = _command(
        family, "replay", "deadletter:replay", "Compute the shards with dead letters again after a fix."
    )
    for command in (listed, shown, replayed):
        command.add_argument("--release", required=True, metavar="R", help="an open release")
    for command in (listed, replayed):
        command.add_argument("--reason", metavar="WORD", help="only letters of this reason")
        command.add_argument("--modality", metavar="M", help="only letters about this modality")
        command.add_argument("--source", metavar="S", help="only letters of this source")
    replayed.add_argument("--config", metavar="X", help="a configuration with other ceilings; needs --into")
    replayed.add_argument("--into", metavar="R2", help="a new release of the same data with that configuration")


def _add_store(commands: "_Commands") -> None:
    family = _family(commands, "store", "Control the embedded store of this home.")
    _command(family, "start", "store:start", "Start the embedded store; it stays up after this command.")
    _command(family, "stop", "store:stop", "Stop the embedded store; its data are kept.")
    _command(family, "env", "store:env", "Print the variables another program needs to use the store.")


def _family(commands: "_Commands", name: str, summary: str) -> "_Commands":
    family = commands.add_parser(name, help=summary, description=summary, **_layout())
    return family.add_subparsers(metavar="COMMAND", required=True)


def _command(commands: "_Commands", name: str, handler: str, summary: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=summary, description=summary, **_layout())
    command.add_argument("--json", action="store_true", help="end with one JSON object on stdout")
    command.add_argument("-v", "--verbose", action="store_true", help="log progress to stderr")
    command.set_defaults(handler=handler)
    return command


def _layout() -> dict[str, Any]:
    width = min(MAX_HELP_WIDTH, shutil.get_terminal_size((MAX_HELP_WIDTH, 24)).columns)
    formatter = functools.partial(argparse.HelpFormatter, max_help_position=28, width=width)
    return {"formatter_class": formatter, "allow_abbrev": False}


if __name__ == "__main__":
    sys.exit(main())
