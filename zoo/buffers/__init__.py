"""Where experience is kept until it is learned from: `make_buffer` returns one of these, and that is the data axis."""

from zoo.buffers.replay import ReplayBuffer
from zoo.buffers.rollout import RolloutBuffer
from zoo.buffers.segments import SegmentBuffer
from zoo.protocol import Segment, Transition

__all__ = ["ReplayBuffer", "RolloutBuffer", "Segment", "SegmentBuffer", "Transition"]
