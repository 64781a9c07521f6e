"""GPT-2 small (random weights) writes 8 tokens, the likeliest each time, after a prompt of 64, with a KV cache."""

from ._common import integers, set_weights
from ._gpt import gpt2

ITEMS = (8, "tokens")


def make(torch, device):
    model = set_weights(torch, gpt2(torch), device).eval()
    prompt = torch.from_numpy(integers(50257, 1, 64)).to(device)
    prompt_cache = []
    with torch.no_grad():
        first = model(prompt, cache=prompt_cache, last=True).argmax(-1)

    def step():
        cache, token, logits = list(prompt_cache), first, []
        with torch.no_grad():
            for _ in range(ITEMS[0]):
                logits.append(model(token, cache=cache, last=True))
                token = logits[-1].argmax(-1)
        return tuple(logits)

    return step
