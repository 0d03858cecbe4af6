"""-log sigmoid(r(chosen) - r(rejected)), r = beta log(p / p_start): DPO (arXiv 2305.18290).

p(y) is the probability of the answer y behind its prompt, the product over its tokens, and
p_start that by the parameters at the start. So far the authors' code, with which this was
compared (trainers.py:dpo_loss; beta of 0.1 to 0.5 there). What else there is, off as
published:

  label_smoothing  -(1 - s) log sigmoid(m) - s log sigmoid(-m), m = r(chosen) - r(rejected):
                   conservative DPO, for labels of which a share s is wrong (E. Mitchell,
                   "A note on DPO with noisy preferences and relationship to IPO", 2023)
  length_normalised  log p / |y| in place of log p, |y| the tokens of the answer, as Tulu 3
                   has it (arXiv 2411.15124, section 5, with beta = 5)
  nll              + nll * -log p(chosen) / |chosen|, which keeps the chosen answer probable
                   (iterative reasoning preference optimisation, arXiv 2404.19733, with 1)
"""

import dataclasses
from typing import Any

import jax
import numpy as np

from elas_jax.common.errors import UserError
from elas_jax.common.fields import above, at_least


@dataclasses.dataclass(frozen=True)
class Dpo:
  beta: float = 0.1  # how much the network is held to the start; as published
  label_smoothing: float = 0.0  # share of pairs that are the wrong way round, below 0.5
  length_normalised: bool = False  # log-probabilities are means over an answer's tokens
  nll: float = 0.0  # coefficient of -log p of the chosen answer, a token

  def check(self, where: str, config: Any) -> None:
    del config
    above(0, where, self, 'beta')
    at_least(0, where, self, 'nll')
    if not 0 <= self.label_smoothing < 0.5:
      raise UserError(
        f'{where}.label_smoothing={self.label_smoothing!r}: must be at least 0 and below '
        '0.5, at which both answers would be as good'
      )

  def rewards(
    self, log_p_Bx2: jax.Array, reference_Bx2: jax.Array, tokens_Bx2: jax.Array
  ) -> jax.Array:
    ratio_Bx2 = log_p_Bx2 - reference_Bx2
    return self.beta * (ratio_Bx2 / tokens_Bx2 if self.length_normalised else ratio_Bx2)

  def loss(
    self, log_p_Bx2: jax.Array, reference_Bx2: jax.Array, tokens_Bx2: jax.Array
  ) -> jax.Array:
    rewards_Bx2 = self.rewards(log_p_Bx2, reference_Bx2, tokens_Bx2)
    margin_B = rewards_Bx2[:, 0] - rewards_Bx2[:, 1]
    right_B, wrong_B = jax.nn.log_sigmoid(margin_B), jax.nn.log_sigmoid(-margin_B)
    loss_B = -(1 - self.label_smoothing) * right_B - self.label_smoothing * wrong_B
    return loss_B - self.nll * log_p_Bx2[:, 0] / tokens_Bx2[:, 0]


CASES = (
  Dpo(),
  Dpo(beta=0.5, label_smoothing=0.1),
  Dpo(beta=5.0, length_normalised=True),
  Dpo(nll=1.0),
)


def truth(
  kind: Dpo, log_p: np.ndarray, reference: np.ndarray, tokens: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """By the probability of a Bradley-Terry model that the chosen answer wins."""
  if kind.length_normalised:
    better = (log_p - reference) / tokens
  else:
    better = log_p - reference
  strength = np.exp(kind.beta * better)
  wins = strength[:, 0] / strength.sum(1)
  s = kind.label_smoothing
  loss = -np.log(wins ** (1 - s) * (1 - wins) ** s)
  return loss - kind.nll * log_p[:, 0] / tokens[:, 0], np.log(strength)
