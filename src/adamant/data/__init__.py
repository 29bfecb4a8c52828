"""Data: load labelled inputs from files that lie on the disk, with checks that name the row."""

from adamant.data.dataset import DataSet, split
from adamant.data.load import DATA, load_data

__all__ = ["DATA", "DataSet", "load_data", "split"]
