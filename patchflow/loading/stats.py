"""Where the time of a queue goes, counted while it runs."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class QueueStats:
    """What a queue has done so far.

    Attributes:
        patches, batches: handed over to the consumer.
        stages: seconds of all workers together in each stage of making patches: "draw" (location and parameters), "read", "spatial", and
            each transform by its class name.
        collate: seconds that the consumer's thread took to put finished batches together.
        starved: seconds that the consumer waited for a batch.
        consumer: seconds between handing one batch over and being asked for the next.
        ready: the sum, over batches, of finished patches waiting when the consumer asked.
        drawn: how often the sampler aimed at each label (None: at no label).
        workers: number of workers; 0 means that the consumer's thread makes patches.
    """

    workers: int = 0
    patches: int = 0
    batches: int = 0
    stages: dict[str, float] = field(default_factory=dict)
    collate: float = 0.0
    starved: float = 0.0
    consumer: float = 0.0
    ready: int = 0
    drawn: Counter[int | None] = field(default_factory=Counter)

    def add_patch(self, nanoseconds: Mapping[str, int], target: int | None) -> None:
        """Count one finished patch."""
        for stage, spent in nanoseconds.items():
            self.stages[stage] = self.stages.get(stage, 0.0) + spent * 1e-9
        self.drawn[target] += 1

    @property
    def elapsed(self) -> float:
        """Seconds of the consumer's thread, in the queue and between batches."""
        return self.collate + self.starved + self.consumer

    @property
    def patches_per_second(self) -> float:
        """Patches handed over per second of elapsed time."""
        return self.patches / self.elapsed if self.elapsed else 0.0

    @property
    def queue_depth(self) -> float:
        """Finished patches waiting when the consumer asked for a batch, on average."""
        return self.ready / self.batches if self.batches else 0.0

    @property
    def class_shares(self) -> dict[int, float]:
        """The share of patches drawn at each label, of those for which the sampler aimed at a label."""
        aimed = {label: count for label, count in self.drawn.items() if label is not None}
        return {label: count / sum(aimed.values()) for label, count in sorted(aimed.items())}

    @property
    def bottleneck(self) -> str:
        """What the run waits for: the consumer (the network), or the costliest stage of making patches."""
        if not self.batches:
            return "nothing has run yet"
        if self.starved < 0.05 * self.elapsed:
            return f"the consumer: batches waited for it, and it waited for them only {self.starved / self.elapsed:.0%} of the time"
        making = sum(self.stages.values()) or 1.0
        stage, spent = max(self.stages.items(), key=lambda item: item[1], default=("read", 0.0))
        waited = self.starved / self.elapsed
        return f"making patches: the consumer waited {waited:.0%} of the time, and {spent / making:.0%} of making is {stage}"

    def __str__(self) -> str:
        lines = [f"{self.patches} patches in {self.batches} batches, {self.patches_per_second:.1f} patches/s, {self.workers} workers"]
        lines += [f"  {stage:<24}{spent:9.3f} s" for stage, spent in sorted(self.stages.items(), key=lambda item: -item[1])]
        lines += [f"  {'collate':<24}{self.collate:9.3f} s", f"  {'waiting for a batch':<24}{self.starved:9.3f} s"]
        lines += [f"  {'waiting for the consumer':<24}{self.consumer:9.3f} s", f"  queue depth {self.queue_depth:.1f} patches"]
        if self.class_shares:
            lines.append("  drawn at labels: " + ", ".join(f"{label}: {share:.1%}" for label, share in self.class_shares.items()))
        return "\n".join([*lines, f"  bottleneck: {self.bottleneck}"])
