"""The command line: `patchflow COMMAND --config FILE --section.key value`; `patchflow --help` lists the commands.

An error that patchflow raises on purpose, or a command line or configuration that cannot be used, is one line on stderr and exit code 2;
`--debug` shows the traceback.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from patchflow.commands.arguments import COMMANDS
from patchflow.commands.configs import check_configs
from patchflow.commands.parser import SECTIONS, command_in, instantiate, make_parser, part_of, sections_text
from patchflow.commands.settings import Settings
from patchflow.errors import PatchflowError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 1 where something was found (check, cache verify), 2 for an error, 130 after Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(given)
    except (PatchflowError, argparse.ArgumentError) as error:
        if "--debug" in given:
            raise
        print(f"patchflow: error: {_one_line(error, given)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("patchflow: interrupted", file=sys.stderr)
        return 130


def _run(given: list[str]) -> int:
    name = command_in(given)
    parser = make_parser(name)
    check_configs(given)
    parsed = parser.parse_args(given)
    if name is None:
        raise argparse.ArgumentError(None, "name the command first: patchflow COMMAND ...; patchflow --help lists them")
    command = COMMANDS[name]
    if part_of(parsed, name).print_config:
        print(sections_text(parser, parsed, name), end="")
        return 0
    made = instantiate(parser, parsed, name)
    settings = Settings(**{section: made[section] for section in SECTIONS})
    options = argparse.Namespace(**{key: value for key, value in vars(made).items() if key not in SECTIONS})
    if command.place is not None:
        command.place(options, settings)
    module, function = command.home
    return int(getattr(import_module(f"patchflow.commands.{module}"), function)(options, settings))


def _one_line(error: Exception, given: Sequence[str]) -> str:
    """What went wrong as one line; of what jsonargparse refuses, with the configuration and a mend."""
    text = " ".join(str(error).split())
    if isinstance(error, PatchflowError):
        return text
    if "unrecognized arguments" in text:
        text += ": write the words before the options"
    command = command_in(list(given))
    return f"{text}; patchflow{f' {command}' if command else ''} --help shows what there is"


if __name__ == "__main__":
    sys.exit(main())
