"""Tables of runs: papers/ declares them, run.py makes them, results/ has what came out."""

from elas_jax.common.interruption import quiet_start

quiet_start()
