"""From raw multimodal data in S3 to promoted models.

The stages, in order, each a package of this name:

1. ``snapshot``    freezes raw objects into shards of samples, and keeps what it rejects.
2. ``features``    decodes every blob once into tensors, signals and embeddings.
3. ``training``    plans exact batches over a frozen release and trains a model on them.
4. ``evaluation``  measures the model on fixed slices and corruptions.
5. ``promotion``   decides, and moves the registry when every gate passed.
"""
