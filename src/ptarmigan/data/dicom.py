"""DICOM files as images for Pillow: grey ones with the values that their rescale gives (extra `medical`: pydicom)."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

MARK = 128, b"DICM"  # where a file says that it is one
NEEDED = "DICOM files need pydicom: install it by pip install 'ptarmigan[medical]'"


class DicomImage(ImageFile.ImageFile):
    """The first frame of a DICOM file: mode L or RGB of 8 bits, or F with the values that the modality LUT gives.

    MONOCHROME1, in which the least value is white, is turned round, so that the least value is black in every image.
    `info["window"]` is the file's own VOI window (low, high), if it states one for its values.
    """

    format = "DICOM"
    format_description = "DICOM"

    def _open(self) -> None:
        file = cast(Any, self.fp)
        file.seek(MARK[0])
        if file.read(len(MARK[1])) != MARK[1]:
            raise SyntaxError("not a DICOM file")
        try:
            from pydicom import dcmread
        except ImportError:
            raise OSError(NEEDED) from None
        file.seek(0)
        self.header = dcmread(file, stop_before_pixels=True)
        if "Rows" not in self.header or "Columns" not in self.header:
            raise OSError("a DICOM file without an image")
        self._size = int(self.header.Columns), int(self.header.Rows)
        self.is_animated = int(self.header.get("NumberOfFrames") or 1) > 1
        grey = self.header.get("SamplesPerPixel", 1) == 1
        if not grey and self.header.BitsAllocated != 8:
            raise OSError("a DICOM file with colours of more than 8 bits")
        if self.header.PhotometricInterpretation == "PALETTE COLOR":
            raise OSError("a DICOM file with a palette")
        rescaled = "RescaleSlope" in self.header or "ModalityLUTSequence" in self.header
        self._mode = "RGB" if not grey else "F" if rescaled or self.header.BitsStored != 8 else "L"
        self.inverted = self.header.PhotometricInterpretation == "MONOCHROME1"
        if self._mode == "F" and (window := self._window()) is not None:
            self.info["window"] = window
        self.tile = []
        self.decoded = False

    def load(self) -> Any:
        if not self.decoded:
            from pydicom.pixels import pixel_array

            file = cast(Any, self.fp)
            file.seek(0)
            pixels = pixel_array(file, index=0)
            if self.inverted:
                pixels = sum(self._range()) - pixels.astype(np.int64)
            if self._mode == "F":
                pixels = self._rescaled(pixels).astype(np.float32)
            self.im = Image.fromarray(pixels if self._mode == "F" else pixels.astype(np.uint8)).im
            self.decoded = True
        return Image.Image.load(self)

    def _range(self) -> tuple[int, int]:
        """The least and the largest value that can be stored."""
        bits = int(self.header.BitsStored)
        return (
            (-(1 << bits - 1), (1 << bits - 1) - 1) if self.header.get("PixelRepresentation") else (0, (1 << bits) - 1)
        )

    def _rescaled(self, values: NDArray[Any]) -> NDArray[Any]:
        from pydicom.pixels import apply_modality_lut

        return apply_modality_lut(values, self.header)

    def _window(self) -> tuple[float, float] | None:
        """The values between which the file says that an image is shown; the first of several."""
        centre, width = (self.header.get(name) for name in ("WindowCenter", "WindowWidth"))
        if centre is None or width is None:
            return None
        centre, width = (float(np.ravel(one)[0]) for one in (centre, width))
        if not width > 1:
            return None
        if self.inverted:
            centre = float(self._rescaled(np.array(self._range())).sum()) - centre
        return centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2


def register() -> None:
    """Let Pillow open DICOM files, as it does others."""
    Image.register_open(DicomImage.format, DicomImage)
