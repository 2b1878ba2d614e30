"""Drawn parameters in words that fit beneath a picture."""

from collections.abc import Collection, Mapping
from typing import Any

_HIDDEN = {"key", "keys", "seed"}
"""Numbers that mean nothing to a reader: keys of counter-based generators."""
_NEUTRAL = {"scales": 1.0, "degrees": 0.0, "translation": 0.0, "shear": 0.0, "factor": 1.0, "shift": 0.0, "mean": 0.0}
"""Values with which a parameter changes nothing: it is left out."""
_WORDS = {"degrees": "rotation", "max_displacement": "up to"}
_UNITS = {"degrees": "°", "shear": "°", "translation": " mm", "max_displacement": " mm"}
_LONGEST = 4
"""Numbers of a list that are written out."""


def told(parameters: Mapping[str, Any], image: str, images: Collection[str]) -> list[str]:
    """What was drawn for a patch, a short text for each transform that changes it.

    Args:
        parameters: from `Recipe.draw`.
        image: the image that is looked at; what was drawn for other images alone is left out.
        images: names of all images of the subject.
    """
    texts = []
    for step in parameters["steps"]:
        values = step["parameters"]
        if isinstance(values, Mapping) and values.keys() <= set(images):
            values = values.get(image)  # an intensity transform draws by image
        if values is None:
            continue
        name = str(step["transform"]).removeprefix("Random")
        if isinstance(values, list):
            each = [f"channel {number}: {_settings(part)}" for number, part in enumerate(values) if part is not None]
            if not each:
                continue
            text = _settings(values[0]) if len(values) == 1 else "; ".join(each)
        else:
            text = _settings(values)
        texts.append(f"{name} {text.removeprefix(f'{name.lower()} ')}".strip())  # "Gamma 0.8", not "Gamma gamma 0.8"
    return texts


def _settings(values: Mapping[str, Any]) -> str:
    parts = []
    for key, value in values.items():
        if key in _HIDDEN or value is None or value is False or _is_neutral(key, value):
            continue
        word = _WORDS.get(key, key.replace("_", " "))
        if value is True:
            parts.append(word)
        elif key in ("axis", "axes"):
            parts.append("along " + " ".join("IJK"[axis] for axis in (value if isinstance(value, (list, tuple)) else [value])))
        else:
            parts.append(f"{word} {_value(value)}{_UNITS.get(key, '')}")
    return ", ".join(parts)


def _is_neutral(key: str, value: Any) -> bool:
    numbers = value if isinstance(value, (list, tuple)) else [value]
    return key in _NEUTRAL and all(isinstance(number, (int, float)) and number == _NEUTRAL[key] for number in numbers)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"({_settings(value)})"
    if isinstance(value, (list, tuple)):
        if len(value) > 1 and all(part == value[0] for part in value) and not isinstance(value[0], (list, tuple, Mapping)):
            return _value(value[0])
        if len(value) > _LONGEST:
            return " / ".join([*map(_value, value[: _LONGEST - 1]), f"… ({len(value)})"])
        return " / ".join(f"({_value(part)})" if isinstance(part, (list, tuple)) else _value(part) for part in value)
    if isinstance(value, float):
        short = f"{value:.3g}" if abs(value) >= 0.0005 or value == 0 else f"{value:.1e}"
        return short.replace("-", "−")
    return str(value).replace("-", "−") if isinstance(value, int) else str(value)
