"""One script for each table; results/ holds what they measured."""

from elas_jax.common.interruption import quiet_start

quiet_start()
