"""The parser of the command line, on jsonargparse: every command takes `--config` and the sections of `settings.py`."""

import dataclasses
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from patchflow.commands.arguments import COMMANDS, Command
from patchflow.commands.settings import Settings

SECTIONS = tuple(section.name for section in dataclasses.fields(Settings))
_GROUP = "build, describe or check a cache"
_SECTION_USAGE = "[--config FILE] [--SECTION.KEY VALUE ...]"
_OPEN = {"preprocess": list[Any] | str, "model": dict[str, Any] | None, "trainer": dict[str, Any] | None}
_HELP = {
    "preprocess": "steps, such as ZNormalize or 'Window(center=40, width=400)', in this order",
    "model": "a class_path and init_args; used by fit, validate and predict",
    "trainer": "arguments of lightning.Trainer; used by fit, validate and predict",
}


def make_parser(running: str | None) -> ArgumentParser:
    """The parser of all commands.

    Args:
        running: the command that will run, if it is known: model and trainer are made into objects for it, if it needs them. Others take
            them as they are, so that PyTorch and Lightning are imported only where they are used.
    """
    set_parsing_settings(add_print_completion_argument=True)
    parser = _new("Feeds 3D medical images to neural networks.")
    commands = parser.add_subcommands(required=True, dest="command")
    groups: dict[str, Any] = {"": commands}
    for name, command in COMMANDS.items():
        group, _, word = name.rpartition(" ")
        if group not in groups:
            parent = _new(_GROUP)
            commands.add_subcommand(group, parent, help=_GROUP)
            groups[group] = parent.add_subcommands(required=True, dest="subcommand")
        own = _command_parser(name, command, typed=command.runs_model and name == running)
        groups[group].add_subcommand(word, own, help=command.help)
    return parser


def _new(description: str) -> ArgumentParser:
    return ArgumentParser(prog="patchflow", description=description, exit_on_error=False, print_config=None, allow_abbrev=False)


def _command_parser(name: str, command: Command, typed: bool) -> ArgumentParser:
    parser = _new(f"{command.help[0].upper()}{command.help[1:]}.")
    words = [str(given.get("metavar", "")) for name, given in command.arguments.items() if not name.startswith("-")]
    own = [name for name in command.arguments if name.startswith("-")]
    parser.usage = " ".join(["patchflow", name, *(f"[{word}]" for word in words), *(f"[{option}]" for option in own), _SECTION_USAGE])
    for name, given in command.arguments.items():
        parser.add_argument(name, **given)
    parser.add_argument("--config", action="config", help="a YAML file with the sections below; configs/ holds examples")
    parser.add_argument("--print_config", action="store_true", help="print all sections as they are then, as YAML, and end")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    for section in dataclasses.fields(Settings):
        if section.name not in _OPEN:
            made: Any = section.default_factory
            parser.add_argument(f"--{section.name}", type=made, default=made())
        elif section.name == "preprocess" or not typed:
            default: Any = [] if section.name == "preprocess" else None
            parser.add_argument(f"--{section.name}", type=_OPEN[section.name], default=default, help=_HELP[section.name])
    if typed:
        if not {"", str(Path.cwd())} & set(sys.path):  # classes of the user's own are found where the command is run, as `python -m` does
            sys.path.insert(0, str(Path.cwd()))
        parser.add_subclass_arguments(import_module("torch.nn").Module, "model", required=False, help=_HELP["model"])
        parser.add_class_arguments(import_module("lightning").Trainer, "trainer", instantiate=False)
    return parser


def instantiate(parser: ArgumentParser, parsed: Namespace, name: str) -> Namespace:
    """What was parsed for a command, with objects in place of their descriptions; a network's first weights follow from patches.seed."""
    if COMMANDS[name].runs_model:
        import_module("lightning").seed_everything(part_of(parsed, name).patches.seed, verbose=False)
    made: Namespace = part_of(parser.instantiate(parsed), name)
    return made


def part_of(parsed: Any, name: str) -> Any:
    """What was parsed for a command."""
    for word in name.split():
        parsed = parsed[word]
    return parsed


def sections_text(parser: ArgumentParser, parsed: Namespace, name: str) -> str:
    """All sections of a parsed command as YAML that every command takes."""
    plain = part_of(yaml.safe_load(parser.dump(parsed)), name)
    text: str = yaml.safe_dump({section: plain.get(section) for section in SECTIONS}, sort_keys=False, allow_unicode=True)
    return text


def command_in(arguments: list[str]) -> str | None:
    """The command that a command line names, found without parsing it."""
    words = list(_leading_words(arguments))
    return next((name for name in (" ".join(words[:2]), " ".join(words[:1])) if name in COMMANDS), None)


def _leading_words(arguments: list[str]) -> Iterator[str]:
    for word in arguments:
        if word.startswith("-"):
            return
        yield word
