"""Faces of other trackers: `SummaryWriter` is TensorBoard's. Of wandb's, `import cupel` is one."""

from cupel.compat.tensorboard import SummaryWriter

__all__ = ["SummaryWriter"]
