"""How fast a language model writes, and what integer weights cost it: `python benchmarks/decoding.py speed|perplexity`.

`speed`: GPT-2 small (random weights), one sequence, a token at a time behind a prompt of 64: milliseconds and weight
bytes per second of float32, int8 and int4, beside PyTorch's float32 where it is installed, and beside the rate at which
as many threads add up an array that is too large for the caches. All take turns, token by token. `perplexity MODEL
TEXT`: of a language model of flambeau-nlp (the folder that its trainer wrote) on a text, for each kind of weights.
"""

import argparse
import importlib.util
import math
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
KINDS = (("int8", 64), ("int4", 32), ("int4", 64), ("int4", 128))


def fill(torch, model):
    """Normal weights of GPT-2's size, the same in each library (and quicker than the workloads' own)."""
    rng = np.random.default_rng(0)
    for parameter in model.parameters():
        values = rng.standard_normal(tuple(parameter.shape), dtype=np.float32)
        values *= 0.02
        parameter.data = torch.from_numpy(values)
    return model.eval()


def writer(torch, model, prompt):
    """A function that writes one token, at the same place each time."""
    from workloads._gpt import new_cache, new_writer

    cache, length = new_cache(torch, 12, prompt.shape[1] + 1), prompt.shape[1]
    write = new_writer(torch, model)
    with torch.inference_mode():
        token = write(prompt, cache).argmax(-1)

    def step():
        cache.truncate(length)
        with torch.inference_mode():
            return write(token, cache).argmax(-1)

    return step


def reader(megabytes):
    """A function that adds up an array with as many threads, four streams each, and the bytes that it reads."""
    import numba

    import flambeau

    @numba.njit(parallel=True, fastmath=True)
    def total(parts, sums):
        for task in numba.prange(len(sums)):
            a, b, c, d = parts[4 * task], parts[4 * task + 1], parts[4 * task + 2], parts[4 * task + 3]
            s = np.float32(0)
            for i in range(a.size):
                s += (a[i] + b[i]) + (c[i] + d[i])
            sums[task] = s

    threads = flambeau.get_num_threads()
    parts, sums = np.ones((4 * threads, megabytes * (1 << 18) // (4 * threads)), np.float32), np.zeros(threads)
    return lambda: total(parts, sums), parts.nbytes


def product(megabytes):
    """The same for the product of a matrix and one vector, the greater part of a token."""
    from flambeau.backends.kernels import numba_gemv

    matrix, ones = np.ones((megabytes * 256, 1024), np.float32), np.ones((1, 1024), np.float32)
    return lambda: numba_gemv.linear(ones, matrix), matrix.nbytes


def llama(path, prompt, threads):
    """A function by which llama.cpp writes one token of a model in its format, and the bytes of the file."""
    from llama_cpp import Llama

    model = Llama(path, n_ctx=128, n_threads=threads, n_threads_batch=threads, verbose=False, logits_all=False)
    model.eval(prompt)

    def step():
        model.n_tokens = len(prompt)
        model.eval([1])  # forgets what is behind these tokens first

    return step, Path(path).stat().st_size


def weight_bytes(model):
    """What a token reads: all weights but the tables of positions, and of the embedding that float32 ties."""
    return sum(t.numel() * t.element_size() for name, t in model.state_dict().items() if "wpe" not in name)


def speed(options):
    import flambeau
    from workloads._common import integers
    from workloads._gpt import gpt2

    tokens = integers(50257, 1, 64)
    base = fill(flambeau, gpt2(flambeau))
    steps, sizes = {"float32": writer(flambeau, base, flambeau.from_numpy(tokens))}, {"float32": weight_bytes(base)}
    for weights, group in KINDS:
        if options.only and weights not in options.only:
            continue
        model = gpt2(flambeau).eval()
        model.load_state_dict(base.state_dict())
        name = weights if weights == "int8" else f"{weights}, groups of {group}"
        flambeau.quantize.quantize_(model, weights, group, embeddings=["wte"])
        steps[name], sizes[name] = writer(flambeau, model, flambeau.from_numpy(tokens)), weight_bytes(model)
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(flambeau.get_num_threads())
        peer = fill(torch, gpt2(torch))
        steps["PyTorch float32"] = writer(torch, peer, torch.from_numpy(tokens))
        sizes["PyTorch float32"] = weight_bytes(peer)
    if importlib.util.find_spec("llama_cpp") and options.gguf:
        for path in options.gguf:
            steps[Path(path).stem], sizes[Path(path).stem] = llama(path, tokens[0].tolist(), flambeau.get_num_threads())
    steps["product"], sizes["product"] = product(256)
    steps["reading"], sizes["reading"] = reader(256)
    times = {name: [] for name in steps}
    clock = time.process_time if options.processor else time.perf_counter
    for turn in range(-2, options.turns):
        for name, step in steps.items():
            begin = clock()
            step()
            if turn >= 0:
                times[name].append(clock() - begin)
    best = {name: min(values) for name, values in times.items()}
    fastest = sizes["reading"] / best["reading"]
    for name, values in times.items():
        rate = sizes[name] / best[name]
        print(
            f"{name:20s} best {1e3 * best[name]:7.2f} ms, median {1e3 * statistics.median(values):7.2f} ms, "
            f"{1e-9 * rate:5.1f} GB/s, {rate / fastest:4.0%} of reading, {1 / best[name]:6.1f} tokens/s"
        )


def perplexity(options):
    import flambeau
    from flambeau_nlp.tasks.language_modelling import load_language_model, score

    text = Path(options.text).read_text(encoding="utf-8")[: options.characters]
    base = None
    for weights, group in (("float32", 0), *KINDS):
        model = load_language_model(options.model)
        if weights != "float32":
            flambeau.quantize.quantize_(model, weights, group, embeddings=["embedding"])
        found = score(model, text)
        base = base or found["perplexity"]
        name = f"{weights}, groups of {group}" if weights == "int4" else weights
        change = found["perplexity"] / base - 1
        print(
            f"{name:20s} perplexity {found['perplexity']:.5f} ({change:+.3%}), {math.log(found['perplexity']):.5f} nats"
        )


def gguf(options):
    """GPT-2 small with the weights of `speed`, in the format of llama.cpp."""
    import gguf

    import flambeau
    from workloads._gpt import gpt2

    kind = gguf.GGMLQuantizationType[options.type]
    writer = gguf.GGUFWriter(options.file, "gpt2")
    writer.add_context_length(1024)
    writer.add_embedding_length(768)
    writer.add_block_count(12)
    writer.add_feed_forward_length(3072)
    writer.add_head_count(12)
    writer.add_layer_norm_eps(1e-5)
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(50257)
    names = {
        "wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm", "ln_1": "attn_norm", "ln_2": "ffn_norm",
        "qkv": "attn_qkv", "proj": "attn_output", "mlp.0": "ffn_up", "mlp.2": "ffn_down",
    }  # fmt: skip
    for key, tensor in fill(flambeau, gpt2(flambeau)).state_dict().items():
        place, _, end = key.rpartition(".")
        block, _, layer = place.removeprefix("blocks.").partition(".") if "blocks." in place else ("", "", place)
        name = f"{f'blk.{block}.' if block else ''}{names[layer]}.{end}"
        values = tensor.numpy()
        use = kind if values.ndim == 2 and layer != "wpe" else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(values, use), raw_dtype=use)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("speed")
    command.add_argument("--turns", type=int, default=60)
    command.add_argument("--only", nargs="*", metavar="WEIGHTS", help="int8, int4")
    command.add_argument("--gguf", nargs="*", metavar="FILE", help="models that llama.cpp writes with, in turn")
    command.add_argument("--processor", action="store_true", help="processor seconds, for one thread on a busy machine")
    command.set_defaults(run=speed)
    command = commands.add_parser("perplexity")
    command.add_argument("model")
    command.add_argument("text")
    command.add_argument("--characters", type=int, default=200_000)
    command.set_defaults(run=perplexity)
    command = commands.add_parser("gguf", help="write the model of `speed` for llama.cpp (needs gguf)")
    command.add_argument("file")
    command.add_argument("--type", default="Q8_0", help="Q8_0, Q4_0 or F32")
    command.set_defaults(run=gguf)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
