"""Preprocessing steps from text or plain values, as a command line or a YAML file holds them."""

import ast
from collections.abc import Mapping
from typing import Any

from patchflow import preprocess
from patchflow.errors import ArgumentError, PatchflowError
from patchflow.preprocess.base import Step

_NO_STEPS = ("GridChange", "Pipeline", "Processed", "ProcessedSubject", "SpatialStep", "Step")


def step_from(given: Any) -> Step:
    """A preprocessing step from its name, a call with literal arguments, or a mapping of its name to its arguments.

        "ZNormalize", "Window(center=40, width=400)", {"Window": {"center": 40, "width": 400}}

    Of a text only literals are read: nothing is evaluated. `HistogramStandardize(landmarks="landmarks.json")` is the step saved there.

    Raises:
        ArgumentError: for a step or an argument that does not exist, or has another value than it may.
    """
    name, fields = _of_mapping(given) if isinstance(given, Mapping) else _of_text(str(given))
    known = [name for name in preprocess.__all__ if name not in _NO_STEPS]
    if name not in known:
        raise ArgumentError(f"no preprocessing step {given!r}: there are {', '.join(known)}, such as Window(center=40, width=400)")
    try:
        if name == "HistogramStandardize" and isinstance(fields.get("landmarks"), str) and len(fields) == 1:
            return preprocess.HistogramStandardize.load(fields["landmarks"])
        step: Step = getattr(preprocess, name)(**fields)
    except PatchflowError:
        raise
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"preprocessing step {given!r}: {error}") from error
    return step


def _of_mapping(given: Mapping[Any, Any]) -> tuple[Any, dict[str, Any]]:
    if len(given) != 1:
        raise ArgumentError(f"a preprocessing step is its name, or its name: {{arguments}}, not {dict(given)!r}")
    name, fields = next(iter(given.items()))
    if not isinstance(fields or {}, Mapping):
        raise ArgumentError(f"the arguments of {name} must be a mapping of names to values, not {fields!r}")
    return name, dict(fields or {})


def _of_text(text: str) -> tuple[Any, dict[str, Any]]:
    try:
        tree = ast.parse(text, mode="eval").body
        name, keywords = (tree.func, tree.keywords) if isinstance(tree, ast.Call) and not tree.args else (tree, [])
        fields = {str(word.arg): ast.literal_eval(word.value) for word in keywords}
    except (SyntaxError, ValueError) as error:
        raise ArgumentError(f"preprocessing step {text!r}: {error}") from error
    return name.id if isinstance(name, ast.Name) else None, fields
