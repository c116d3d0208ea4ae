"""The profile under the keys of the vendor's performance report, so that tools written for it read carkp's too.

As there: a run is ``frame per run`` frames, here one; mega is 2**20; an operation is half a multiply-accumulate; the
latency is the device's, so ``FPS`` is 1000 over it. What the vendor's tools measure and carkp can't know (its own
compiler's version, PE count) says so or is 1.
"""

from __future__ import annotations

import math
from typing import Any
from zlib import crc32

import carkp_bpu
from carkp_bpu.perf.profile import LayerProfile, Profile

MEGA = 1 << 20

#: Suffix of a layer's name, by kind of operator.
_SUFFIXES = {"conv2d": "_hz_conv2d", "conv_transpose2d": "_hz_conv2d_transpose"}
_HEADER = ["layer", "ops", "computing cost (no DDR)", "load/store cost"]


def vendor_details(profile: Profile, *, layer_details: bool = True) -> dict[str, Any]:
    """``{"summary": ...}`` with the vendor's keys and ``"carkp"`` with what has no key there."""
    loaded, stored, ms = profile.loaded_bytes, profile.stored_bytes, profile.device_ms
    moved, fps = loaded + stored, profile.fps
    intervals = interval_series(profile)
    summary = {
        "BPU OPs per frame (effective)": profile.ops,
        "BPU OPs per run (effective)": profile.ops,
        "BPU PE number": 1,
        "BPU core number": 1,
        "BPU march": profile.march.name,
        "DDR bytes per frame": moved,
        "DDR bytes per run": moved,
        "DDR bytes per second": round(moved * fps),
        "DDR megabytes per frame": round(moved / MEGA, 3),
        "DDR megabytes per run": round(moved / MEGA, 3),
        "DDR megabytes per second": round(moved * fps / MEGA, 3),
        "FPS": round(fps, 2),
        "HBDK version": f"none (carkp-bpu {carkp_bpu.__version__})",
        "compiling options": compiling_options(profile),
        "frame per run": 1,
        "frame per second": round(fps, 2),
        "input features": [[name, "x".join(map(str, shape)), dtype] for name, shape, dtype in profile.inputs],
        **intervals,
        "latency (ms)": round(ms, 6),
        "latency (ms) by segments": [round(ms, 6)],
        "latency (us)": round(1e3 * ms, 3),
        "layer details": [_HEADER, *(_row(layer, profile) for layer in profile.layers)] if layer_details else [],
        "loaded bytes per frame": loaded,
        "loaded bytes per run": loaded,
        "model json CRC": f"{crc32(profile.graph_digest.encode()):08x}",
        "model json file": "",
        "model name": profile.name,
        "model param CRC": f"{profile.constants_crc:08x}",
        "multicore sync time (ms)": 0.0,
        "run per second": round(fps, 2),
        "runtime version": f"carkp-bpu {carkp_bpu.__version__}",
        "stored bytes per frame": stored,
        "stored bytes per run": stored,
        "worst FPS": round(fps, 2),
    }
    return {"summary": dict(sorted(summary.items())), "carkp": own_details(profile)}


def own_details(profile: Profile) -> dict[str, Any]:
    """What the vendor's keys have no place for, in plain numbers."""
    return {
        "note": "An estimate by carkp's open machine model. carkp's .hbm does not run on a board.",
        "basis": profile.basis,
        "clock_hz": profile.march.clock_hz,
        "cycles": profile.cycles,
        "device_ms": profile.device_ms,
        "launch_ms": profile.march.launch_us / 1e3,
        "latency_ms": profile.latency_ms,
        "fps": profile.fps,
        "ddr_bytes_per_frame": profile.loaded_bytes + profile.stored_bytes,
        "ddr_bytes_lower_bound": profile.lower_bound_bytes,
        "instruction_bytes": profile.fetch_bytes,
        "sram_bytes": profile.sram_bytes,
        "sram_peak_bytes": profile.sram_peak_bytes,
        "utilisation": profile.utilisation,
        "layers": [own_layer(layer, profile) for layer in profile.layers],
    }


def own_layer(layer: LayerProfile, profile: Profile) -> dict[str, Any]:
    """A layer in plain numbers, microseconds and bytes."""
    return {
        "name": layer.name,
        "op": layer.op,
        "source": layer.source,
        "ops": layer.ops,
        "compute_us": round(1e3 * profile.ms(layer.compute_cycles), 3),
        "ddr_us": round(1e3 * profile.ms(layer.ddr_cycles), 3),
        "overhead_us": round(1e3 * profile.ms(layer.overhead_cycles), 3),
        "loaded_bytes": layer.loaded_bytes,
        "stored_bytes": layer.stored_bytes,
        "start_us": round(1e3 * profile.ms(layer.start), 3),
        "end_us": round(1e3 * profile.ms(layer.end), 3),
        "bound": layer.bound,
    }


def compiling_options(profile: Profile) -> str:
    """The options in one line."""
    opt = f" --opt {profile.opt}" if profile.opt else " (not compiled)"
    return f"--march {profile.march.name}{opt} --sram-bytes {profile.sram_bytes} --name {profile.name}"


def interval_series(profile: Profile) -> dict[str, Any]:
    """Rates over time: the interval's length and, for each interval, engine utilisation and DDR rates."""
    length_ms = interval_ms(profile.device_ms)
    number = max(1, math.ceil(profile.device_ms / length_ms - 1e-9))
    step = length_ms * profile.march.clock_hz / 1e3
    busy, either, loaded, stored = ([0.0] * number for _ in range(4))
    for span, moved in zip(profile.spans, profile.span_bytes, strict=True):
        length = span.end - span.busy_start
        for index, cycles in _shares(span.busy_start, span.end, step, number):
            if span.engine == "conv":
                busy[index] += cycles / step
            if span.engine in ("conv", "vector"):
                either[index] += cycles / step / 2
            if moved and length:
                series = loaded if span.engine == "dma_in" else stored
                series[index] += moved * cycles / length
    per_second = 1e3 / length_ms / MEGA
    return {
        "interval computing unit utilization": [round(min(1.0, value), 4) for value in busy],
        "interval computing units utilization": [round(min(1.0, value), 4) for value in either],
        "interval loading bandwidth (megabytes/s)": [round(value * per_second, 3) for value in loaded],
        "interval number": number,
        "interval storing bandwidth (megabytes/s)": [round(value * per_second, 3) for value in stored],
        "interval time (ms)": length_ms,
    }


def interval_ms(total_ms: float) -> float:
    """The shortest of 1, 2, 5 x 10**k milliseconds that cuts the time into at most sixty intervals."""
    target = max(total_ms, 1e-6) / 60
    power = 10.0 ** math.floor(math.log10(target))
    return float(f"{next(m * power for m in (1, 2, 5, 10) if m * power >= target * (1 - 1e-9)):.3g}")


def _shares(begin: int, end: int, step: float, number: int) -> list[tuple[int, float]]:
    """The parts of a stretch of cycles in each interval."""
    first, last = int(begin / step), min(number - 1, int(end / step))
    bounds = ((index, max(begin, index * step), min(end, (index + 1) * step)) for index in range(first, last + 1))
    return [(index, hi - lo) for index, lo, hi in bounds if hi > lo]


def _row(layer: LayerProfile, profile: Profile) -> list[Any]:
    module = layer.source.split(" (", 1)[0] if layer.source else ""
    name = (module or layer.name) + _SUFFIXES.get(layer.op, "_torch_native")
    return [name, layer.ops, _cost(layer.compute_cycles, profile), _cost(layer.ddr_cycles, profile)]


def _cost(cycles: int, profile: Profile) -> str:
    share = 100 * cycles / profile.cycles if profile.cycles else 0.0
    return f"{1e3 * profile.ms(cycles):.4g} us ({share:.1f}% of model)"
