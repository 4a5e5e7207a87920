"""Keeps the checkpoints of a training run in any storage, and resumes the run from them."""
