"""A wide-area link in user space: a TCP proxy whose latency, bandwidth and faults can be changed while requests run."""

from wan.link.conditions import Conditions
from wan.link.faults import Direction, Fault, FaultKind
from wan.link.link import Link
from wan.link.profiles import PROFILES, Profile
from wan.network import Wan

__all__ = ["PROFILES", "Conditions", "Direction", "Fault", "FaultKind", "Link", "Profile", "Wan"]
