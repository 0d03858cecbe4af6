"""One script for each table; results/ holds what they measured."""

from elas_jax.interruption import quiet_start

quiet_start()
