"""A bare training loop written like nanoGPT (Karpathy 2022), at its setting for a CPU; `throughput.py --cases nanogpt` runs it.

One file for the network, random windows from one array of ids, AdamW with weight decay on matrices alone, a cosine schedule
written out, gradients clipped at 1. It is our own text of it, in nanoGPT's way: separate modules for attention and MLP, and
loss and logits from one forward pass.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAYERS, HEADS, WIDTH, BLOCK, BATCH = 4, 4, 128, 64, 12
RATE, LEAST, WARMUP, STEPS = 1e-3, 1e-4, 100, 2000


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c_attn = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.c_proj = nn.Linear(WIDTH, WIDTH, bias=False)
        self.dropout = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        batch, steps, width = x.size()
        q, k, v = self.c_attn(x).split(WIDTH, dim=2)
        q, k, v = (part.view(batch, steps, HEADS, width // HEADS).transpose(1, 2) for part in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=None, dropout_p=0, is_causal=True)
        return self.dropout(self.c_proj(y.transpose(1, 2).contiguous().view(batch, steps, width)))


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c_fc, self.gelu = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.GELU()
        self.c_proj, self.dropout = nn.Linear(4 * WIDTH, WIDTH, bias=False), nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.c_proj(self.gelu(self.c_fc(x))))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(WIDTH, bias=False), Attention()
        self.ln_2, self.mlp = nn.LayerNorm(WIDTH, bias=False), MLP()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class NanoGPT(nn.Module):
    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocab_size, WIDTH), nn.Embedding(BLOCK, WIDTH)
        self.drop, self.ln_f = nn.Dropout(0.0), nn.LayerNorm(WIDTH, bias=False)
        self.h = nn.ModuleList(Block() for _ in range(LAYERS))
        self.lm_head = nn.Linear(WIDTH, vocab_size, bias=False)
        self.wte.weight = self.lm_head.weight
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * LAYERS) if name.endswith("c_proj.weight") else 0.02)

    def forward(self, idx: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        x = self.drop(self.wte(idx) + self.wpe(torch.arange(0, idx.size(1), dtype=torch.long)))
        for block in self.h:
            x = block(x)
        logits = self.lm_head(self.ln_f(x))
        return logits, F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1), ignore_index=-1)


def train(data: np.ndarray, vocab_size: int) -> Iterator[None]:
    """A step each time it is asked for one, on uint16 ids (N,)."""
    model = NanoGPT(vocab_size)
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.99))

    def batch() -> tuple[Tensor, Tensor]:
        ix = torch.randint(len(data) - BLOCK, (BATCH,))
        x = torch.stack([torch.from_numpy(data[i : i + BLOCK].astype(np.int64)) for i in ix])
        y = torch.stack([torch.from_numpy(data[i + 1 : i + 1 + BLOCK].astype(np.int64)) for i in ix])
        return x, y

    def rate(step: int) -> float:
        if step < WARMUP:
            return RATE * (step + 1) / (WARMUP + 1)
        done = min((step - WARMUP) / (STEPS - WARMUP), 1.0)
        return LEAST + 0.5 * (1.0 + math.cos(math.pi * done)) * (RATE - LEAST)

    step, (x, y) = 0, batch()
    while True:
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        _, loss = model(x, y)
        x, y = batch()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
        yield
