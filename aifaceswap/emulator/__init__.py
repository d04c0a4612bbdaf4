"""The AI Face Swap API on a loopback port: stateful, strict, and without the network."""

from . import faults
from ._emulator import DEFAULT_API_KEY, Emulator
from ._outbox import DeliveryAttempt, DeliveryRecord
from ._records import RequestRecord, SwapRecord
from .clock import Clock, RealClock, VirtualClock
from .faults import Fault, FaultRecord
from .limits import Limits

__all__ = [
    "DEFAULT_API_KEY",
    "Clock",
    "DeliveryAttempt",
    "DeliveryRecord",
    "Emulator",
    "Fault",
    "FaultRecord",
    "Limits",
    "RealClock",
    "RequestRecord",
    "SwapRecord",
    "VirtualClock",
    "faults",
]
