import io
import os

import pytest

from groundup.terminal.output import PatientStream


def pipe_without_reader():
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w", buffering=1)


def full_disk():
    return open("/dev/full", "w", buffering=1)  # noqa: PTH123


def closed():
    stream = io.TextIOWrapper(io.BytesIO())
    stream.close()
    return stream


@pytest.mark.fault("E13", "nobody takes what a run prints: closed pipe, full disk", "said once; the run goes on")
@pytest.mark.parametrize("make", [pipe_without_reader, full_disk, closed])
def test_what_nobody_takes_is_dropped_and_told_once(make, capsys):
    stream = make()
    patient = PatientStream(stream)
    for _ in range(3):
        assert patient.write("words\n") == 6
        patient.flush()
    said = capsys.readouterr().err
    assert said.startswith("groundup: nobody takes what is printed (")
    assert said.count("\n") == 1
    assert not patient.isatty()
    if not stream.closed:
        stream.close()  # what it held is gone: closing does not fail


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_what_an_encoding_cannot_express_is_replaced(encoding):
    raw = io.BytesIO()
    stream = PatientStream(io.TextIOWrapper(raw, encoding=encoding, newline=""))
    stream.write("│ a · b\n")
    stream.flush()
    assert raw.getvalue() == "│ a · b\n".encode(encoding, "replace")


def test_without_standard_output_all_is_dropped():
    stream = PatientStream(None)
    stream.write("words")
    stream.flush()
    assert (stream.isatty(), stream.encoding) == (False, "utf-8")
    with pytest.raises(OSError, match="no standard output"):
        stream.fileno()
