"""Preprocessing steps from text, as a command line or a YAML file holds them."""

import ast

from patchflow import preprocess
from patchflow.errors import ArgumentError, PatchflowError
from patchflow.preprocess.base import Step

_NO_STEPS = ("GridChange", "Pipeline", "Processed", "ProcessedSubject", "SpatialStep", "Step")


def step_from(text: str) -> Step:
    """A preprocessing step from its name, or from a call with literal arguments. Only literals are read: nothing is evaluated.

    `HistogramStandardize(landmarks="landmarks.json")` is the step saved in that file.
    """
    known = [name for name in preprocess.__all__ if name not in _NO_STEPS]
    try:
        tree = ast.parse(text, mode="eval").body
        name, keywords = (tree.func, tree.keywords) if isinstance(tree, ast.Call) and not tree.args else (tree, [])
        if not isinstance(name, ast.Name) or name.id not in known:
            raise ArgumentError(f"no preprocessing step {text!r}: there are {', '.join(known)}, such as Window(center=40, width=400)")
        fields = {str(word.arg): ast.literal_eval(word.value) for word in keywords}
        if name.id == "HistogramStandardize" and isinstance(fields.get("landmarks"), str) and len(fields) == 1:
            return preprocess.HistogramStandardize.load(fields["landmarks"])
        step: Step = getattr(preprocess, name.id)(**fields)
    except PatchflowError:
        raise
    except (TypeError, SyntaxError, ValueError) as error:
        raise ArgumentError(f"preprocessing step {text!r}: {error}") from error
    return step
