"""GPT-2 small (random weights) writes 8 tokens after a prompt of 64, in float32.

With a KV cache, the likeliest token each time.
"""

from ._gpt import greedy

ITEMS = (8, "tokens")
COMPILES = False  # ours is a graph by itself: a token is one replay
GROUP = "gpt2_decode"


def make(torch, device):
    return greedy(torch, device, "float32")
