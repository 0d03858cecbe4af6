"""elas-jax: pre-training of low-rank language models with 2:4-sparse activations."""

from elas_jax.common.interruption import quiet_start

quiet_start()
