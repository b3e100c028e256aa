"""Checkpoints through real files."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inpaint_jax.checkpoints import Checkpoints, load_generator
from inpaint_jax.errors import UserError


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


def damage(path, how):
    """Deletes or cuts a file, deletes a folder or all that is in it."""
    if how == "gone":
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    elif how == "emptied" and path.is_dir():
        shutil.rmtree(path)
        path.mkdir()
    else:
        path.write_bytes(path.read_bytes()[: 0 if how == "emptied" else path.stat().st_size // 2])


@pytest.fixture(scope="module")
def three_steps(tmp_path_factory):
    """Steps 6, the best, and 9, the latest, are left."""
    folder = tmp_path_factory.mktemp("three")
    with Checkpoints(folder) as checkpoints:
        for step, score in ((3, 1.0), (6, 0.5), (9, 2.0)):
            save(checkpoints, step, score)
    return folder


@pytest.mark.parametrize(
    ("what", "how"),
    [
        *(("", "gone"), ("", "emptied"), ("generator", "gone"), ("rest", "emptied"), ("progress", "gone")),
        *(("generator/_METADATA", "cut"), ("generator/manifest.ocdbt", "gone"), ("generator/d/*", "cut")),
        *(("rest/manifest.ocdbt", "emptied"), ("rest/d/*", "gone"), ("rest/d/*", "cut"), ("rest/_METADATA", "emptied")),
        *(("progress/metadata", "gone"), ("progress/metadata", "emptied"), ("metrics/metrics", "cut")),
    ],
)
def test_a_damaged_checkpoint_is_moved_aside_and_the_one_before_restored(three_steps, tmp_path, caplog, what, how):
    shutil.copytree(three_steps / "checkpoints", tmp_path / "checkpoints")
    (place,) = (tmp_path / "checkpoints" / "9").glob(what) if what else [tmp_path / "checkpoints" / "9"]
    damage(place, how)
    with Checkpoints(tmp_path) as checkpoints:
        step, generator, others, progress = checkpoints.restore_latest(generator=tree(0), rest=rest(0))
        assert checkpoints.latest_step() == step == 6
        jax.tree.map(np.testing.assert_array_equal, (generator, others), (tree(6), rest(6)))
        assert progress["best_step"] == 6
        aside = tmp_path / "checkpoints" / "damaged_9"
        if (what, how) != ("", "gone"):
            assert f"The checkpoint of step 9 cannot be read and is now {aside}; an earlier one is used" in caplog.text
            assert aside.is_dir()
        save(checkpoints, 9, 0.25)
    assert load_generator(tmp_path)[1] == 9


def test_the_only_checkpoint_stays_where_it_is(three_steps, tmp_path):
    shutil.copytree(three_steps / "checkpoints", tmp_path / "checkpoints")
    for step in (6, 9):
        damage(tmp_path / "checkpoints" / str(step) / "rest" / "manifest.ocdbt", "emptied")
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError, match="checkpoints/9 cannot be read"):
        checkpoints.restore_latest(generator=tree(0), rest=rest(0))
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"6", "9"}


def test_damage_comes_twice(three_steps, tmp_path):
    shutil.copytree(three_steps / "checkpoints", tmp_path / "checkpoints")
    for _ in range(2):
        damage(tmp_path / "checkpoints" / "9" / "progress", "gone")
        with Checkpoints(tmp_path) as checkpoints:
            assert checkpoints.restore_latest(generator=tree(0), rest=rest(0))[0] == 6
            save(checkpoints, 9)
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"6", "9", "damaged_9", "damaged_9_2"}


def test_a_fresh_workdir_has_nothing_to_restore(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore_latest(generator=tree(0), rest=rest(0)) is None
