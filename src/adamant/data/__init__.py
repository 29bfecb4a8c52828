"""Data: load labelled inputs from files that lie on the disk, with checks that name the row."""

from adamant.data.dataset import DataSet, split
from adamant.data.load import DATA, load_data, open_data
from adamant.data.mix import Mix
from adamant.data.stream import OnDisk, Readable, Stream

__all__ = ["DATA", "DataSet", "Mix", "OnDisk", "Readable", "Stream", "load_data", "open_data", "split"]
