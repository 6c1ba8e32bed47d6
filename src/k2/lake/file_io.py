"""File access that never deletes."""

from pyiceberg.io import InputFile, OutputFile
from pyiceberg.io.pyarrow import PyArrowFileIO


class KeepingFileIO(PyArrowFileIO):
    """PyArrow's file access without ``delete``.

    With no commit retries pyiceberg 0.12 deletes the manifests of a commit it believes lost, also
    when the commit landed and only the reply was lost. An orphan costs bytes; a deleted manifest
    costs the table. What is left over is swept later, by age, against the table itself.
    """

    def delete(self, location: str | InputFile | OutputFile) -> None:
        """Keep the file."""
