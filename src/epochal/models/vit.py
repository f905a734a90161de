"""Vision Transformer: an image as a sequence of patches, read by a Transformer encoder as words are.

Dosovitskiy et al.: An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale, 2020 (arXiv 2010.11929).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from epochal.core.checks import OnlyWith, check_choice, check_fraction, check_heads, check_sizes
from epochal.core.specs import Classes, Images
from epochal.models.common.attention import FeedForward, MultiHeadAttention
from epochal.models.common.layers import choose_input, evaluating
from epochal.models.common.old_names import BLOCKS

# B and L are the paper's; Ti and S are of Touvron et al. 2020 (arXiv 2012.12877), who trained on ImageNet alone.
# With 16x16 patches of 224x224 pixels and 1,000 classes: 5.7, 22.1, 86.6 and 304.3 million parameters.
# Mini is ours, for small images on a CPU: 0.7 million with 32x32 pixels and 10 classes
VARIANTS = {
    "Mini": {"embed_dim": 96, "depth": 6, "num_heads": 4},
    "Ti": {"embed_dim": 192, "depth": 12, "num_heads": 3},
    "S": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "B": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "L": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
}
PATCH_SIZES = {"imagenet": 16, "small": 4}  # pixels, where none is given


class Block(nn.Module):
    """Self-attention and an MLP, each with pre-normalisation, a residual connection and stochastic depth."""

    def __init__(self, *, embed_dim: int, num_heads: int, dropout: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.attention = MultiHeadAttention(embed_dim=embed_dim, num_heads=num_heads)
        self.norm2 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.mlp = FeedForward(embed_dim=embed_dim, feedforward_dim=4 * embed_dim, activation=F.gelu, dropout=dropout)
        self.dropout = nn.Dropout(dropout)
        self.drop_path = drop_path

    def forward(self, x: Tensor, *, causal: bool, maps: list[Tensor] | None) -> Tensor:  # (B, T, C) -> (B, T, C)
        x = x + self._drop_path(self.dropout(self.attention(self.norm1(x), causal=causal, maps=maps)))
        return x + self._drop_path(self.dropout(self.mlp(self.norm2(x))))

    def _drop_path(self, x: Tensor) -> Tensor:
        """Stochastic depth: in training zero for a fraction of the images, scaled up for the others."""
        if not self.training or not self.drop_path:
            return x
        kept = torch.rand(len(x), 1, 1, device=x.device) >= self.drop_path
        return x * kept / (1 - self.drop_path)


class ViT(nn.Module):
    """Vision Transformer: linear patch embedding, position embeddings, pre-norm encoder blocks, layer norm, and a head.

        224x224    16x16 patches -> 14x14 tokens (196, embed_dim) -> depth blocks -> class token or mean -> classes
        32x32        4x4 patches ->  8x8  tokens  (64, embed_dim) -> the same

    With num_classes it classifies. Without, it predicts the pixels of each patch, for pretraining: of masked patches
    (Xie et al. 2021, SimMIM, arXiv 2111.09886) or of the next patch (Chen et al. 2020, iGPT; El-Nouby et al. 2024, AIM,
    arXiv 2401.08541). The parameters that both have in common have the same names; `head_parameters` are the prefixes of the
    others. The class token is for classification only: pretraining has none.

    The small form differs from the published one only in its patches: 4x4 pixels where no patch_size is given.

    Initialisation as in the paper: Xavier-uniform weights, zero biases, the patch embedding with standard deviation
    1 / sqrt(inputs), positions and tokens from N(0, 0.02). Deviations from the paper: the class head starts from
    N(0, 0.02), not zero; stochastic depth, which came with Touvron et al. 2020; one linear layer as head also in
    pretraining on ImageNet.

    Args:
        image_shape: (C, H, W) of an input.
        num_classes: Number of logits; None predicts pixels.
        variant: Row of VARIANTS: "Mini", "Ti", "S", "B" or "L".
        embed_dim, depth, num_heads: Instead of the variant's: width C of the embeddings, number of blocks, attention
            heads of a block, which must divide embed_dim.
        input: "imagenet" or "small": the default patch size, 16 or 4.
        patch_size: Side of a patch in pixels; must divide height and width of the image.
        pool: Input of the class head: the output of the "class" token, or the "mean" of the patches' outputs.
        positions: "learned", or "sincos": fixed sines and cosines of row and column.
        dropout: Fraction zeroed in training, of embeddings and after each linear layer except that of query, key and
            value.
        stochastic_depth: Fraction of the images that skip the last block in training; it grows linearly from 0 at the
            first.

    Raises:
        ValueError: If a size is below 1, an argument none of its choices, num_heads does not divide embed_dim or
            patch_size the image (the message says what would), embed_dim is no multiple of 4 with sincos, dropout or
            stochastic_depth is not in [0, 1), or pretraining would have one patch only.
    """

    heads: ClassVar[tuple[str, ...]] = ("classes", "patches")
    reads: ClassVar[tuple[type, ...]] = (Images,)
    only_with: ClassVar = {"input": (OnlyWith("patch_size", (None,)),)}
    head_parameters: ClassVar[tuple[str, ...]] = ("head.", "class_token", "class_position", "pixels.", "mask_token")
    renamed_keys: ClassVar[tuple[tuple[str, str], ...]] = BLOCKS
    torchvision_keys: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"^conv_proj\.", "embed."),
        (r"^encoder\.pos_embedding$", "positions"),  # with the class token's as first; reshape_torchvision takes it out
        (r"^encoder\.ln\.", "norm."),
        (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
        (r"\.ln_(\d)\.", r".norm\1."),
        (r"\.self_attention\.in_proj_", ".attention.qkv."),
        (r"\.self_attention\.out_proj\.", ".attention.proj."),
        (r"\.mlp\.0\.", ".mlp.fc1."),
        (r"\.mlp\.3\.", ".mlp.fc2."),
        (r"^heads\.head\.", "head."),
    )

    def __init__(
        self,
        *,
        image_shape: tuple[int, int, int],
        num_classes: int | None = None,
        variant: str = "B",
        embed_dim: int | None = None,
        depth: int | None = None,
        num_heads: int | None = None,
        input: str = "imagenet",
        patch_size: int | None = None,
        pool: str = "class",
        positions: str = "learned",
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
    ) -> None:
        super().__init__()
        check_choice("variant", variant, tuple(VARIANTS))
        check_choice("input", input, tuple(PATCH_SIZES))
        check_choice("pool", pool, ("class", "mean"))
        check_choice("positions", positions, ("learned", "sincos"))
        given = {"embed_dim": embed_dim, "depth": depth, "num_heads": num_heads}
        sizes = {name: VARIANTS[variant][name] if size is None else size for name, size in given.items()}
        patch_size = PATCH_SIZES[input] if patch_size is None else patch_size
        check_arguments(image_shape, patch_size, positions, sizes)
        check_fraction("dropout", dropout)
        check_fraction("stochastic_depth", stochastic_depth)
        channels, height, width = image_shape
        self.patch_size = patch_size
        self.grid = (height // patch_size, width // patch_size)  # rows and columns of patches
        self._classifies = num_classes is not None
        self.has_class_token = self._classifies and pool == "class"
        self._sizes = sizes
        self._learned = positions == "learned"

        self.embed = nn.Conv2d(channels, sizes["embed_dim"], patch_size, stride=patch_size)
        if self._learned:
            self.positions = nn.Parameter(torch.empty(1, math.prod(self.grid), sizes["embed_dim"]))
        else:
            self.register_buffer("positions", sincos(self.grid, sizes["embed_dim"]), persistent=False)
        self.dropout = nn.Dropout(dropout)
        rates = [stochastic_depth * i / max(sizes["depth"] - 1, 1) for i in range(sizes["depth"])]
        self.blocks = nn.ModuleList(
            Block(embed_dim=sizes["embed_dim"], num_heads=sizes["num_heads"], dropout=dropout, drop_path=rate)
            for rate in rates
        )
        self.norm = nn.LayerNorm(sizes["embed_dim"], eps=1e-6)
        if num_classes is None:
            self._add_pixel_head(sizes["embed_dim"], channels * patch_size**2)
        else:
            self._add_class_head(sizes["embed_dim"], num_classes)
        self._initialise()

    def _add_pixel_head(self, embed_dim: int, pixels: int) -> None:
        if math.prod(self.grid) == 1:
            raise ValueError(f"patch_size={self.patch_size} makes one patch of the image, and none to predict it from.")
        self.mask_token = nn.Parameter(torch.empty(1, 1, embed_dim))  # in the place of a hidden patch
        self.pixels = nn.Linear(embed_dim, pixels)

    def _add_class_head(self, embed_dim: int, num_classes: int) -> None:
        check_sizes(num_classes=num_classes)
        if self.has_class_token:
            self.class_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        if self.has_class_token and self._learned:
            self.class_position = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.head = nn.Linear(embed_dim, num_classes)

    @classmethod
    def for_data(cls, inputs: Images, outputs: Classes | Images, *, input: str = "auto", **config: Any) -> ViT:
        return cls(
            image_shape=(inputs.channels, inputs.height, inputs.width),
            num_classes=outputs.count if isinstance(outputs, Classes) else None,
            input=choose_input(input, inputs),
            **config,
        )

    def _initialise(self) -> None:
        for name, parameter in self.named_parameters():
            if name.startswith(("positions", "class_", "mask_", "head.weight")):
                nn.init.normal_(parameter, std=0.02)
            elif name == "embed.weight":
                nn.init.trunc_normal_(parameter, std=1 / math.sqrt(parameter[0].numel()))
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif "qkv" in name:  # three square matrices in one
                nn.init.uniform_(parameter, -math.sqrt(3 / parameter.shape[1]), math.sqrt(3 / parameter.shape[1]))
            elif parameter.dim() == 2:
                nn.init.xavier_uniform_(parameter)

    def forward(self, images: Tensor, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """(B, C, H, W) -> logits (B, num_classes), or the pixels of N patches, row by row, (B, N, C * P * P).

        Args:
            images: Of the image_shape that was given.
            mask: In pretraining: True for the patches (B, N) that are hidden.
            causal: In pretraining: each patch is predicted from those before it, the first from none.
        """
        x = self._read(images, mask=mask, causal=causal)
        if not self._classifies:
            return self.pixels(x)
        return self.head(x[:, 0] if self.has_class_token else x.mean(dim=1))

    def _read(
        self,
        images: Tensor,
        *,
        mask: Tensor | None = None,
        causal: bool = False,
        maps: list[Tensor] | None = None,
    ) -> Tensor:  # (B, C, H, W) -> (B, T, C)
        x = self.embed(images).flatten(2).transpose(1, 2)  # (B, N, C)
        if mask is not None:
            x = torch.where(mask[..., None], self.mask_token, x)
        x = x + self.positions
        if causal:  # the input at t is patch t - 1; the last patch predicts nothing
            x = torch.cat((self.mask_token.expand(x.shape[0], -1, -1), x[:, :-1]), dim=1)
        elif self.has_class_token:
            token = self.class_token + self.class_position if self._learned else self.class_token
            x = torch.cat((token.expand(x.shape[0], -1, -1), x), dim=1)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, causal=causal, maps=maps)
        return self.norm(x)

    def patches(self, images: Tensor) -> Tensor:  # (B, C, H, W) -> (B, N, C * P * P)
        """The pixels of each patch, the patches row by row."""
        return F.unfold(images, self.patch_size, stride=self.patch_size).transpose(1, 2)

    def assemble(self, patches: Tensor) -> Tensor:  # (B, N, C * P * P) -> (B, C, H, W)
        """The inverse of `patches`."""
        sides = (self.grid[0] * self.patch_size, self.grid[1] * self.patch_size)
        return F.fold(patches.transpose(1, 2), sides, self.patch_size, stride=self.patch_size)

    def stages(self) -> dict[str, nn.Module]:
        """Only the patch embedding has feature maps; for the blocks see `attention_maps`."""
        return {"patches": self.embed}

    @torch.no_grad()
    def attention_maps(self, images: Tensor) -> list[Tensor]:  # (B, C, H, W) -> depth times (B, heads, T, T)
        """Attention weights of each block, from each token (row) to each (column); a class token comes first."""
        maps: list[Tensor] = []
        with evaluating(self):
            self._read(images, maps=maps)
        return maps

    def rollout(self, images: Tensor) -> Tensor:  # (B, C, H, W) -> (B, rows, columns)
        """The contribution of each patch to the class head's input, see `attention_rollout`."""
        return attention_rollout(self.attention_maps(images), self.grid)

    @property
    def torchvision_name(self) -> str | None:
        letter = next((name.lower() for name in ("B", "L") if VARIANTS[name] == self._sizes), None)
        published = letter and self.patch_size in (16, 32) and self._learned and self.has_class_token
        return f"vit_{letter}_{self.patch_size}" if published else None

    def reshape_torchvision(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Splits the class token's position from the others; resizes those where the grid of patches is another.

        By bicubic interpolation, as the paper does for images of higher resolution (section 3.2).
        """
        position, rest = state["positions"].split((1, state["positions"].shape[1] - 1), dim=1)
        side = math.isqrt(rest.shape[1])
        if (side, side) != self.grid:
            rest = rest.transpose(1, 2).unflatten(2, (side, side))  # (1, C, side, side)
            rest = F.interpolate(rest, self.grid, mode="bicubic", antialias=True).flatten(2).transpose(1, 2)
        return {**state, "class_position": position, "positions": rest}


def check_arguments(image_shape: tuple[int, int, int], patch_size: int, positions: str, sizes: dict[str, int]) -> None:
    """Raise ValueError unless the patches cover the image and the embedding can be divided as it has to."""
    channels, height, width = image_shape
    embed_dim = sizes["embed_dim"]
    check_sizes(channels=channels, height=height, width=width, **sizes, patch_size=patch_size)
    check_heads(sizes["num_heads"], embed_dim)
    if positions == "sincos" and embed_dim % 4:
        raise ValueError(f"positions=sincos needs an embed_dim that is a multiple of 4, not {embed_dim}.")
    if height % patch_size or width % patch_size:
        side = math.gcd(height, width)
        fitting = ", ".join(str(size) for size in range(1, side + 1) if side % size == 0)
        raise ValueError(
            f"patch_size={patch_size} does not divide {height}x{width} pixels; {fitting} do{'es' * (side == 1)}, "
            f"or take dataset.image_size={max(min(height, width) // patch_size, 1) * patch_size}."
        )


def sincos(grid: tuple[int, int], embed_dim: int) -> Tensor:  # -> (1, rows * columns, embed_dim)
    """Two-dimensional sinusoidal positional encodings: one half of the channels encodes the row, the other the column.

    Each half as in Vaswani et al. 2017; in a ViT first by Chen et al. 2021 (MoCo v3, arXiv 2104.02057).
    """
    rows, columns = torch.meshgrid(*(torch.arange(side, dtype=torch.float32) for side in grid), indexing="ij")
    frequencies = 10_000 ** -(torch.arange(embed_dim // 4) / (embed_dim // 4))
    angles = torch.stack((rows, columns), dim=2).flatten(0, 1)[:, :, None] * frequencies  # (N, 2, C / 4)
    return torch.cat((angles.sin(), angles.cos()), dim=2).flatten(1)[None]


def attention_rollout(maps: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:  # -> (B, rows, columns)
    """Attention rollout: the contribution of each patch to the class head's input, over all blocks.

    Each block is taken as the mean of its attention weights, averaged over the heads, and the identity, which stands
    for the residual connection; these matrices are multiplied (Abnar & Zuidema 2020, arXiv 2005.00928).

    Args:
        maps: From `ViT.attention_maps`.
        grid: Rows and columns of patches; one token more than that is a class token.

    Returns:
        Not negative; sums to 1 over the patches, or to less with a class token, which contributes too.
    """
    flow = identity = torch.eye(maps[0].shape[-1], device=maps[0].device, dtype=maps[0].dtype)
    for weights in maps:
        flow = (weights.mean(dim=1) + identity) / 2 @ flow  # (B, T, T)
    patches = math.prod(grid)
    read = flow[:, 0, 1:] if flow.shape[-1] > patches else flow.mean(dim=1)
    return read.unflatten(1, grid)
