"""The main job on real sample data: what it is made from (``catalog``, ``speech``, ``data``) and the run (``job``)."""
