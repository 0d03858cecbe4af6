"""What measures time and memory, here and on a GPU; results/ holds what it measured."""

from elas_jax.common.interruption import quiet_start

quiet_start()
