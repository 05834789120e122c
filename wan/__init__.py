"""A wide-area link in user space: a TCP proxy whose latency, bandwidth and faults can be changed while requests run."""

from wan.conditions import Conditions
from wan.faults import Direction, Fault, FaultKind
from wan.link import Link
from wan.network import Wan
from wan.profiles import PROFILES, Profile

__all__ = ["PROFILES", "Conditions", "Direction", "Fault", "FaultKind", "Link", "Profile", "Wan"]
