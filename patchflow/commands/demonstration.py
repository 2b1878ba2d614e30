"""`patchflow demo`."""

from argparse import Namespace

from patchflow import demo as demonstration
from patchflow.commands.settings import Settings


def demo(options: Namespace, settings: Settings) -> int:
    """Run the demonstration; 0 where it came to its end."""
    steps = {} if options.steps is None else {"steps": options.steps}
    return 0 if demonstration.run(options.folder, seed=options.seed, **steps) else 1
