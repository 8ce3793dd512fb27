"""Segments of any policy: columns that are full are learned from, and older ones after them."""

import gymnasium as gym
import numpy as np
import torch

from zoo.buffers.segments import SegmentBuffer
from zoo.protocol import Transition
from zoo.spec import Spec

SPEC = Spec(gym.spaces.Box(-9, 9, (1,)), gym.spaces.Discrete(2))


def rows(*values: float) -> Transition:
    column = np.array(values, np.float32)
    flags = np.zeros(len(values), np.bool_)
    return Transition(column[:, None], flags.astype(np.int64), column, column[:, None] + 1, flags, flags, column)


def test_segments_of_fast_columns_do_not_wait_for_slow_ones() -> None:
    buffer = SegmentBuffer(SPEC, 2, 2, torch.Generator())
    assert buffer.pending
    buffer.add(rows(1, 10), np.array([True, False]))
    assert not list(buffer.batches())
    buffer.add(rows(2, 20), np.array([True, True]))
    (batch,) = buffer.batches()
    assert batch.reward.tolist() == [[1], [2]]
    assert not buffer.pending
    buffer.add(rows(3, 30), np.array([True, True]))
    (batch,) = buffer.batches()
    assert batch.reward.tolist() == [[20], [30]]


def test_replayed_segments_follow_each_fresh_one() -> None:
    buffer = SegmentBuffer(SPEC, 2, 3, torch.Generator(), replayed=2, capacity=50)
    seen = []
    for t in range(6):
        buffer.add(rows(t, 100 + t), np.ones(2, np.bool_))
        seen.append([batch.reward.shape for batch in buffer.batches()])
    assert seen == [[], [], [(3, 2)] * 3, [], [], [(3, 2)] * 3]
