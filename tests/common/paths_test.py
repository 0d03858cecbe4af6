"""Rules on the paths of parameters."""

import pytest

from elas_jax.common.errors import UserError
from elas_jax.common.paths import match, names

TREE = {'matrix': 1, 'half': 2, 'norm': {'scale': 3}}


def test_names_are_in_the_order_of_leaves():
  assert names(TREE) == ['half', 'matrix', 'norm/scale']


def test_first_matching_rule_wins():
  rules = (('h', 1), ('half', 2), ('.*', 3))
  assert match(TREE, rules, 'rules') == {'matrix': 3, 'half': 1, 'norm': {'scale': 3}}


def test_a_parameter_without_a_rule_is_named():
  with pytest.raises(UserError, match=r"^rules: no rule matches .*'norm/scale'"):
    match(TREE, (('matrix', 1.0), ('half', 1.0)), 'rules')
