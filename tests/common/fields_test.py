"""Checks of single fields: what they say."""

import pytest

from elas_jax.common.errors import UserError
from elas_jax.common.fields import divides


@pytest.mark.parametrize(
  'value, whole, said', [(7, 12, '1, 2, 3, 4, 6, 12'), (5, 4, '1, 2, 4')]
)
def test_divisors_are_named(value, whole, said):
  with pytest.raises(UserError) as error:
    divides('a', value, 'b', whole)
  assert str(error.value) == f'a={value}: must divide b={whole}; accepted: {said}'


def test_divisors_of_large_numbers_take_no_time():
  with pytest.raises(UserError, match='accepted: 1, 2147483647$'):
    divides('a', 5, 'b', 2**31 - 1)
