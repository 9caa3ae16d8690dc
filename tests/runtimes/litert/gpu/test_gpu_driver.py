"""Finding Vulkan drivers: named ones, those in the environment, in the system's folders and beside a browser."""

from __future__ import annotations

import pytest

from slimseg.errors import UserError
from slimseg.runtimes.litert.gpu import driver

has_gpu = driver.has_gpu


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """A system with a driver for each of two GPUs, llvmpipe, and SwiftShader beside a browser."""
    system, browser = tmp_path / "icd.d", tmp_path / "browser"
    for folder, names in ((system, ("intel_icd", "radeon_icd", "lvp_icd")), (browser, ("vk_swiftshader_icd",))):
        folder.mkdir()
        for name in names:
            (folder / f"{name}.json").write_text(f'{{"ICD": {{"library_path": "./lib{name}.so"}}}}')
            (folder / f"lib{name}.so").touch()
    (browser / "libvulkan.so.1").touch()
    for variable in driver.VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(driver, "_SYSTEM", (system,))
    monkeypatch.setattr(driver, "_BROWSERS", (browser,))
    monkeypatch.setattr(driver.ctypes.util, "find_library", lambda _: None)
    monkeypatch.setattr(driver, "has_gpu", lambda: False)
    return tmp_path


def names(found):
    return [[manifest.name for manifest in each.manifests] for each in found]


def test_without_a_gpu_software_drivers_are_tried(folders):
    found = driver.candidates()
    assert names(found) == [["vk_swiftshader_icd.json"], ["lvp_icd.json"]]
    assert found[0].loader == folders / "browser" / "libvulkan.so.1"
    assert all(each.is_software and not each.said for each in found)


def test_with_a_gpu_its_drivers_come_first(monkeypatch):
    monkeypatch.setattr(driver, "has_gpu", lambda: True)
    first, *others = driver.candidates()
    assert names([first]) == [["intel_icd.json", "radeon_icd.json"]]
    assert not first.is_software
    assert len(others) == 2


def test_a_gpu_is_seen_by_its_device(tmp_path):
    assert not has_gpu(tmp_path)
    (tmp_path / "dri").mkdir()
    (tmp_path / "dri" / "renderD128").touch()
    assert has_gpu(tmp_path)


@pytest.mark.parametrize("named", ["vk_swiftshader_icd.json", "libvk_swiftshader_icd.so", "."])
def test_a_driver_is_named_by_manifest_library_or_folder(folders, named):
    (found,) = driver.candidates(folders / "browser" / named)
    assert names([found]) == [["vk_swiftshader_icd.json"]]
    assert found.said


def test_the_environment_names_drivers(folders, monkeypatch):
    monkeypatch.setenv("VK_ICD_FILENAMES", str(folders / "icd.d" / "lvp_icd.json"))
    (found,) = driver.candidates()
    assert found.said
    assert set(found.environment()) >= {*driver.VARIABLES, "XDG_RUNTIME_DIR"}
    assert found.environment()["VK_DRIVER_FILES"] == str(folders / "icd.d" / "lvp_icd.json")


def test_an_environment_that_names_nothing_is_refused_by_its_name(monkeypatch):
    monkeypatch.setenv("VK_DRIVER_FILES", "/no/such.json")
    with pytest.raises(UserError, match=r"VK_DRIVER_FILES /no/such\.json is no Vulkan driver"):
        driver.candidates()
