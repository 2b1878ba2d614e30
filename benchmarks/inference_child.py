"""One contestant of `benchmarks.inference` in a process of its own: gets ready, then does one thing for each line that it is sent.

python -m benchmarks.inference_child NAME DATA SHAPE PATCH THREADS MODEL SETTING, where NAME "prepare" makes the data and ends. Lines:
"tune" finds the fastest setting; "time PRODUCT" predicts once and tells whole and model's seconds; "alone" calls the model with the same
windows and nothing else; "error" predicts logits and holds them against the input; "memory PRODUCT" predicts once and tells what the
process held before and the most since (VmRSS, and ru_maxrss). Each answer is a line of JSON.
"""

import itertools
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SMALL = 48
"""Voxels of the volume and, by thirds, of the windows with which all that is loaded late is loaded before anything is measured."""


class Contest:
    """A contestant with its model, ready to predict."""

    def __init__(self, name: str, data: Path, shape: str, patch: int, model: str, setting: int) -> None:
        from benchmarks.contestants.inference import material
        from benchmarks.contestants.inference.registry import ALL, TIGHT

        self._module, self._variant = (ALL | TIGHT)[name].load(), (ALL | TIGHT)[name].variant
        self.model = material.model(model)
        classes = int(model.partition(" ")[2] or 2)
        small = material.Material(data / f"{SMALL}x{SMALL}x{SMALL}", SMALL // 3, classes)
        self.material = material.Material(data / shape, patch, classes)
        self._predict = self._module.build(small, self._variant, self._module.SETTINGS[setting])
        for product in ("logits", "labels"):
            self.predict(product)
        self.use(setting)

    @property
    def settings(self) -> tuple[dict[str, Any], ...]:
        return tuple(self._module.SETTINGS)

    def use(self, setting: int) -> None:
        self._predict = self._module.build(self.material, self._variant, self.settings[setting])

    def predict(self, product: str) -> Any:
        self.model.reset()
        return self._predict(self.model, product)

    def time(self, product: str) -> dict[str, Any]:
        start = time.perf_counter()
        self.predict(product)
        whole = time.perf_counter() - start
        return {"whole": whole, "model": self.model.seconds, "calls": len(self.model.shapes)}

    def tune(self) -> dict[str, Any]:
        """The setting that is fastest to logits in its best of three goes, which take turns; it is used from now on."""
        choices = range(len(self.settings))
        seconds = {setting: float("inf") for setting in choices} if len(choices) > 1 else {}
        for setting in itertools.chain(*[seconds] * 3):
            self.use(setting)
            seconds[setting] = min(seconds[setting], self.time("logits")["whole"])
        best = min(seconds, key=seconds.__getitem__, default=0)
        self.use(best)
        return {"setting": best, "is": self.settings[best], "seconds": list(seconds.values())}

    def alone(self) -> dict[str, Any]:
        """The model's seconds for the batches of the last prediction, when nothing else happens."""
        import torch

        patch, image = self.material.patch, self.material.tensor
        corners = itertools.cycle(itertools.product(*(range(0, n - patch + 1, patch // 2) for n in image.shape[1:])))
        spent = 0.0
        with torch.inference_mode():
            for batch, *_ in list(self.model.shapes):
                windows = [image[:, i : i + patch, j : j + patch, k : k + patch] for i, j, k in itertools.islice(corners, batch)]
                x = torch.stack(windows)
                start = time.perf_counter()
                self.model.model(x)
                spent += time.perf_counter() - start
        return {"alone": spent}

    def error(self) -> dict[str, Any]:
        """The greatest distance of the stitched logits from what they were made of, relative to the input's range."""
        logits, image = self.predict("logits"), self.material.tensor
        assert tuple(logits.shape) == (2, *image.shape[1:]), f"logits are {tuple(logits.shape)}"
        worst = 0.0
        for i in range(image.shape[1]):
            plane = image[0, i]
            for channel, sign in enumerate((1, -1)):
                worst = max(worst, float((logits[channel, i].float() - sign * plane).abs().max()))
        return {"error": worst / float(image.max() - image.min())}

    def memory(self, product: str) -> dict[str, Any]:
        """Bytes resident before a prediction, and the most that ever were."""
        before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        Path("/proc/self/clear_refs").write_text("5")  # the most so far was that of getting ready
        made = self.predict(product)
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {"rss_before": before, "maxrss": most, "made": str(getattr(made, "shape", made))}


def main(name: str, data: Path, shape: str, patch: int, threads: int, model: str, setting: int) -> None:
    import torch

    from benchmarks.contestants.inference import material

    if name == "prepare":
        for each in (f"{SMALL}x{SMALL}x{SMALL}", shape):
            i, j, k = map(int, each.split("x"))
            material.prepare(data / each, (i, j, k))
        return
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    contest = Contest(name, data, shape, patch, model, setting)
    answers: dict[str, Callable[..., dict[str, Any]]] = {
        word: getattr(contest, word) for word in ("tune", "time", "alone", "error", "memory")
    }
    say(ready=True)
    for line in sys.stdin:
        word, *arguments = line.split()
        say(**answers[word](*arguments))


def say(**answer: object) -> None:
    print(json.dumps(answer), file=PIPE, flush=True)


if __name__ == "__main__":
    # Answers go through a pipe of their own: packages print on stdout what they like.
    PIPE = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    name, data, shape, patch, threads, model, setting = sys.argv[1:]
    main(name, Path(data), shape, int(patch), int(threads), model, int(setting))
