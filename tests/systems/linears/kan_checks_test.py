"""Which Kolmogorov-Arnold kinds can be: the others are refused by name."""

import dataclasses
import typing

import pytest

from elas_jax.common.errors import UserError
from elas_jax.systems import kinds
from elas_jax.systems.linears.kan_selectable import FAMILIES, Selectable

KANS = {**FAMILIES, 'selectable': Selectable}
BAD = [
  ('bspline', {'grid': 0}, 'model.linear.grid=0: must be at least 1'),
  ('fourier', {'grid': 0}, 'model.linear.grid=0: must be at least 1'),
  ('chebyshev', {'order': 0}, 'model.linear.order=0: must be at least 1'),
  ('bspline', {'order': 6}, 'model.linear.order=6: must be at most model.linear.grid=5'),
  ('bsrbf', {'order': 6}, 'model.linear.order=6: must be at most model.linear.grid=5'),
  ('relu', {'order': 4}, 'model.linear.order=4: must be at most model.linear.grid=3'),
  ('af', {'order': 4}, 'model.linear.order=4: must be at most model.linear.grid=3'),
  ('af', {'reduction': ''}, "model.linear.reduction='': must be different names of "),
  ('af', {'reduction': 'global_attn,local'}, "'multistep', 'spatial_attn', joined by"),
  ('skan', {'init_scale': -1.0}, 'model.linear.init_scale=-1.0: must be at least 0'),
  ('selectable', {'pool': 'fast,selectable'}, "model.linear.pool='fast,selectable': must"),
  ('selectable', {'pool': 'fast,fast'}, "'polynomial', 'relu', 'skan', 'wavelet', joined"),
  ('selectable', {'top_k': 5}, 'model.linear.top_k=5: must be from 1 to 4, the members'),
  ('selectable', {'top_k': 0}, 'model.linear.top_k=0: must be from 1 to 4, the members'),
  ('selectable', {'order': 6}, 'model.linear.order=6: must be at most model.linear.grid=5'),
  ('selectable', {'reduction': 'mean'}, "model.linear.reduction='mean': must be different"),
  *(
    (name, {'grid_min': 1.0, 'grid_max': high}, f'model.linear.grid_max={high}: must be l')
    for name in ('bspline', 'wavelet', 'fast', 'faster', 'bsrbf', 'relu', 'af')
    for high in (-1.0, 1.0, 1 + 1e-9)
  ),
]


@pytest.mark.parametrize('name, fields, message', BAD)
def test_values_that_cannot_be_are_refused_by_name(name, fields, message):
  with pytest.raises(UserError) as error:
    KANS[name](**fields).check('model.linear', None)
  assert message in str(error.value) and '\n' not in str(error.value)


def test_only_splines_need_an_order_within_their_grid():
  for kind in (KANS['chebyshev'](order=9), Selectable(pool='chebyshev,fast', order=6)):
    kind.check('model.linear', None)


def test_names_are_typed_and_exist():
  """Fields of names are Literals, which are checked before; their defaults are there."""
  for kind in KANS.values():
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
      if hints[field.name] is str:
        assert field.name in ('reduction', 'pool')
      elif typing.get_origin(hints[field.name]) is typing.Literal:
        assert field.default in typing.get_args(hints[field.name])
    kind().check('model.linear', None)


def test_cases_have_every_name():
  """But what a selectable layer hands on."""
  for kind in KANS.values():
    cases, hints = kinds.room(kind).CASES, typing.get_type_hints(kind)
    for name, hint in hints.items():
      shared = kind is Selectable and name not in ('selection', 'phase')
      if typing.get_origin(hint) is typing.Literal and not shared:
        accepted = {*typing.get_args(hint)}
        assert accepted == {getattr(case, name) for case in cases}, (kind, name)


def test_one_line_says_what_each_is():
  for kind in KANS.values():
    first = kinds.room(kind).__doc__.splitlines()[0]
    assert first.endswith('.') and len(first) <= 90
