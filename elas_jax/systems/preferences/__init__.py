"""What is asked of the two answers of a pair: kinds of train.preference.

The inputs are float32 sums over the tokens of an answer, (B, 2) with the chosen one first:
`log_p` and `reference`, the log-probabilities of the answers by the network and by the
parameters that the run started with, and `tokens`, how many an answer has. Each kind has

  loss(log_p, reference, tokens)      of each pair, (B,)
  rewards(log_p, reference, tokens)   of each answer, (B, 2); the pair counts as right where
                                      the chosen one's is above the other's
  check(where, config)

truth(kind, log_p, reference, tokens): (loss, rewards) in NumPy float64.
"""

from elas_jax.systems.preferences.dpo import Dpo

PREFERENCES = {'dpo': Dpo}
