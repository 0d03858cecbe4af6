"""Classifiers and regressors, for classes or values, by name: (B, ...) to (B, outputs).

  make(model, train, name)   the module; `model` is the config's section (width, depth,
                             outputs, input_shape, activation, norm, linear, parts)
  owners(model)              path below the module -> the kind whose parameters lie there,
                             or, of plain layers, their own axes
  input_widths(model)        what linear maps read: config field -> width
  widths(model)              what they read and what they give
  keeps_rows() -> bool       whether each of `depth` layers surely keeps its D inputs for
                             the backward pass

Most layers are of the linear kind of the model.
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
