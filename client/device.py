"""What a site computes on: CPU or GPU, and how much of a GPU's memory."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from common.errors import ConfigError

MIB = 2**20
_LOG = logging.getLogger("fedembed.client")


@dataclass(frozen=True)
class Device:
    """A site's own choice, which overrules a run's.

    Attributes:
        name: ``cpu``, ``cuda``, or ``auto``: as the run says.
        gpu_memory_mib: most memory of the GPU that this process takes; 0: no bound.
        or_cpu: whether the CPU serves where there is no GPU, with a line in the log. A site does: a run may ask for
            what the site does not have.
    """

    name: str = "auto"
    gpu_memory_mib: int = 0
    or_cpu: bool = False

    def chosen(self, asked: str) -> str:
        """``cpu`` or ``cuda``, where a run asks for ``asked``; the bound holds from here on.

        Raises:
            ConfigError: ``cuda`` where torch finds no GPU, without ``or_cpu``.
        """
        wanted = asked if self.name == "auto" else self.name
        name = resolved_device("auto" if self.or_cpu and wanted == "cuda" else wanted)
        if wanted == "cuda" != name:
            _LOG.warning("torch finds no usable GPU: the CPU serves instead")
        if name == "cuda" and self.gpu_memory_mib:
            import torch

            total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, self.gpu_memory_mib * MIB / total))
        return name


ANY_DEVICE = Device()


def resolved_device(name: str) -> str:
    """``auto`` becomes ``cuda`` where a GPU is usable, else ``cpu``.

    Raises:
        ConfigError: ``cuda`` where torch finds no GPU.
    """
    if name == "cpu":
        return name
    import torch

    usable = torch.cuda.is_available()
    if name == "cuda" and not usable:
        raise ConfigError(
            "training.device = 'cuda', and torch finds no usable GPU",
            remedy="Set training.device = 'auto' or 'cpu'; `fedembed doctor` says what is there.",
        )
    return "cuda" if usable else "cpu"


def out_of_gpu_memory(error: BaseException) -> bool:
    """Whether a computation failed because the GPU, or the bound on it, had no room."""
    import torch

    return isinstance(error, torch.OutOfMemoryError)
