"""GPT-2 small (random weights) reads a prompt of 128 tokens, keeps keys and values and predicts the next token."""

from ._common import Call, integers, set_weights
from ._gpt import gpt2, new_cache

ITEMS = (128, "tokens")


def make(torch, device):
    model = set_weights(torch, gpt2(torch), device).eval()
    prompt = torch.from_numpy(integers(50257, 1, 128)).to(device)

    def step(prompt):
        with torch.no_grad():
            return model(prompt, cache=new_cache(torch, 12, 128), last=True)

    return Call(step, prompt)
