"""Sections that do not fit each other are refused by name, before anything is compiled."""

import pytest

from configs import default, images
from elas_jax import train
from elas_jax.common.errors import UserError
from elas_jax.config.parsing import parse
from tests.config.checks_test import refusal, with_fields

MOSAIC = {'model.feed_forward.implementation': 'mosaic'}
BFLOAT16 = {'model.compute_dtype': 'bfloat16'}
MQA_OF_32 = {'model.attention': 'mqa', 'model.attention.heads': 4}
FORCED = "model.feed_forward.implementation='mosaic'"


@pytest.mark.parametrize(
  'method, changes, said',
  [
    ('elas', {'model.feed_forward_width': 770}, 'model.feed_forward_width=770: must be a'),
    ('elas', {'model.linear': 'cola', 'optimizer': 'adamw'}, "model.linear='cola'"),
    (
      'elas',
      {'model.feed_forward.recipe': 'mvue', 'model.feed_forward.recipe.backward': 'exact'},
      "model.feed_forward.recipe.backward='exact': must be one of 'straight_through', ",
    ),
    (
      'elas',
      {'model.feed_forward.recipe.backward': 'split', 'data.sequence_length': 126},
      'data.sequence_length=126: must be a multiple of 4',
    ),
    (
      'elas',
      {'model.feed_forward.recipe': 'transposable'},
      "model.feed_forward.recipe='transposable'",
    ),
    (
      'elas',
      {'model.feed_forward.dense_steps': 3_000},
      'model.feed_forward.dense_steps=3000: must be below train.steps=3000',
    ),
    ('low_rank', {'optimizer': 'galore'}, "optimizer='galore': needs"),
    (
      'full',
      {'optimizer': 'loro'},
      "optimizer='loro': needs a model.linear of two factors",
    ),
    (
      'loro',
      {'optimizer.weight_decay': 0.1},
      "optimizer.weight_decay=0.1: no such field of optimizer='loro'; 'adamw', 'sgd', ",
    ),
    (
      'loro',
      MQA_OF_32 | {'model.linear.rank': 33},
      'model.linear.rank=33: must be at most 32',
    ),
    ('sltrain', {'model.width': 2**16}, 'model.width=65536, model.feed_forward_width='),
    (
      'cola',
      {'model.linear.factor_init': 'spectral'},
      "model.linear.factor_init=spectral: no such field of model.linear='cola'; 'low_rank' "
      'has it; ',
    ),
    (
      'lora',
      {'model.linear.rank': 129},
      'model.linear.rank=129: must be at most 128, the ',
    ),
    (
      'full',
      {'model.linear': 'kan_af', 'model.linear.function_norm': 'batch'},
      "model.linear.function_norm='batch': would show a token those after it; 'example', "
      'the default, does not',
    ),
    (
      'full',
      {
        'model.linear': 'kan_selectable',
        'model.linear.pool': 'fast,af',
        'model.linear.function_norm': 'batch',
      },
      "model.linear.function_norm='batch': would show a token",
    ),
    (
      'full',
      {'model.linear': 'kan_selectable', 'model.linear.pool': 'fast,kan_af'},
      "model.linear.pool='fast,kan_af': ",
    ),
    (
      'full',
      {'model.norm': 'batch'},
      "model.norm='batch': would show a token those after it; 'rms', "
      "'layer', 'none', 'evonorm_s0' do not",
    ),
    (
      'full',
      {'model.feed_forward': 'kat', 'model.feed_forward.groups': 5},
      'model.feed_forward.groups=5: must divide model.width=128',
    ),
    (
      'digits,conv_mlp',
      {'model.linear': 'low_rank', 'model.linear.rank': 2},
      "model.linear='low_rank': must be one of 'dense', 'masked', 'quadratic', ",
    ),
    (
      'digits,mlp',
      {'optimizer': 'loro'},
      "optimizer='loro': is for the linear maps of a",
    ),
    (
      'digits,gr_kan',
      {'model.linear.groups': 3},
      'model.linear.groups=3: must divide ',
    ),
    (
      'digits,quadratic',
      {'model.linear.form': 'square'},
      "model.linear.start='relinear': must be 'random' with model.linear.form='square'",
    ),
    (
      'digits,vit',
      {'model.architecture.patch': 3},
      'model.architecture.patch=3: must divide a side of model.input_shape=8',
    ),
    (
      'digits,vit',
      {'model.input_shape': (64,)},
      "model.architecture='vit': needs images, model.input_shape of (H, W, C), not (64,)",
    ),
    ('elas', MOSAIC, f"{FORCED}: needs model.compute_dtype='bfloat16', not 'float32'"),
    (
      'loro_relu2',
      MOSAIC | BFLOAT16,
      'model.feed_forward.implementation=mosaic: no such field of '
      "model.feed_forward='mlp'; 'relu2_two_four' has it; ",
    ),
    (
      'elas',
      MOSAIC | BFLOAT16 | {'model.feed_forward.recipe.backward': 'split'},
      f"{FORCED}: the products of the backward pass 'split' have no kernels; accepted "
      "are model.feed_forward.recipe='top2' with model.feed_forward.recipe.backward "
      "'exact' or 'transposable'",
    ),
    (
      'elas',
      MOSAIC
      | BFLOAT16
      | {
        'model.feed_forward.recipe': 'mvue',
        'model.feed_forward.recipe.backward': 'straight_through',
      },
      f"{FORCED}: pruning by the rule 'mvue' has no kernel; accepted are",
    ),
  ],
)
def test_impossible_combination_is_refused_by_name(method, changes, said):
  config = images.get_config(method) if ',' in method else default.get_config(method)
  assert refusal(config, changes).startswith(said)


@pytest.mark.parametrize(
  'flags, said',
  [
    (['optimizer=galore'], "optimizer='galore': needs a model.linear with one kernel"),
    (['optimizer=loro', 'model.linear=dense'], "optimizer='loro': needs a model.linear of"),
    (
      ['model.feed_forward=relu2_two_four', 'model.linear=lora', 'model.linear.rank=8'],
      "model.linear='lora': must be one of 'dense', 'low_rank', 'masked' with a 2:4",
    ),
    (['model.norm=batch'], "model.norm='batch': would show a token those after it"),
    (
      ['model.position=none', 'model.attention.heads=7'],
      'model.attention.heads=7: must d',
    ),
    (['schedule.warmup_steps=1.5'], 'schedule.warmup_steps=1.5: must be a number of steps'),
  ],
)
def test_the_command_refuses_before_anything_is_made(flags, said, tmp_path, monkeypatch):
  reached = lambda *_: pytest.fail('a config that cannot run is trained')
  monkeypatch.setattr(train, 'train', reached)
  overrides = [f'--config.{flag}' for flag in flags]
  with pytest.raises(UserError) as error:
    train.main([*overrides, f'--workdir={tmp_path / "run"}'])
  assert str(error.value).startswith(said)
  assert '\n' not in str(error.value)
  assert list(tmp_path.iterdir()) == []


def test_any_device_may_read_a_config_that_asks_for_kernels():
  config = parse(with_fields(default.get_config('elas'), MOSAIC | BFLOAT16))
  assert config.model.feed_forward.implementation == 'mosaic'
