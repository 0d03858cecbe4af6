"""Linear maps by name, (..., I) to (..., features).

  make(features, parts, name)        the module

What else a kind may answer (kinds.py:about asks; one that does not know the question is
taken to say no):

  kernels() -> int                   of how many matrices it is the plain product, which its
                                     module's kernels(inputs) gives; one alone is 'kernel'
  factors() -> bool                  whether these are two trained ones, 'a' and 'b'
  merged(p) -> W (..., I, O)         the one matrix whose product it is but for the bias, of
                                     its parameters and buffers in float32; the first
                                     axes are of stacked layers
  convolve(features, kernel, stride, parts, name)   the module on images
  short() -> (field, value)          of the smaller side of its largest arrays, if not D
  bases() -> int                     numbers that an input becomes on its way
  mixes_rows()                       as norms say it
  frozen() -> names                  of parameters that are not trained
  flops(shapes)                      of a row, where MATRICES does not say it
  extra() -> transformations         between an optimiser's directions and its rate
  around_steps(inner, seed), around_clipping(inner)   the optimiser in one of its own,
                                     inside or outside of clipping

truth(kind, x, p): p has parameters and buffers.
"""

from elas_jax.systems.linears.cola import CoLA
from elas_jax.systems.linears.dense import Dense
from elas_jax.systems.linears.kan_selectable import FAMILIES, Selectable
from elas_jax.systems.linears.lora import LoRA
from elas_jax.systems.linears.lost import LOST
from elas_jax.systems.linears.low_rank import LowRank
from elas_jax.systems.linears.masked import Masked
from elas_jax.systems.linears.quadratic import Quadratic
from elas_jax.systems.linears.rational import Rational
from elas_jax.systems.linears.sltrain import SLTrain

LINEARS = {
  'dense': Dense,
  'low_rank': LowRank,
  'cola': CoLA,
  'lora': LoRA,
  'sltrain': SLTrain,
  'lost': LOST,
  'masked': Masked,
  'quadratic': Quadratic,
  'rational': Rational,
  **{f'kan_{name}': family for name, family in FAMILIES.items()},
  'kan_selectable': Selectable,
}
