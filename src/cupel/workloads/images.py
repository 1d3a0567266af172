"""The images workload: a model, a ResNet or one's own, that learns the classes of images.

Composition only: images are `cupel.data`, models are `cupel.models`. Importing this file does not
import torch; `build` does. Evaluations are plain cross-entropy whatever `label_smoothing` is.

Batch normalisation takes its means from the images of one forward pass: of one rank's share, and
of one micro-step's. So with it, unlike with a GPT, `train.accumulate` and the number of ranks
change numbers by more than the order of sums.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

from cupel import registry
from cupel.errors import UsageError
from cupel.randomness import Streams
from cupel.workloads.settings import ImagesSettings

if TYPE_CHECKING:
    from torch import Tensor

    from cupel.data.images import ImageSet

Batch = tuple["Tensor", "Tensor"]
_AT_ONCE = 512  # images of an evaluation in one forward pass


class ImagesWorkload:
    """Classification. Batches are cut from epochs, a pure function of (seed, step)."""

    Settings = ImagesSettings
    unit = "images"

    def __init__(
        self, settings: ImagesSettings, *, model: Any, images: ImageSet, seed: int
    ) -> None:
        from cupel.data.images import ImageBatches

        self.settings, self.model, self.images = settings, model, images
        self._batches = ImageBatches(images, batch=settings.data.batch, seed=seed)
        self.units_per_step = settings.data.batch

    @classmethod
    def build(cls, settings: ImagesSettings, *, seed: int) -> Self:
        """Images and a freshly initialised model, on the CPU."""
        import torch

        from cupel.data.digits import load_digits

        images = load_digits(settings.data)
        torch.default_generator.manual_seed(Streams(seed).key("init"))
        chosen = fitted(settings.model, channels=images.channels, classes=images.classes)
        model = registry.resolve("model", chosen.kind)(chosen)
        return cls(settings, model=model, images=images, seed=seed)

    def stateful(self) -> dict[str, Any]:
        """Nothing: running means of a normalisation are buffers of the model."""
        return {}

    def batch(self, step: int, *, part: tuple[int, int] = (0, 1)) -> Batch:
        """Standardised images (B, C, H, W) of float32, and labels (B,) of int64."""
        import torch

        x_BCHW, y_B = self._batches.batch(step, part=part)
        return torch.from_numpy(x_BCHW), torch.from_numpy(y_B)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
        """Mean cross-entropy in nats, smoothed as set, and `acc`: the share that is right."""
        from torch.nn import functional as F

        x_BCHW, y_B = batch
        logits_BK = self.model(x_BCHW).float()
        loss = F.cross_entropy(logits_BK, y_B, label_smoothing=self.settings.label_smoothing)
        return loss, {"acc": (logits_BK.detach().argmax(dim=1) == y_B).float().mean()}

    def evaluate(self) -> dict[str, float]:
        """Over the whole validation set: cross-entropy in nats, and the share that is right."""
        from torch.nn import functional as F

        total, right = 0.0, 0
        for x_BCHW, y_B in self._validation():
            logits_BK = self.model(x_BCHW).float()
            total += float(F.cross_entropy(logits_BK, y_B, reduction="sum"))
            right += int((logits_BK.argmax(dim=1) == y_B).sum())
        count = len(self.images.val)
        return {"val_loss": total / count, "val_acc": right / count}

    def describe(self) -> dict[str, Any]:
        """What the record keeps about the data: hash, sizes, split, mean and deviation."""
        return self.images.describe()

    def _validation(self) -> Iterator[Batch]:
        import torch

        device = next(self.model.parameters()).device
        for begin in range(0, len(self.images.val), _AT_ONCE):
            x_BCHW, y_B = self.images.take(self.images.val[begin : begin + _AT_ONCE])
            yield torch.from_numpy(x_BCHW).to(device), torch.from_numpy(y_B).to(device)


def fitted(settings: Any, *, channels: int, classes: int) -> Any:
    """The model's settings with channels and classes filled in from the data, where not set.

    Raises UsageError for other channels than the data has, and for fewer classes.
    """
    if settings.channels_in not in (None, channels):
        raise UsageError(
            f"model.channels_in is {settings.channels_in}, but the images have {channels}; leave "
            f"it out, or set it to {channels}"
        )
    if settings.classes is not None and settings.classes < classes:
        raise UsageError(
            f"model.classes is {settings.classes}, but the data has {classes}; leave it out, or "
            f"set it to {classes} or more"
        )
    filled = {"channels_in": channels, "classes": settings.classes or classes}
    return settings.model_copy(update=filled)
