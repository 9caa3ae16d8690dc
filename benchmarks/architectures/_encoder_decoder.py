"""A backbone and a head that makes class scores of its maps."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class EncoderDecoder(nn.Module):
    """The scores of the head, enlarged to the size of the image."""

    def __init__(self, backbone: nn.Module, decode_head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.decode_head = backbone, decode_head

    def forward(self, x: Tensor) -> Tensor:
        logits = self.decode_head(self.backbone(x))
        return F.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False)
