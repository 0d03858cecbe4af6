"""What the backward pass keeps of a layer, by name: the rest is computed again."""

import jax

# None: everything is kept; else what the policy saves.
REMAT_POLICIES = {
  'none': None,
  'full': jax.checkpoint_policies.nothing_saveable,
  'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  # The R-wide results between the factors: CoLA-M (arXiv 2502.10940).
  'bottleneck': jax.checkpoint_policies.save_only_these_names('bottleneck'),
}
