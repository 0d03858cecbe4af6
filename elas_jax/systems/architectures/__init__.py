"""Classifiers and regressors, for classes or values, by name: (B, ...) to (B, outputs).

  make(model, train, name)   the module; `model` is the config's section (width, depth,
                             outputs, input_shape, activation, norm, linear, parts)
  owners(model)              path below the module -> (the kind whose parameters lie there,
                             or, of plain layers, their own axes; the Map of a linear one)
  stack(model)               of a transformer its layers, systems/layers.py:Stack
  hidden(model)              the name and the size of the width inside of feed-forwards
  input_widths(model)        what linear maps read: config field -> width
  widths(model)              what they read and what they give
  kept(model) -> int         numbers of a row that the layers surely keep for the backward
                             pass, beside the row itself

All but stack, hidden and kept must be there. Most layers are of the model's linear kind.
"""

from elas_jax.systems.architectures.convnet import ConvNet
from elas_jax.systems.architectures.resnet import ResNet
from elas_jax.systems.architectures.stack import Stack
from elas_jax.systems.architectures.vit import VisionTransformer

ARCHITECTURES = {
  'stack': Stack,
  'convnet': ConvNet,
  'resnet': ResNet,
  'vit': VisionTransformer,
}
