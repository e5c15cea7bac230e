"""Tiny models with random weights, saved by transformers and tokenizers themselves."""

import json
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
LAYER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def save_clip(folder: Path, *, seed: int = 0, dim: int = 64) -> Path:
    """Texts of at most 24 tokens and pictures of 64 x 64 pixels."""
    bos, eos = save_tokenizer(folder)
    text = {**LAYER, "vocab_size": 300, "max_position_embeddings": 24, "bos_token_id": bos, "eos_token_id": eos}
    config = transformers.CLIPConfig(
        text_config={**text, "pad_token_id": eos},
        vision_config={**LAYER, "image_size": 64, "patch_size": 16},
        projection_dim=dim,
    )
    save(transformers.CLIPModel, config, folder, seed)
    transformers.CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size=64).save_pretrained(folder)
    return folder


def save_clap(folder: Path, *, dim: int = 64) -> Path:
    """Texts, and clips of 32 mel bands and at most 2 seconds at 16 kHz."""
    save_tokenizer(folder)
    config = transformers.ClapConfig(
        text_config={**LAYER, "vocab_size": 300, "max_position_embeddings": 26, "pad_token_id": 1},
        audio_config={
            "hidden_size": 32, "patch_embeds_hidden_size": 16, "depths": [1, 1], "num_attention_heads": [1, 2],
            "num_mel_bins": 32, "spec_size": 128, "window_size": 4,
        },
        projection_dim=dim,
    )  # fmt: skip
    save(transformers.ClapModel, config, folder, 0)
    transformers.ClapFeatureExtractor(
        feature_size=32, sampling_rate=16_000, hop_length=160, max_length_s=2, frequency_max=8_000,
        truncation="rand_trunc",
    ).save_pretrained(folder)  # fmt: skip
    return folder


def save_spectrogram_transformer(folder: Path) -> Path:
    """Clips of 40 mel bands and at most one second, as 16 numbers."""
    config = transformers.ASTConfig(**LAYER, num_mel_bins=40, max_length=100)
    save(transformers.ASTModel, config, folder, 0)
    transformers.ASTFeatureExtractor(num_mel_bins=40, max_length=100).save_pretrained(folder)
    return folder


def save(kind: type, config: transformers.PretrainedConfig, folder: Path, seed: int) -> None:
    torch.manual_seed(seed)
    transformers.utils.logging.disable_progress_bar()
    kind(config).save_pretrained(folder)


def save_tokenizer(folder: Path) -> tuple[int, int]:
    """A tokenizer whose tokens are bytes; the ids of its first and last token of a text."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocabulary |= {BOS: len(vocabulary), EOS: len(vocabulary) + 1}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    ends = [(BOS, vocabulary[BOS]), (EOS, vocabulary[EOS])]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A {EOS}", special_tokens=ends)
    tokenizer.save(str(folder / "tokenizer.json"))
    return vocabulary[BOS], vocabulary[EOS]


def change(path: Path, **fields: object) -> None:
    """Sets fields of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
