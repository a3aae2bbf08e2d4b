"""The one exception that says why a file cannot be used as a volume."""


class RejectedVolume(ValueError):
    """A volume that cannot be used; the text is the reason, with the numbers found and expected.

    The text never holds a path or anything of a DICOM header but geometry: the caller adds the volume's name.
    """
