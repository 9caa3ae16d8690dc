"""`slimseg processors`."""

from __future__ import annotations

from slimseg.cli.options import AsJson, VulkanDriver
from slimseg.cli.showing import progress, show


def processors(vulkan_driver: VulkanDriver = None, json: AsJson = False) -> None:
    """What can be asked on this machine: CPU, GPU and NPUs; and what to install for the rest.

    Example:  slimseg processors
    """
    from slimseg.commands.processors import processors as run
    from slimseg.report.placement import show_processors

    with progress().console.status("looking for drivers and compilers"):
        result = run(driver=vulkan_driver)
    show(result, json, lambda: show_processors(result))
