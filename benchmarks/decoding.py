"""What keeping keys and values saves: the time to write a text with them, beside reading all of it again at each token; and
beside the library transformers, which keeps them too.

    python benchmarks/decoding.py                                     512 tokens, five rounds: about a minute
    python benchmarks/decoding.py --tokens 128 512 --rows 1 16 --json decoding.json

One thread on the CPU, greedy, untrained networks in the sizes of conf/model. The two ways take turns and the median of the
rounds' ratios counts. Both read the Transformer's source once and make logits for the newest token alone.

transformer  its decoder after a source of 20 tokens, vocabulary as of Multi30k
gpt          from a prompt of one token, vocabulary as of Tiny Shakespeare's characters
gpt2, llama  the same, beside transformers.generate with the same weights. They need the extra `parity`: run them in its
             environment, .venv-parity/bin/python benchmarks/decoding.py --models gpt2 llama.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # torch is imported later

LEAST = {"uncached": 4.0, "transformers": 1.0}  # times as fast
SOURCE = 20  # tokens
VOCABULARIES = {"transformer": 6000, "gpt": 65, "gpt2": 65, "llama": 65}
Way = Callable[[int, int], Any]  # rows and tokens -> (rows, tokens) ids


def make(name: str, tokens: int) -> Any:
    """The network of conf/model, with room for so many tokens."""
    import torch

    from epochal.config.compose import compose
    from epochal.config.instantiate import make_model
    from epochal.core.specs import Tokens

    torch.manual_seed(0)
    text = Tokens(VOCABULARIES[name], tokens + 1)
    model = ["model=gpt", "model.feedforward=gelu_tanh", "model.bias=true"] if name == "gpt2" else [f"model={name}"]
    return make_model(
        compose([*model, "task=translation" if name == "transformer" else "task=language_modeling"]), text, text
    ).eval()


def transformer_ways(model: Any) -> dict[str, Way]:
    import torch

    from epochal.core.specs import BEGIN

    def source(rows: int) -> Any:
        return torch.randint(4, VOCABULARIES["transformer"], (rows, SOURCE), generator=torch.Generator().manual_seed(1))

    def cached(rows: int, tokens: int) -> Any:
        text, state = [torch.full((rows,), BEGIN)], model.encode(source(rows))
        for _ in range(tokens):
            logits, state = model.decode(text[-1], state)
            text.append(logits.argmax(-1))
        return torch.stack(text[1:], dim=1)

    def uncached(rows: int, tokens: int) -> Any:
        text = torch.full((rows, 1), BEGIN)
        memory, mask = model._read(source(rows), None)
        for _ in range(tokens):
            states = model.decoder(model._embed(text, model.embed), memory, mask)
            text = torch.cat((text, model._logits(states[:, -1:]).argmax(-1)), dim=1)
        return text[:, 1:]

    return {"cached": cached, "uncached": uncached}


def gpt_ways(model: Any) -> dict[str, Way]:
    import torch

    def cached(rows: int, tokens: int) -> Any:
        return model.generate(torch.zeros(rows, 1, dtype=torch.int64), length=tokens, temperature=0)[:, 1:]

    def uncached(rows: int, tokens: int) -> Any:
        text = torch.zeros(rows, 1, dtype=torch.int64)
        for _ in range(tokens):
            logits = torch.nn.functional.linear(model._read(text)[:, -1:], model.embed.weight)
            text = torch.cat((text, logits.argmax(-1)), dim=1)
        return text[:, 1:]

    return {"cached": cached, "uncached": uncached}


def beside_transformers(model: Any) -> dict[str, Way]:
    import tempfile

    import torch
    from transformers import AutoModelForCausalLM

    from epochal.models.pretrained.huggingface_save import save

    with tempfile.TemporaryDirectory() as folder:
        save(model, folder)
        theirs: Any = AutoModelForCausalLM.from_pretrained(folder).eval()

    def generate(rows: int, tokens: int) -> Any:
        prompt = torch.zeros(rows, 1, dtype=torch.int64)
        options = {
            "attention_mask": torch.ones_like(prompt),
            "do_sample": False,
            "pad_token_id": 0,
            "eos_token_id": None,
        }
        return theirs.generate(prompt, max_new_tokens=tokens, **options)[:, 1:]

    return {"cached": gpt_ways(model)["cached"], "transformers": generate}


WAYS = {"transformer": transformer_ways, "gpt": gpt_ways, "gpt2": beside_transformers, "llama": beside_transformers}


def compare(name: str, rows: int, tokens: int, repeats: int) -> dict[str, Any]:
    """Runs the two ways of one network in turns."""
    import torch

    ways, rounds = WAYS[name](make(name, tokens)), []
    with torch.inference_mode():
        texts = {way: run(rows, min(tokens, 32)) for way, run in ways.items()}  # a warm-up
        for _ in range(repeats):
            seconds = {}
            for way, run in ways.items():
                start = time.perf_counter()
                texts[way] = run(rows, tokens)
                seconds[way] = time.perf_counter() - start
            rounds.append(seconds)
    other = next(way for way in ways if way != "cached")
    return {
        "model": name,
        "beside": other,
        "rows": rows,
        "tokens": tokens,
        "seconds": {way: median(seconds[way] for seconds in rounds) for way in ways},
        "ratios": [seconds[other] / seconds["cached"] for seconds in rounds],
        "alike": (texts["cached"] == texts[other]).float().mean().item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=WAYS, default=["transformer", "gpt"])
    parser.add_argument("--tokens", nargs="+", type=int, default=[512], help="lengths of the texts (default 512)")
    parser.add_argument("--rows", nargs="+", type=int, default=[1], help="texts written at once (default 1)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement there")
    options = parser.parse_args()

    import torch
    from rich.console import Console
    from rich.table import Table

    torch.set_num_threads(1)
    cases = product(options.models, options.rows, options.tokens)
    results = [compare(*case, options.repeats) for case in cases]
    table = Table("model", "rows", "tokens", "cached", "beside", "ratio", "range", "alike", "target", box=None)
    for r in results:
        ratio, target = median(r["ratios"]), ""
        if r["tokens"] >= 512:
            least = LEAST[r["beside"]]
            target = f"{least:.0f} {'met' if ratio >= least else 'missed'}"
        table.add_row(
            r["model"],
            str(r["rows"]),
            str(r["tokens"]),
            f"{r['seconds']['cached']:.2f} s",
            f"{r['beside']} {r['seconds'][r['beside']]:.2f} s",
            f"{ratio:.1f}",
            f"{min(r['ratios']):.1f} to {max(r['ratios']):.1f}",
            f"{r['alike']:.0%}",
            target,
        )
    Console().print(table)
    if options.json:
        about = {"torch": torch.__version__, "machine": platform.platform(), "threads": 1}
        options.json.write_text(json.dumps({**about, "cases": results}, indent=2))


if __name__ == "__main__":
    main()
