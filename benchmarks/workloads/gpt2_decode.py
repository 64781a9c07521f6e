"""GPT-2 small (random weights) writes 8 tokens, the likeliest each time, after a prompt of 64, with a KV cache.

In float32, and in this library with int8 and int4 weights as well: the peer writes in float32 each time.
"""

from ._common import integers, set_weights
from ._gpt import gpt2, new_cache

ITEMS = (8, "tokens")
PROMPT = 64
WEIGHTS = ("float32", "int8", "int4")


def make(torch, device):
    model = set_weights(torch, gpt2(torch), device).eval()
    return {weights: writer(torch, model, weights, device) for weights in WEIGHTS}


def writer(torch, model, weights, device):
    if weights != "float32" and hasattr(torch, "quantize"):
        model = quantized(torch, model, weights, device)
    prompt = torch.from_numpy(integers(50257, 1, PROMPT)).to(device)
    cache = new_cache(torch, 12, PROMPT + ITEMS[0])
    with torch.inference_mode():
        first = model(prompt, cache=cache, last=True).argmax(-1)

    def step():
        cache.truncate(PROMPT)
        token, logits = first, []
        with torch.inference_mode():
            for _ in range(ITEMS[0]):
                logits.append(model(token, cache=cache, last=True))
                token = logits[-1].argmax(-1)
        # Rounded weights give other values than the peer's; how far off is measured in docs/reports/decode.md.
        return tuple(logits) if weights == "float32" else ()

    return step


def quantized(torch, model, weights, device):
    copy = gpt2(torch).to(device).eval()
    copy.load_state_dict(model.state_dict())
    return torch.quantize.quantize_(copy, weights, embeddings=["wte"])
