"""What many tests compute, compiled once for each config."""

import jax

from elas_jax.models.decoder import Decoder
from elas_jax.run import state

init_variables = jax.jit(state.init_variables, static_argnums=0)


def _logits(model, variables, tokens_BxL, rngs):
  return Decoder(model).apply(variables, tokens_BxL, rngs=rngs)[0]


jit_logits = jax.jit(_logits, static_argnums=0)


def logits_of(config, params, tokens_BxL):
  return jit_logits(config.model, {'params': params}, tokens_BxL, None)
