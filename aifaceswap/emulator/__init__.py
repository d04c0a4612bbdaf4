"""The AI Face Swap API on a loopback port: stateful, strict, and without the network."""

from aifaceswap.emulator import faults
from aifaceswap.emulator._emulator import DEFAULT_API_KEY, Emulator
from aifaceswap.emulator._loading import load_settings
from aifaceswap.emulator._server.receivers import WebhookPost
from aifaceswap.emulator._service.delivery_queue import DeliveryAttempt, DeliveryRecord
from aifaceswap.emulator._service.records import RequestRecord, SwapRecord
from aifaceswap.emulator.clock import Clock, RealClock, VirtualClock
from aifaceswap.emulator.faults import Fault, FaultRecord
from aifaceswap.emulator.limits import Limits
from aifaceswap.emulator.settings import Idempotency, Lag, ResultLinks

__all__ = [
    "DEFAULT_API_KEY",
    "Clock",
    "DeliveryAttempt",
    "DeliveryRecord",
    "Emulator",
    "Fault",
    "FaultRecord",
    "Idempotency",
    "Lag",
    "Limits",
    "RealClock",
    "RequestRecord",
    "ResultLinks",
    "SwapRecord",
    "VirtualClock",
    "WebhookPost",
    "faults",
    "load_settings",
]
