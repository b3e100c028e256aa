"""Checkpoints through real files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inpaint_jax.checkpoints import Checkpoints, load_generator


def tree(value):
    return {"layer": {"kernel": jnp.full((2, 3), float(value)), "bias": jnp.arange(3.0) + value}}


def rest(value):
    return {"step": jnp.int32(value), "optimizer": (tree(value), ())}


def save(checkpoints, step, score=None):
    progress = {"best_score": score, "best_step": step}
    checkpoints.save(step, generator=tree(step), rest=rest(step), progress=progress, score=score)


def test_round_trip(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 7, 0.5)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 7
        generator, others, progress = checkpoints.restore(7, generator=tree(0), rest=rest(0))
    jax.tree.map(np.testing.assert_array_equal, generator, tree(7))
    jax.tree.map(np.testing.assert_array_equal, others, rest(7))
    assert progress == {"best_score": 0.5, "best_step": 7}


def test_keeps_the_best_and_the_latest_even_after_a_restart(tmp_path):
    for steps in ([(0, 3.0), (5, None), (10, 1.0)], [(15, None), (20, 2.0), (25, None)]):
        with Checkpoints(tmp_path) as checkpoints:
            for step, score in steps:
                save(checkpoints, step, score)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["10", "25"]
    params, step = load_generator(tmp_path)
    assert step == 10
    jax.tree.map(np.testing.assert_array_equal, params, tree(10))
    params, step = load_generator(tmp_path, 25)
    jax.tree.map(np.testing.assert_array_equal, params, tree(25))


def test_step_zero_may_be_the_best(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 0, 1.0)
        save(checkpoints, 5, 2.0)
    assert load_generator(tmp_path)[1] == 0


def test_a_step_is_not_saved_twice_in_silence(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 1)
        with pytest.raises(Exception, match="already"):
            save(checkpoints, 1)


def test_missing_checkpoints_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no checkpoints"):
        load_generator(tmp_path)
    with Checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 1, 1.0)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint of step 3; it has \[1\]"):
        load_generator(tmp_path, 3)


def test_another_network_is_refused(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        save(checkpoints, 1)
        other = {"layer": {"kernel": jnp.zeros((4, 3)), "bias": jnp.zeros(3)}}
        with pytest.raises(ValueError, match=r"shape"):
            checkpoints.restore(1, generator=other, rest=rest(0))
