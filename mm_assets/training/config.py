"""The configuration's section ``training``: everything a training spec holds that is not the plan's. Torch-free.

All of it decides bytes. What does not (progress, budget, number of processes) is placement and stands elsewhere.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Shape of the network; see ``training/network.py``.

    Attributes:
        width: Channels of the residual stream.
        heads: Attention heads; a divisor of ``width``.
        tower_layers: First layers, in which modalities do not see one another.
        fused_layers: Last layers, in which they do.
        mlp_ratio: Hidden channels of a feed-forward block per channel.
        ngrams: Lengths of the byte n-grams whose hashed embeddings are added to each text token.
        ngram_buckets: Rows of each n-gram embedding table.
        stem_channels: Channels of the two convolutions before the patch embedding.
        projection_dim: Length of the representations that are aligned.
        dropout: Rate inside the layers and before the classifier.
        max_positions: Text and audio positions with an embedding of their own; later tokens share the last.
    """

    width: int = 128
    heads: int = 4
    tower_layers: int = 2
    fused_layers: int = 2
    mlp_ratio: int = 3
    ngrams: tuple[int, ...] = (2, 3, 4, 5)
    ngram_buckets: int = 2048
    stem_channels: tuple[int, int] = (24, 48)
    projection_dim: int = 64
    dropout: float = 0.1
    max_positions: int = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """Weights of the three objectives, and the form of the label loss.

    Attributes:
        label: Weight of the classification loss.
        contrastive: Weight of the alignment between modalities.
        text: Weight of the next-token loss.
        label_smoothing: Probability spread over all classes.
        class_balance: Exponent of the inverse class frequency that weights a sample; 1 balances fully, 0 not at all.
    """

    label: float = 1.0
    contrastive: float = 0.5
    text: float = 0.2
    label_smoothing: float = 0.1
    class_balance: float = 0.75


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """AdamW with a linear warm-up and a cosine decay to ``final_lr_fraction`` of the peak."""

    peak_lr: float = 1.5e-3
    final_lr_fraction: float = 0.02
    warmup_steps: int = 30
    weight_decay: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.98
    max_grad_norm: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """Random changes of the inputs, keyed by (seed, step, lane). Zero switches one off.

    Attributes:
        flip: Probability that a picture is mirrored.
        shift: Largest shift of a picture in pixels; white comes in.
        colour: Largest relative change of brightness and of each colour channel.
        audio_noise: Standard deviation of noise added to log-mel values (their range is about 2).
        audio_mask: Share of the mel bands and of the stacks that are blanked.
        byte_mask: Probability that a text token is replaced by MASK on input.
        modality_dropout: Probability that a sample's modality is hidden from the fused layers; one always stays.
    """

    flip: float = 0.5
    shift: int = 6
    colour: float = 0.2
    audio_noise: float = 0.05
    audio_mask: float = 0.1
    byte_mask: float = 0.05
    modality_dropout: float = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """A whole training run. Steps, lanes and packs are the plan's.

    Attributes:
        precision: ``fp32``, or ``bf16``: products of the forward pass in bfloat16, weights and losses in float32.
        determinism: ``strict``, the only one so far: same bits at any world size that divides the lanes.
        threads_per_rank: Fixed, because another number of threads sums in another order.
        checkpoint_every: Steps between two checkpoints; a killed run redoes at most that many.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    precision: str = "fp32"
    determinism: str = "strict"
    threads_per_rank: int = 1
    checkpoint_every: int = 100
