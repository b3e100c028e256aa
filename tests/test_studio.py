"""What stands behind the web page: filling at another size, suggesting, taking turns."""

import asyncio

import numpy as np
import pytest
from PIL import Image

from inpaint_jax.data.sources import open_source
from inpaint_jax.demo.studio import Studio
from inpaint_jax.demo.turns import Crowded, Left, Turns
from inpaint_jax.errors import UserError
from inpaint_jax.inference.inpainter import Inpainter


@pytest.fixture(scope="module")
def studio(tiny_workdir):
    return Studio(Inpainter.load(tiny_workdir), None)


@pytest.fixture(scope="module")
def cup():
    return Image.fromarray(np.asarray(open_source("skimage:validation")[0]))


def square(height, width, share=4):
    """bool [H, W]."""
    hole = np.zeros((height, width), bool)
    hole[height // share : -height // share, width // share : -width // share] = True
    return hole


def test_large_photo_is_filled_at_a_smaller_size(studio, cup):
    photo = np.asarray(cup.resize((900, 600)))
    hole = square(300, 450, share=3)  # drawn at half the size
    filled = studio.fill(photo, hole, None, side=128)
    assert filled.worked_at == (128, 128)  # a window of twice the hole
    assert filled.pixels.shape == photo.shape
    missing = np.repeat(np.repeat(hole, 2, axis=0), 2, axis=1)
    np.testing.assert_array_equal(filled.pixels[~missing], photo[~missing])
    assert (filled.pixels != photo).any(axis=-1)[missing].mean() > 0.9
    assert filled.temperatures.shape == (2,)


def test_small_photo_is_filled_as_it_is(studio, tiny_workdir, cup):
    photo = np.asarray(cup.resize((96, 64)))
    hole = square(64, 96)
    filled = studio.fill(photo, hole, None, side=512)
    np.testing.assert_array_equal(filled.pixels, Inpainter.load(tiny_workdir)(photo, hole))


def test_suggestion_without_weights(studio, cup):
    with pytest.raises(UserError, match="--pidinet_weights"):
        studio.suggest(np.asarray(cup), 300)


def test_who_leaves_does_not_hold_up_the_others():
    async def visit():
        turns, gate, left = Turns(most_waiting=4), asyncio.Event(), asyncio.Event()
        served = []

        async def one(ticket, has_left=None):
            async with turns.turn(ticket, has_left):
                served.append(ticket)
                await gate.wait()

        async def has_left():
            return left.is_set()

        tasks = [asyncio.create_task(one("a")), asyncio.create_task(one("b", has_left)), asyncio.create_task(one("c"))]
        await asyncio.sleep(0.05)
        assert turns.before("c") == 2
        left.set()
        with pytest.raises(Left):
            await tasks[1]
        assert turns.before("c") == 1
        gate.set()
        await asyncio.gather(tasks[0], tasks[2])
        assert served == ["a", "c"]

    asyncio.run(visit())


def test_turns_come_in_order_of_arrival():
    async def visit():
        turns, order, gate = Turns(most_waiting=2), [], asyncio.Event()

        async def one(ticket):
            async with turns.turn(ticket):
                order.append(ticket)
                await gate.wait()

        tasks = []
        for ticket in "abc":
            tasks.append(asyncio.create_task(one(ticket)))
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [turns.before(ticket) for ticket in "abcd"] == [0, 1, 2, None]
        with pytest.raises(Crowded, match="try again"):
            await one("d")
        tasks[1].cancel()  # who leaves makes room
        gate.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == ["a", "c"]
        assert [turns.before(ticket) for ticket in "abc"] == [None] * 3

    asyncio.run(visit())
