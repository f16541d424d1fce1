"""DICOM files become images: their window, their inverted kind, several frames, and what is not there."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from ptarmigan.config import Data
from ptarmigan.data import open_dataset
from support import raises


def dicom(path: Path, pixels: np.ndarray, **tags: object) -> Path:
    """A DICOM file of one grey image, or of several frames."""
    pydicom = pytest.importorskip("pydicom")
    header = pydicom.Dataset()
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    header.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    header.Rows, header.Columns = pixels.shape[-2:]
    bits = 8 * pixels.itemsize
    given = dict(
        SamplesPerPixel=1, PhotometricInterpretation="MONOCHROME2", BitsAllocated=bits, BitsStored=bits,
        HighBit=bits - 1, PixelRepresentation=int(pixels.dtype.kind == "i"),
    )  # fmt: skip
    for name, value in {**given, **tags}.items():
        setattr(header, name, value)
    if pixels.ndim == 3:
        header.NumberOfFrames = len(pixels)
    header.PixelData = pixels.tobytes()
    path.parent.mkdir(exist_ok=True)
    header.save_as(path, enforce_file_format=True)
    return path


RAMP = np.arange(32 * 32, dtype=np.int16).reshape(32, 32)


def test_dicom_of_the_same_window(tmp_path: Path) -> None:
    tags = dict(RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=40.5, WindowWidth=256)
    for i in range(3):
        dicom(tmp_path / "ct" / f"IM{i}", RAMP + i, **tags)
    data = open_dataset(tmp_path / "ct", Data(size="32"))
    expected = np.rint(2.0 * RAMP - 1000 + 87.5).clip(0, 255)
    assert np.array_equal(data.images[0, ..., 0], expected)
    assert any(all(fact in notice for fact in ("-87.5", "167.5", "the files state")) for notice in data.notices)
    assert data.formats == ("DICOM",)


def test_dicom_of_several_windows_has_one_for_the_set(tmp_path: Path) -> None:
    for i in range(2):
        dicom(tmp_path / "ct" / f"{i}.dcm", RAMP + 500 * i, WindowCenter=100 + i, WindowWidth=50)
    data = open_dataset(tmp_path / "ct", Data(size="32"))
    assert any(all(fact in notice for fact in ("from 0 ", "to 1523 ")) for notice in data.notices)


def test_dicom_in_which_the_least_value_is_white(tmp_path: Path) -> None:
    pixels = (RAMP // 4).astype(np.uint8)
    dicom(tmp_path / "a" / "0.dcm", pixels, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(open_dataset(tmp_path / "a", Data(size="32")).images[0, ..., 0], 255 - pixels)
    deep = dict(
        PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11, WindowCenter=512.5, WindowWidth=1025
    )
    dicom(tmp_path / "b" / "0.dcm", RAMP.astype(np.uint16), **deep)  # shown from 0, white, to 1024
    image = open_dataset(tmp_path / "b", Data(size="32")).images[0, ..., 0]
    assert np.array_equal(image, np.rint((4095 - RAMP.astype(float) - 3071) * 255 / 1024).clip(0, 255))


def test_dicom_of_several_frames_and_damaged_ones(tmp_path: Path) -> None:
    dicom(tmp_path / "a" / "0.dcm", np.stack([RAMP, RAMP * 0]), RescaleSlope=1, RescaleIntercept=0)
    short = dicom(tmp_path / "a" / "1.dcm", RAMP)
    short.write_bytes(short.read_bytes()[:-600])
    data = open_dataset(tmp_path / "a", Data(size="32"))
    assert len(data.images) == 1
    assert data.images.max() == 255
    assert any("1 file with several" in notice for notice in data.notices)
    assert any("1.dcm" in notice for notice in data.notices)


def test_dicom_without_pydicom_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(bytes(128) + b"DICM")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with raises("no-images", "pydicom", "ptarmigan[medical]"):
        open_dataset(tmp_path / "a", Data())
