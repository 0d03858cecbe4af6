"""elas-jax: pre-training low-rank language models with 2:4-sparse activations."""
