"""Keras on JAX and on PyTorch: collected only where KERAS_BACKEND says one of them."""

import os

if os.environ.get("KERAS_BACKEND") not in ("jax", "torch"):
    collect_ignore_glob = ["test_*.py"]
