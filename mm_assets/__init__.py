"""From raw multimodal data in S3 to promoted models.

The five stages, in order, each a package of this name:

1. ``snapshot``    freezes raw objects into shards of samples, and keeps what it rejects.
2. ``features``    decodes every blob once into tensors and signals, and embeds them.
3. ``training``    plans exact batches (``batching``) over a frozen dataset (``release``) and trains a model on them.
4. ``evaluation``  measures the model on fixed slices and corruptions.
5. ``promotion``   decides, and moves the registry where every gate passed.

docs/architecture.md shows what else there is and how it belongs together.
"""
