"""A small Llama with random weights, made on the spot: it proves the path and needs neither network nor GPU.

Written without torch and transformers: importing them would take longer than all the rest. The format of weights is
safetensors (an 8-byte length, a JSON header, raw numbers), that of the tokenizer the `tokenizers` library's JSON.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

VERSION = 1
"""Part of the folder's name: raise it whenever a file below changes."""

HIDDEN = 256
LAYERS = 4
INTERMEDIATE = 1024
# Eight heads of four groups: tensor parallelism over 2 and 4 GPUs divides them.
HEADS = 8
KV_HEADS = 4
CONTEXT = 2048

_BEGIN, _END = "<|begin|>", "<|end|>"
_CONSONANTS = "bcdfghjklmnpqrstvwyz"
_VOWELS = "aeiou"
_ENDINGS = "dlmnrst"
_CHAT = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
)


def prepare(cache: Path) -> Path:
    """Return the model's folder below `cache`, made if it is not there. Several programs may do this at once.

    Raises:
        OSError: it can be written neither there nor into the folder for temporary files.
    """
    folder = cache / "tiny" / f"v{VERSION}"
    if (folder / "config.json").is_file():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return _make(folder)
    except OSError:
        fallback = Path(tempfile.gettempdir()) / f"tiny-v{VERSION}-{os.getuid()}"
        return fallback if (fallback / "config.json").is_file() else _make(fallback)


def _make(folder: Path) -> Path:
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, content in files().items():
            (work / name).write_bytes(content)
        # Whoever shares the cache may read it, whatever user this is.
        for path in work.iterdir():
            path.chmod(0o644)
        work.chmod(0o755)
        work.rename(folder)
    except OSError:
        shutil.rmtree(work, ignore_errors=True)
        # Somebody else was faster, and theirs is the same.
        if not (folder / "config.json").is_file():
            raise
    return folder


def files() -> dict[str, bytes]:
    """Return the content of every file of the model; the same on every call and every machine."""
    vocabulary, merges = _vocabulary()
    special = {token: len(vocabulary) + index for index, token in enumerate((_BEGIN, _END))}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HIDDEN // HEADS,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "max_position_embeddings": CONTEXT,
        "vocab_size": len(vocabulary) + len(special),
        "bos_token_id": special[_BEGIN],
        "eos_token_id": special[_END],
        "torch_dtype": "bfloat16",
    }
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": _BEGIN,
        "eos_token": _END,
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
        "chat_template": _CHAT,
    }
    return {
        "config.json": _json(config),
        "generation_config.json": _json({"bos_token_id": special[_BEGIN], "eos_token_id": special[_END]}),
        "model.safetensors": _weights(len(vocabulary) + len(special)),
        "tokenizer.json": _json(_tokenizer(vocabulary, merges, special)),
        "tokenizer_config.json": _json(tokenizer_config),
    }


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode()


def _byte_letters() -> list[str]:
    """Return the printable character that stands for each byte in byte-level BPE (GPT-2's table)."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


def _vocabulary() -> tuple[dict[str, int], list[list[str]]]:
    """Return tokens with their ids, and merges: every byte, and syllables that begin a word.

    Syllables survive being decoded and encoded again one by one, so that a random text of N tokens has about N.
    """
    letters = _byte_letters()
    space = letters[ord(" ")]
    merges = [[space, first] for first in _CONSONANTS]
    merges += [[space + first, vowel] for first in _CONSONANTS for vowel in _VOWELS]
    merges += [[space + first + vowel, end] for first in _CONSONANTS for vowel in _VOWELS for end in _ENDINGS]
    tokens = letters + ["".join(pair) for pair in merges]
    return {token: index for index, token in enumerate(tokens)}, merges


def _tokenizer(vocabulary: dict[str, int], merges: list[list[str]], special: dict[str, int]) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": index, "content": token} | flags for token, index in special.items()],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": vocabulary,
            "merges": merges,
        },
    }


def _shapes(vocabulary: int) -> dict[str, tuple[int, ...]]:
    key_value = HIDDEN // HEADS * KV_HEADS
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, HIDDEN)}
    for layer in range(LAYERS):
        shapes |= {
            f"model.layers.{layer}.{name}.weight": shape
            for name, shape in {
                "self_attn.q_proj": (HIDDEN, HIDDEN),
                "self_attn.k_proj": (key_value, HIDDEN),
                "self_attn.v_proj": (key_value, HIDDEN),
                "self_attn.o_proj": (HIDDEN, HIDDEN),
                "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
                "mlp.up_proj": (INTERMEDIATE, HIDDEN),
                "mlp.down_proj": (HIDDEN, INTERMEDIATE),
                "input_layernorm": (HIDDEN,),
                "post_attention_layernorm": (HIDDEN,),
            }.items()
        }
    return shapes | {"model.norm.weight": (HIDDEN,), "lm_head.weight": (vocabulary, HIDDEN)}


def _weights(vocabulary: int) -> bytes:
    """Return the weights as a safetensors file: norms are one, the rest is random."""
    source = random.Random(VERSION)  # noqa: S311 - weights are no secret
    header: dict[str, Any] = {}
    data = bytearray()
    for name, shape in _shapes(vocabulary).items():
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        begin = len(data)
        data += _one() * count if "norm" in name else _random(source, count)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, len(data)]}
    text = json.dumps(header | {"__metadata__": {"format": "pt"}}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + bytes(data)


def _one() -> bytes:
    """Return 1.0 as little-endian bfloat16."""
    return b"\x80\x3f"


# Sign from the top bit, the exponent fixed: bfloat16 of 0x3c00 to 0x3cff is 0.008 to 0.03.
_UPPER = bytes(0x3C | (byte & 0x80) for byte in range(256))


def _random(source: random.Random, count: int) -> bytes:
    """Return `count` bfloat16 of 0.008 to 0.03, either sign: about what a Llama is initialised with."""
    drawn = source.randbytes(2 * count)
    drawn_pairs = bytearray(drawn)
    drawn_pairs[1::2] = drawn[1::2].translate(_UPPER)
    return bytes(drawn_pairs)
