"""Makes small models of the architectures that the worker runs, with random weights, and asks Hugging
Face's `transformers` what they answer. Writes beside itself, in models/:

  <model>/config.json, *.safetensors   the model as a folder of Hugging Face
  <model>/model.gguf                   the same weights by llama.cpp's conventions
  <model>/<answer>.json                tokens, and the greedy continuation of the first of them
  <model>/<answer>.logits              logits after each of the tokens (f32, little endian)

The answers are computed in double precision. Run by `make references`; an answer that is there stays as it is
if the new one is closer than TOLERANCE, since mathematical libraries differ in last digits.
"""

import json
import math
import os
import pathlib

os.environ["HF_HUB_OFFLINE"] = "1"

import gguf
import numpy
import tokenizers
import torch
import transformers
from safetensors.torch import save_file as save

HERE = pathlib.Path(__file__).parent / "models"
TOLERANCE = 2e-5
TOKENS = 64
PROMPT = 40
# The best token must lead by this, or the greedy continuation would hang on rounding.
LEAD = 4e-3

SMALL = dict(vocab_size=101, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=256, bos_token_id=1, eos_token_id=2, pad_token_id=0)

MODELS = {
    "llama": dict(SMALL, model_type="llama", rms_norm_eps=1e-5, shards=2),
    "llama3": dict(
        SMALL, model_type="llama", vocab_size=300, head_dim=16, rms_norm_eps=1e-5, tie_word_embeddings=True,
        attention_bias=True, tokenizer=True,
        rope_parameters=dict(rope_type="llama3", rope_theta=500.0, factor=8.0, low_freq_factor=1.0,
                             high_freq_factor=4.0, original_max_position_embeddings=24)),
    "mistral": dict(SMALL, model_type="mistral", sliding_window=12),
    "qwen2": dict(SMALL, model_type="qwen2", dtype="bfloat16", rope_parameters=dict(rope_type="default", rope_theta=1e6)),
    "qwen2-window": dict(SMALL, model_type="qwen2", tie_word_embeddings=True, use_sliding_window=True,
                         sliding_window=9, max_window_layers=1, gguf=False),
    "qwen3": dict(
        SMALL, model_type="qwen3", head_dim=16, tie_word_embeddings=True, dtype="float16",
        rope_parameters=dict(rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=64)),
    "gemma3": dict(
        SMALL, model_type="gemma3_text", head_dim=16, num_hidden_layers=7, sliding_window=8, query_pre_attn_scalar=20,
        num_key_value_heads=1, intermediate_size=48, final_logit_softcapping=6.0,
        rope_parameters=dict(full_attention=dict(rope_type="linear", factor=8.0, rope_theta=1e6),
                             sliding_attention=dict(rope_type="default", rope_theta=1e4))),
    "phi3": dict(
        SMALL, model_type="phi3", head_dim=8, original_max_position_embeddings=32,
        rope_parameters=dict(rope_type="longrope", rope_theta=1e4, partial_rotary_factor=0.75,
                             original_max_position_embeddings=32,
                             short_factor=[1.0, 1.1, 1.3], long_factor=[1.5, 2.5, 4.0])),
    "phi3-window": dict(SMALL, model_type="phi3", num_key_value_heads=4, sliding_window=12,
                        tie_word_embeddings=True),
    # What candle's decoders compute.
    "gemma2": dict(SMALL, model_type="gemma2", head_dim=16, query_pre_attn_scalar=16, sliding_window=48,
                   final_logit_softcapping=6.0, attn_logit_softcapping=9.0, gguf=False),
    "mixtral": dict(SMALL, model_type="mixtral", num_local_experts=4, num_experts_per_tok=2, gguf=False),
    "olmo2": dict(SMALL, model_type="olmo2", gguf=False, dtype="bfloat16"),
    "qwen3_moe": dict(SMALL, model_type="qwen3_moe", head_dim=16, num_experts=4, num_experts_per_tok=2,
                      moe_intermediate_size=24, norm_topk_prob=True, decoder_sparse_step=2, gguf=False),
    "stablelm": dict(SMALL, model_type="stablelm", use_qkv_bias=True, gguf=False),
    "starcoder2": dict(SMALL, model_type="starcoder2", sliding_window=48, gguf=False),
    "phi2": dict(SMALL, model_type="phi", num_key_value_heads=4, folder=False),
}

# Further answers: (context that the model is used with, tokens).
SHORT = {"phi3": ("short", 32, 30)}


def weights(model, random):
    """Weights that make every part matter: no two layers alike, logits of a few units."""
    for name, parameter in model.named_parameters():
        shape = tuple(parameter.shape)
        drawn = random.standard_normal(shape)
        if name.endswith("norm.weight"):
            drawn = drawn * 0.2 + (0 if "gemma" in model.config.model_type else 1)
        elif name.endswith("bias"):
            drawn = drawn * 0.3
        elif "embed_tokens" in name:
            drawn = drawn * (0.4 if model.config.tie_word_embeddings else 1.0)
        else:
            drawn = drawn * 1.6 / math.sqrt(shape[-1])
        yield parameter, drawn


def build(settings, seed):
    settings = {key: value for key, value in settings.items() if key not in ("shards", "gguf", "dtype", "tokenizer", "folder")}
    config = transformers.AutoConfig.for_model(**settings)
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def logits(model, tokens):
    with torch.no_grad():
        return model(torch.tensor([tokens]), use_cache=False).logits[0].numpy()


def greedy(model, prompt, count):
    tokens = list(prompt)
    for _ in range(count):
        last = logits(model, tokens)[-1]
        first, second = numpy.sort(last)[::-1][:2]
        if first - second < LEAD:
            return None
        tokens.append(int(last.argmax()))
    return tokens[len(prompt):]


def answer(folder, name, model, seed, count, context):
    for attempt in range(1000):
        random = numpy.random.default_rng([seed, attempt])
        tokens = [int(token) for token in random.integers(3, model.config.vocab_size, count)]
        prompt = tokens[: min(PROMPT, count // 2)] if context else tokens[:PROMPT]
        continuation = greedy(model, prompt, min(TOKENS, count) - len(prompt))
        if continuation is not None:
            break
    else:
        raise RuntimeError(f"{folder.name}: no continuation without a close race")
    told = dict(context=context, tokens=tokens, prompt=len(prompt), greedy=continuation)
    (folder / f"{name}.json").write_text(json.dumps(told) + "\n")
    path, rows = folder / f"{name}.logits", logits(model, tokens).astype("<f4")
    if path.exists():
        old = numpy.frombuffer(path.read_bytes(), "<f4")
        if old.size == rows.size and numpy.abs(old - rows.ravel()).max() < TOLERANCE:
            return
    path.write_bytes(rows.tobytes())






def write_folder(folder, model, dtype, shards):
    names = sorted(model.state_dict())
    if model.config.tie_word_embeddings:
        names.remove("lm_head.weight")
    state = {name: model.state_dict()[name].to(getattr(torch, dtype)).contiguous() for name in names}

    metadata = {"format": "pt"}
    if any(".experts." in name for name in names):
        # In memory the experts of a layer are one tensor; this writes them as they are published.
        model.to(getattr(torch, dtype)).save_pretrained(folder)
        (folder / "generation_config.json").unlink()
    elif shards == 1:
        save(state, folder / "model.safetensors", metadata)
    else:
        of = {name: f"model-{at * shards // len(names) + 1:05}-of-{shards:05}.safetensors" for at, name in enumerate(names)}
        for file in sorted(set(of.values())):
            save({name: state[name] for name in names if of[name] == file}, folder / file, metadata)
        index = dict(metadata=dict(total_size=sum(t.nbytes for t in state.values())), weight_map=of)
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")
    config = model.config.to_dict()
    config["dtype"] = dtype
    config["architectures"] = [type(model).__name__]
    for key in [key for key in config if key.startswith("_") or key == "transformers_version"]:
        del config[key]
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")


TEMPLATE = """{{ bos_token }}{% for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def write_tokenizer(folder, vocabulary):
    """Byte-level BPE with a chat template, as a folder of Hugging Face has them."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary - 8, special_tokens=specials, show_progress=False,
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(["the bees in the hive hum on the meadow and the queen listens"] * 4, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    about = dict(bos_token=dict(content="<|endoftext|>"), eos_token="<|im_end|>", chat_template=TEMPLATE)
    (folder / "tokenizer_config.json").write_text(json.dumps(about, indent=1) + "\n")


PARTS = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.qkv_proj": "attn_qkv", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "mlp.gate_up_proj": "ffn_up", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
WHOLE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
         "lm_head.weight": "output.weight"}


def gguf_name(name, gemma):
    if name in WHOLE:
        return WHOLE[name]
    _, _, layer, rest = name.split(".", 3)
    part, kind = rest.rsplit(".", 1)
    if gemma and part == "post_attention_layernorm":
        return f"blk.{layer}.post_attention_norm.{kind}"
    return f"blk.{layer}.{PARTS[part]}.{kind}"


def paired(rows, heads):
    """The order of rows that llama.cpp gives queries and keys of llamas."""
    parts = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return parts.swapaxes(1, 2).reshape(rows.shape)


def write_gguf(folder, model, dtype):
    config = model.config
    gemma, llama = config.model_type.startswith("gemma3"), config.model_type in ("llama", "mistral")
    # As llama.cpp's converter calls them.
    name = {"gemma3_text": "gemma3", "mistral": "llama"}.get(config.model_type, config.model_type)
    writer = gguf.GGUFWriter(folder / "model.gguf", name)
    writer.add_name(folder.name)
    head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_width)
    writer.add_value_length(head_width)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    turning = int(head_width * rope.get("partial_rotary_factor", 1.0))
    writer.add_rope_dimension_count(turning)
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if rope["rope_type"] == "longrope":
        original = rope["original_max_position_embeddings"]
        writer.add_rope_scaling_orig_ctx_len(original)
        factor = config.max_position_embeddings / original
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(factor) / math.log(original)))
        for kind in ("long", "short"):
            factors = numpy.array(rope[f"{kind}_factor"], numpy.float32)
            writer.add_tensor(f"rope_factors_{kind}.weight", factors)
    if rope["rope_type"] == "llama3":
        # What llama.cpp's converter computes of the configuration.
        angles = rope["rope_theta"] ** (-numpy.arange(0, turning, 2) / turning)
        turns = rope["original_max_position_embeddings"] * angles / (2 * math.pi)
        low, high = rope["low_freq_factor"], rope["high_freq_factor"]
        kept = numpy.clip((turns - low) / (high - low), 0, 1)
        writer.add_tensor("rope_freqs.weight", (1 / ((1 - kept) / rope["factor"] + kept)).astype(numpy.float32))
    if getattr(config, "sliding_window", None):
        writer.add_sliding_window(config.sliding_window)
    if gemma:
        writer.add_attention_scale(config.query_pre_attn_scalar**-0.5)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    state = model.state_dict()
    if config.tie_word_embeddings:
        del state["lm_head.weight"]
    for name, tensor in state.items():
        array = tensor.to(torch.float32).numpy()
        if gemma and name.endswith("norm.weight"):
            array = array + 1
        if llama and ".q_proj." in name:
            array = paired(array, config.num_attention_heads)
        if llama and ".k_proj." in name:
            array = paired(array, config.num_key_value_heads)
        if dtype == "float16" and array.ndim == 2:
            array = array.astype(numpy.float16)
        if dtype == "bfloat16" and array.ndim == 2:
            array = gguf.quants.quantize(array, gguf.GGMLQuantizationType.BF16)
            writer.add_tensor(gguf_name(name, gemma), array, raw_dtype=gguf.GGMLQuantizationType.BF16)
            continue
        writer.add_tensor(gguf_name(name, gemma), numpy.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_phi2(folder, model):
    """As llama.cpp's converter writes Phi-2: queries, keys and values in one matrix."""
    config, state = model.config, model.state_dict()
    writer = gguf.GGUFWriter(folder / "model.gguf", "phi2")
    writer.add_name(folder.name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_attention_heads)
    writer.add_layer_norm_eps(config.layer_norm_eps)
    turning = config.rope_parameters["partial_rotary_factor"] * config.hidden_size / config.num_attention_heads
    writer.add_rope_dimension_count(int(turning))
    parts = {"self_attn.dense": "attn_output", "mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down", "input_layernorm": "attn_norm"}
    whole = {"model.embed_tokens": "token_embd", "model.final_layernorm": "output_norm", "lm_head": "output"}
    for name, tensor in state.items():
        stem, kind = name.rsplit(".", 1)
        if stem in whole:
            writer.add_tensor(f"{whole[stem]}.{kind}", tensor.numpy())
            continue
        _, _, layer, part = stem.split(".", 3)
        if part == "self_attn.q_proj":
            three = [state[name.replace("q_proj", f"{one}_proj")].numpy() for one in "qkv"]
            writer.add_tensor(f"blk.{layer}.attn_qkv.{kind}", numpy.concatenate(three))
        elif part in parts:
            writer.add_tensor(f"blk.{layer}.{parts[part]}.{kind}", tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    torch.manual_seed(0)
    HERE.mkdir(exist_ok=True)
    for seed, (name, settings) in enumerate(MODELS.items()):
        folder = HERE / name
        folder.mkdir(exist_ok=True)
        model, dtype = build(settings, seed), settings.get("dtype", "float32")
        with torch.no_grad():
            for parameter, drawn in weights(model, numpy.random.default_rng(seed)):
                parameter.copy_(torch.from_numpy(drawn).to(getattr(torch, dtype)).to(parameter.dtype))
        if settings.get("folder", True):
            write_folder(folder, model, dtype, settings.get("shards", 1))
        else:
            write_phi2(folder, model)
        if "tokenizer" in settings:
            write_tokenizer(folder, settings["vocab_size"])
        if settings.get("gguf", True) and settings.get("folder", True):
            write_gguf(folder, model, dtype)
        model = model.double()
        answer(folder, "answer", model, seed, TOKENS, None)
        if name in SHORT:
            kind, context, count = SHORT[name]
            answer(folder, kind, model, seed, count, context)
        print(name, sum(f.stat().st_size for f in folder.iterdir()) // 1024, "KiB")


if __name__ == "__main__":
    main()
