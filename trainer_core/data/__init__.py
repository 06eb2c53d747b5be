"""The way of the data: scan a folder, sort into buckets, encode once, hand out ordered batches."""

from .config import DatasetConfig
from .dataset import Batch, Dataset
from .items import Item
from .order import BatchOrder, BatchPlan
from .prefetch import prefetch
from .report import report_lines
from .scan import Scan, scan_folder, scan_memory
from .sheet import contact_sheet

__all__ = [
    "Batch",
    "BatchOrder",
    "BatchPlan",
    "Dataset",
    "DatasetConfig",
    "Item",
    "Scan",
    "contact_sheet",
    "prefetch",
    "report_lines",
    "scan_folder",
    "scan_memory",
]
