"""Models of transformers, from small random configurations: width 64, 4 heads, 2 layers, MLP of 256, 100 tokens.

Language models have their language modelling head, encoders and vision models a classification head.
"""

from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from mutorch.utils import require

from .entry import Entry, image
from .stubs import load_torchvision

VOCABULARY = 100
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}

SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "max_position_embeddings": 64,
    **TOKENS,
}
GROUPED = {**SMALL, "num_key_value_heads": 2, "head_dim": 16}
ENCODER_DECODER = {
    "vocab_size": VOCABULARY,
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 256,
    "decoder_ffn_dim": 256,
    "decoder_start_token_id": 1,
    **TOKENS,
}
VISION = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": 10,
}

# family: (class, options of its configuration)
TEXT: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertForSequenceClassification", SMALL),
    "roberta": ("RobertaForMaskedLM", SMALL),
    "distilbert": (
        "DistilBertForSequenceClassification",
        {"vocab_size": VOCABULARY, "dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 256, "pad_token_id": 0},
    ),
    "albert": ("AlbertForMaskedLM", {**SMALL, "embedding_size": 32}),
    "electra": ("ElectraForSequenceClassification", {**SMALL, "embedding_size": 32}),
    "gpt2": (
        "GPT2LMHeadModel",
        {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, **TOKENS},
    ),
    "gpt_neox": ("GPTNeoXForCausalLM", SMALL),
    "opt": ("OPTForCausalLM", {**SMALL, "ffn_dim": 256, "word_embed_proj_dim": 64}),
    "llama": ("LlamaForCausalLM", GROUPED),
    "mistral": ("MistralForCausalLM", GROUPED),
    "qwen2": ("Qwen2ForCausalLM", GROUPED),
    "gemma": ("GemmaForCausalLM", GROUPED),
    "mixtral": ("MixtralForCausalLM", {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}),
}
TEXT_TO_TEXT: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": (
        "T5ForConditionalGeneration",
        {
            "vocab_size": VOCABULARY,
            "d_model": 64,
            "d_kv": 16,
            "d_ff": 256,
            "num_layers": 2,
            "num_heads": 4,
            "decoder_start_token_id": 0,
        },
    ),
    "bart": ("BartForConditionalGeneration", {**ENCODER_DECODER, "max_position_embeddings": 64}),
}
SPEECH: dict[str, tuple[str, dict[str, Any]]] = {
    "whisper": (
        "WhisperForConditionalGeneration",
        {**ENCODER_DECODER, "num_mel_bins": 16, "max_source_positions": 20, "max_target_positions": 20},
    ),
}
IMAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViTForImageClassification", VISION),
    "deit": ("DeiTForImageClassification", VISION),
    "swin": (
        "SwinForImageClassification",
        {
            "image_size": 32,
            "patch_size": 2,
            "embed_dim": 32,
            "depths": [2, 2],
            "num_heads": [2, 4],
            "window_size": 4,
            "num_labels": 10,
        },
    ),
}


def entries() -> dict[str, Entry]:
    """All of them."""
    if find_spec("torchvision"):  # transformers imports it if it is there
        load_torchvision()
    ids = _ids(0, 12)
    both = {"input_ids": ids, "decoder_input_ids": _ids(1, 8)}
    mel = torch.randn(1, 16, 40, generator=torch.Generator().manual_seed(0))
    found = {family: _entry(family, setting, {"input_ids": ids}) for family, setting in TEXT.items()}
    found |= {family: _entry(family, setting, both) for family, setting in TEXT_TO_TEXT.items()}
    found |= {family: _entry(family, setting, {"pixel_values": image(32)}) for family, setting in IMAGES.items()}
    speech = {"input_features": mel, "decoder_input_ids": _ids(1, 8)}
    return found | {family: _entry(family, setting, speech) for family, setting in SPEECH.items()}


def _entry(family: str, setting: tuple[str, dict[str, Any]], example_inputs: dict[str, Tensor]) -> Entry:
    return Entry(f"transformers/{family}", partial(_build, *setting), example_inputs)


def _build(name: str, options: dict[str, Any]) -> nn.Module:
    model_class = getattr(require("transformers", extra="zoo"), name)
    return model_class(model_class.config_class(**options, use_cache=False))


def _ids(seed: int, length: int) -> Tensor:
    """Two rows of tokens, without the special ones."""
    return torch.randint(3, VOCABULARY, (2, length), generator=torch.Generator().manual_seed(seed))
