"""Vision Transformer: an image as a sequence of patches, each as a word, read by the Transformer's encoder.

Dosovitskiy et al.: An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale, 2020 (arXiv 2010.11929).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from epochal.core.specs import Classes, Images
from epochal.models.common.layers import check_choice, check_dropout, check_sizes, choose_input

# B and L are the paper's; Ti and S are of Touvron et al. 2020 (arXiv 2012.12877), who learnt from ImageNet alone.
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


class Attention(nn.Module):
    """Every token looks at all tokens, with num_heads independent looks; causal: at itself and those before it."""

    def __init__(self, *, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query_key_value = nn.Linear(embed_dim, 3 * embed_dim)
        self.out = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Tensor, *, causal: bool, maps: list[Tensor] | None) -> Tensor:  # (B, T, C) -> (B, T, C)
        query, key, value = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, T, C / heads)
            for part in self.query_key_value(x).chunk(3, dim=-1)
        )
        if maps is not None:
            scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[3])
            future = torch.ones_like(scores, dtype=torch.bool).triu(1) & causal
            maps.append(scores.masked_fill(future, -math.inf).softmax(dim=3))
        looks = F.scaled_dot_product_attention(query, key, value, is_causal=causal)
        return self.out(looks.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention between the tokens, then a perceptron in each; both add to the residual stream, if not skipped."""

    def __init__(self, *, embed_dim: int, num_heads: int, dropout: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.attention = Attention(embed_dim=embed_dim, num_heads=num_heads)
        self.norm2 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.widen = nn.Linear(embed_dim, 4 * embed_dim)
        self.narrow = nn.Linear(4 * embed_dim, embed_dim)
        self.dropout = nn.Dropout(dropout)
        self.drop_path = drop_path

    def forward(self, x: Tensor, *, causal: bool, maps: list[Tensor] | None) -> Tensor:  # (B, T, C) -> (B, T, C)
        x = x + self._skip(self.dropout(self.attention(self.norm1(x), causal=causal, maps=maps)))
        inner = self.dropout(F.gelu(self.widen(self.norm2(x))))
        return x + self._skip(self.dropout(self.narrow(inner)))

    def _skip(self, x: Tensor) -> Tensor:
        """Stochastic depth: zero for a share of the images, in training; the others make up for it."""
        if not self.training or not self.drop_path:
            return x
        kept = torch.rand(len(x), 1, 1, device=x.device) >= self.drop_path
        return x * kept / (1 - self.drop_path)


class ViT(nn.Module):
    """Vision Transformer: patches embedded linearly, positions added, pre-norm encoder blocks, norm, and a head.

        224x224    16x16 patches -> 14x14 tokens (196, embed_dim) -> depth blocks -> class token or mean -> classes
        32x32        4x4 patches ->  8x8  tokens  (64, embed_dim) -> the same

    With num_classes it classifies. Without, it predicts the pixels of each patch, as the pretraining tasks want it: of
    masked patches (Xie et al. 2021, SimMIM, arXiv 2111.09886) or of the next one (Chen et al. 2020, iGPT; El-Nouby et
    al. 2024, AIM, arXiv 2401.08541). What both uses share has the same names in both; `heads` are the beginnings of the
    names that one use has for itself. The class token is of classification only: pretraining has none.

    The small form differs from the published one in its patches alone: 4x4 pixels where no patch_size is given.

    Weights start as in the paper: Xavier's uniform ones, biases zero, patches embedded with deviation 1 / sqrt(inputs),
    positions and tokens from N(0, 0.02). Deviations from the paper: the class head starts from N(0, 0.02), not zero;
    stochastic depth, which came with Touvron et al. 2020; one linear layer as head in pretraining on ImageNet too.

    Args:
        image_shape: (C, H, W) of an input.
        num_classes: Length of the output; None predicts pixels.
        variant: Row of VARIANTS: "Mini", "Ti", "S", "B" or "L".
        embed_dim, depth, num_heads: Instead of the variant's: numbers in the vector of a token, blocks, attention heads
            of a block, which must divide embed_dim.
        input: "imagenet" or "small": decides the patch size where none is given, 16 or 4.
        patch_size: Side of a patch in pixels; must divide both sides of the image.
        pool: What the class head reads: "class", the output of a token of its own, or "mean" of the patches' outputs.
        positions: "learned", or "sincos": sines and cosines of row and column, which are not learnt.
        dropout: Share zeroed in training, of embeddings and after each linear layer but those of query, key and value.
        stochastic_depth: Share of the images for which the last block is left out in training; earlier ones less.

    Raises:
        ValueError: If a size is below 1, a choice is none, num_heads does not divide embed_dim or patch_size the image
            (the message says what would), embed_dim is no multiple of 4 with sincos, a share is not in [0, 1), or
            there is only one patch and no class to tell.
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification", "next_patch", "masked_patch")
    reads: ClassVar[tuple[type, ...]] = (Images,)
    heads: ClassVar[tuple[str, ...]] = ("head.", "class_token", "class_position", "pixels.", "mask_token")
    torchvision_keys: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"^conv_proj\.", "embed."),
        (r"^encoder\.pos_embedding$", "positions"),  # with the class token's as first; reshape_torchvision takes it out
        (r"^encoder\.ln\.", "norm."),
        (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
        (r"\.ln_(\d)\.", r".norm\1."),
        (r"\.self_attention\.in_proj_", ".attention.query_key_value."),
        (r"\.self_attention\.out_proj\.", ".attention.out."),
        (r"\.mlp\.0\.", ".widen."),
        (r"\.mlp\.3\.", ".narrow."),
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
        embed_dim = VARIANTS[variant]["embed_dim"] if embed_dim is None else embed_dim
        depth = VARIANTS[variant]["depth"] if depth is None else depth
        num_heads = VARIANTS[variant]["num_heads"] if num_heads is None else num_heads
        patch_size = PATCH_SIZES[input] if patch_size is None else patch_size
        channels, height, width = image_shape
        check_sizes(channels=channels, height=height, width=width)
        check_sizes(embed_dim=embed_dim, depth=depth, num_heads=num_heads, patch_size=patch_size)
        check_dropout(dropout)
        if not 0 <= stochastic_depth < 1:
            raise ValueError(f"stochastic_depth={stochastic_depth} must be at least 0 and below 1.")
        if embed_dim % num_heads:
            raise ValueError(f"num_heads={num_heads} does not divide embed_dim={embed_dim}.")
        if positions == "sincos" and embed_dim % 4:
            raise ValueError(f"positions=sincos needs an embed_dim that is a multiple of 4, not {embed_dim}.")
        if height % patch_size or width % patch_size:
            side = math.gcd(height, width)
            fitting = ", ".join(str(size) for size in range(1, side + 1) if side % size == 0)
            raise ValueError(
                f"patch_size={patch_size} does not divide {height}x{width} pixels; {fitting} do{'es' * (side == 1)}, "
                f"or take dataset.image_size={max(min(height, width) // patch_size, 1) * patch_size}."
            )
        self.patch_size = patch_size
        self.grid = (height // patch_size, width // patch_size)  # rows and columns of patches
        count = math.prod(self.grid)
        self.has_class_token = num_classes is not None and pool == "class"
        self._sizes = {"embed_dim": embed_dim, "depth": depth, "num_heads": num_heads}
        self._learned = positions == "learned"

        self.embed = nn.Conv2d(channels, embed_dim, patch_size, stride=patch_size)
        if self._learned:
            self.positions = nn.Parameter(torch.empty(1, count, embed_dim))
        else:
            self.register_buffer("positions", sincos(self.grid, embed_dim), persistent=False)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(
                embed_dim=embed_dim,
                num_heads=num_heads,
                dropout=dropout,
                drop_path=stochastic_depth * i / max(depth - 1, 1),
            )
            for i in range(depth)
        )
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        if num_classes is None:
            if count == 1:
                raise ValueError(f"patch_size={patch_size} makes one patch of the image, and none to predict it from.")
            self.mask_token = nn.Parameter(torch.empty(1, 1, embed_dim))  # for a patch that is not shown
            self.pixels = nn.Linear(embed_dim, channels * patch_size**2)
        else:
            check_sizes(num_classes=num_classes)
            if self.has_class_token:
                self.class_token = nn.Parameter(torch.empty(1, 1, embed_dim))
            if self.has_class_token and self._learned:
                self.class_position = nn.Parameter(torch.empty(1, 1, embed_dim))
            self.head = nn.Linear(embed_dim, num_classes)
        self._initialise()

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
            elif "query_key_value" in name:  # three layers in one
                nn.init.uniform_(parameter, -math.sqrt(3 / parameter.shape[1]), math.sqrt(3 / parameter.shape[1]))
            elif parameter.dim() == 2:
                nn.init.xavier_uniform_(parameter)

    def forward(self, images: Tensor, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """(B, C, H, W) to logits (B, num_classes), or to the pixels of the N patches, row by row, (B, N, C * P * P).

        Args:
            images: Of the shape that it was made for.
            mask: Without num_classes only: True for the patches (B, N) that are hidden.
            causal: Without num_classes only: each patch is predicted from the ones before it, the first from none.
        """
        x = self._read(images, mask=mask, causal=causal)
        if hasattr(self, "pixels"):
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
        if causal:  # the token at t holds patch t - 1; nothing follows the last patch
            x = torch.cat((self.mask_token.expand(len(x), -1, -1), x[:, :-1]), dim=1)
        elif self.has_class_token:
            token = self.class_token + self.class_position if self._learned else self.class_token
            x = torch.cat((token.expand(len(x), -1, -1), x), dim=1)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, causal=causal, maps=maps)
        return self.norm(x)

    def patches(self, images: Tensor) -> Tensor:  # (B, C, H, W) -> (B, N, C * P * P)
        """The pixels of each patch, row by row."""
        return F.unfold(images, self.patch_size, stride=self.patch_size).transpose(1, 2)

    def assemble(self, patches: Tensor) -> Tensor:  # (B, N, C * P * P) -> (B, C, H, W)
        """The image that the patches make: undoes `patches`."""
        sides = (self.grid[0] * self.patch_size, self.grid[1] * self.patch_size)
        return F.fold(patches.transpose(1, 2), sides, self.patch_size, stride=self.patch_size)

    def stages(self) -> dict[str, nn.Module]:
        """The embedding of the patches alone has feature maps; what the blocks do, `attention_maps` shows."""
        return {"patches": self.embed}

    @torch.no_grad()
    def attention_maps(self, images: Tensor) -> list[Tensor]:  # (B, C, H, W) -> depth times (B, heads, T, T)
        """How much each token (row) looks at each (column), block by block; the class token, if any, is the first."""
        maps: list[Tensor] = []
        was_training = self.training
        self.eval()
        self._read(images, maps=maps)
        self.train(was_training)
        return maps

    def rollout(self, images: Tensor) -> Tensor:  # (B, C, H, W) -> (B, rows, columns)
        """How much of each patch reaches the class head, see `attention_rollout`."""
        return attention_rollout(self.attention_maps(images), self.grid)

    @property
    def torchvision_name(self) -> str | None:
        letter = next((name.lower() for name in ("B", "L") if VARIANTS[name] == self._sizes), None)
        published = letter and self.patch_size in (16, 32) and self._learned and self.has_class_token
        return f"vit_{letter}_{self.patch_size}" if published else None

    def reshape_torchvision(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Takes the class token's position out of torchvision's; for another grid of patches the others are resized.

        That is the paper's way to finer images (section 3.2), there and here by bicubic interpolation.
        """
        position, rest = state["positions"].split((1, state["positions"].shape[1] - 1), dim=1)
        side = math.isqrt(rest.shape[1])
        if (side, side) != self.grid:
            rest = rest.transpose(1, 2).unflatten(2, (side, side))  # (1, C, side, side)
            rest = F.interpolate(rest, self.grid, mode="bicubic", antialias=True).flatten(2).transpose(1, 2)
        return {**state, "class_position": position, "positions": rest}


def sincos(grid: tuple[int, int], embed_dim: int) -> Tensor:  # -> (1, rows * columns, embed_dim)
    """Sines and cosines of the row in one half of the numbers, of the column in the other, at falling frequencies.

    As Vaswani et al. 2017 for each half; Chen et al. 2021 (MoCo v3, arXiv 2104.02057) gave them to a ViT.
    """
    rows, columns = torch.meshgrid(*(torch.arange(side, dtype=torch.float32) for side in grid), indexing="ij")
    frequencies = 10_000 ** -(torch.arange(embed_dim // 4) / (embed_dim // 4))
    angles = torch.stack((rows, columns), dim=2).flatten(0, 1)[:, :, None] * frequencies  # (N, 2, C / 4)
    return torch.cat((angles.sin(), angles.cos()), dim=2).flatten(1)[None]


def attention_rollout(maps: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:  # -> (B, rows, columns)
    """How much of each patch reaches what the class head reads, over all blocks; sums to 1, but for a class token.

    A block passes on half of what a token looks at, mean of the heads, and half of the token itself, by its shortcut;
    blocks follow each other as their matrices multiply (Abnar & Zuidema 2020, arXiv 2005.00928).

    Args:
        maps: Of `ViT.attention_maps`.
        grid: Rows and columns of patches; one token more than that is a class token.
    """
    flow = torch.eye(maps[0].shape[-1], device=maps[0].device)
    for weights in maps:
        flow = (weights.mean(dim=1) + torch.eye(flow.shape[-1], device=flow.device)) / 2 @ flow  # (B, T, T)
    patches = math.prod(grid)
    read = flow[:, 0, 1:] if flow.shape[-1] > patches else flow.mean(dim=1)
    return read.unflatten(1, grid)
