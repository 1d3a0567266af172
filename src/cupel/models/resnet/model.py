"""A ResNet for small images (He et al., arXiv:1512.03385 v1), in its form for CIFAR.

- a stem of one 3×3 convolution, no max-pool; basic blocks (section 3.1, figure 5 left: two 3×3
  convolutions), a stage after the first begins with stride 2; mean over height and width; linear
  head
- where a block changes shape, its shortcut is a 1×1 convolution (option B of the paper). The
  paper's own nets for CIFAR pad with zeros (option A) and are narrower (section 4.2); this is the
  net that is called ResNet-18 for CIFAR, of 11,173,962 parameters with 10 classes
- batch normalisation after every convolution, which then has no bias; or none, with a bias. Its
  running means are buffers, so they are in the part `model` of every checkpoint
- convolutions drawn from N(0, 2 / fan_in) (He et al., arXiv:1502.01852 v1, eq. 10), the head, which
  no ReLU follows, from N(0, 1 / fan_in), biases 0, gains 1. All are drawn from torch's global
  generator: the caller seeds it. Without normalisation nothing damps the sum of a block's two
  branches, so a deep net's activations grow with depth at the start

Parameters, with I channels in, stages of width W_1 … W_S, N blocks a stage, K classes, and c = 2
with normalisation (gain and shift) or 1 without (bias):
    9·I·W_1 + c·W_1 stem
    + for each block from A to W channels: 9·A·W + 9·W² + 2·c·W, and A·W + c·W for a 1×1 shortcut
    + W_S·K + K head

Shapes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cupel.models.resnet.settings import ResNetModelSettings


class Convolution(nn.Module):
    """A convolution that keeps height and width (or halves them), and its normalisation."""

    def __init__(
        self, channels_in: int, channels: int, *, size: int, stride: int, normed: bool
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            channels_in, channels, size, stride=stride, padding=size // 2, bias=not normed
        )
        self.norm = nn.BatchNorm2d(channels) if normed else nn.Identity()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W), without a ReLU."""
        y_BCHW: Tensor = self.norm(self.conv(x_BCHW))
        return y_BCHW


class Block(nn.Module):
    """Two 3×3 convolutions whose result is added to the input, or to a 1×1 convolution of it."""

    def __init__(self, channels_in: int, channels: int, *, stride: int, normed: bool) -> None:
        super().__init__()
        self.first = Convolution(channels_in, channels, size=3, stride=stride, normed=normed)
        self.second = Convolution(channels, channels, size=3, stride=1, normed=normed)
        same = stride == 1 and channels_in == channels
        self.shortcut = (
            nn.Identity()
            if same
            else Convolution(channels_in, channels, size=1, stride=stride, normed=normed)
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The block's output behind its last ReLU, (B, C, H, W)."""
        y_BCHW = self.second(F.relu(self.first(x_BCHW)))
        return F.relu(y_BCHW + self.shortcut(x_BCHW))


class ResNet(nn.Module):
    """The whole model. `settings.channels_in` and `settings.classes` must be numbers by now: the
    caller asks the data."""

    def __init__(self, settings: ResNetModelSettings) -> None:
        super().__init__()
        assert settings.channels_in is not None, "fill in settings.channels_in from the data"
        assert settings.classes is not None, "fill in settings.classes from the data"
        self.settings = settings
        widths, normed = settings.widths, settings.norm == "batch"
        self.stem = Convolution(settings.channels_in, widths[0], size=3, stride=1, normed=normed)
        self.stages = nn.ModuleList()
        channels = widths[0]
        for stage, width in enumerate(widths):
            blocks = nn.Sequential()
            for block in range(settings.blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(Block(channels, width, stride=stride, normed=normed))
                channels = width
            self.stages.append(blocks)
        self.head = nn.Linear(channels, settings.classes)
        self._draw_weights()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits (B, K) of standardised images (B, C, H, W)."""
        x_BCHW = F.relu(self.stem(x_BCHW))
        for blocks in self.stages:
            x_BCHW = blocks(x_BCHW)
        logits_BK: Tensor = self.head(x_BCHW.mean(dim=(2, 3)))
        return logits_BK

    @torch.no_grad()
    def _draw_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
            else:
                continue  # a normalisation begins with gain 1 and shift 0
            if module.bias is not None:
                nn.init.zeros_(module.bias)
