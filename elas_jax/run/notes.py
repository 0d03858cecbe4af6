"""What a run says at every start, beside what was found out about its past."""

from elas_jax.config.config import Config
from elas_jax.run import measures
from elas_jax.systems.kinds import about


def notes(config: Config) -> list[str]:
  """What the layers have to say, as what their products run on; measures of nothing."""
  stack, found = config.model.stack, []
  for layer in stack.cycle if stack else ():
    for kind in (layer.attention, layer.feed_forward):
      found += about(kind, 'notes', stack.parts, config.length, default=[])
  return [*dict.fromkeys(found), *measures.lacking(config)]
