"""LoadImageCaptionDataset: pictures with captions, from a folder or from other nodes, checked before training."""

import dataclasses

from .edges import TrainingDataset
from .host import datasets, paths
from .host.api import TRAINING_DATASET, io, ui
from .widgets import Widget, checked, said_of_widgets

WIDGETS = [
    Widget("trigger", "dataset.trigger"),
    Widget("resolution", "dataset.resolution"),
    Widget("repeats", "dataset.repeats"),
    Widget("flip", "dataset.flip"),
    Widget("missing_captions", "dataset.missing_captions"),
    Widget("caption_source", "dataset.captions", advanced=True),
    Widget("caption_dropout", "dataset.caption_dropout", advanced=True),
    Widget("shuffle_tags", "dataset.shuffle_tags", advanced=True),
    Widget("keep_tags", "dataset.keep_tags", advanced=True),
    Widget("buckets", "dataset.buckets", advanced=True),
    Widget("bucket_step", "dataset.bucket_step", advanced=True),
    Widget("width", "dataset.width", advanced=True),
    Widget("height", "dataset.height", advanced=True),
    Widget("crop", "dataset.crop", advanced=True),
    Widget("colour_jitter", "dataset.colour_jitter", advanced=True),
    Widget("variants", "dataset.variants", advanced=True),
    Widget("holdout", "dataset.holdout", advanced=True),
    Widget("skip_bad", "dataset.skip_bad", advanced=True),
    # A cancelled run that is queued again should not encode everything again.
    Widget("cache", "dataset.cache", advanced=True, default="disk"),
    Widget("cache_limit_gb", "dataset.cache_limit_gb", advanced=True),
    Widget("workers", "dataset.workers", advanced=True),
]
"""Workflows store widget values by their position: new ones go to the end."""

SHEET_STEP, SHEET_SIDE = 8, 512
"""How the contact sheet cuts pictures where the base decides, which this node does not know."""


class LoadImageCaptionDataset(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="ScionLoadImageCaptionDataset",
            display_name="Load Image Caption Dataset",
            category="Scion",
            description="Pictures with captions to train on: a folder (captions in same-named .txt files or a "
            "metadata.csv), or pictures and captions from other nodes. Every file is checked, and each problem named.",
            search_aliases=["scion", "dataset", "training images", "captions", "load images for lora"],
            is_input_list=True,
            inputs=[
                io.Combo.Input(
                    "folder",
                    options=datasets.dataset_names(),
                    default=datasets.BUILT_IN_DATASET,
                    tooltip="A folder of pictures in ComfyUI/input, in a registered 'datasets' folder, or allowed in "
                    "the local scion.json; not read when pictures are wired",
                ),
                *(widget.input() for widget in WIDGETS),
                io.Image.Input("images", optional=True, tooltip="Pictures from other nodes, instead of the folder"),
                io.String.Input(
                    "captions",
                    optional=True,
                    force_input=True,
                    tooltip="A caption for each wired picture, in their order",
                ),
            ],
            outputs=[
                TRAINING_DATASET.Output(display_name="dataset"),
                io.Image.Output(display_name="contact_sheet", tooltip="The pictures as training cuts them"),
                io.String.Output(display_name="report", tooltip="What was found: counts, buckets, notes"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, folder=None, images=None):
        from ..trainer_core.errors import BadInput

        if images is not None or folder is None or folder[0] is None:  # not read then, or linked: not known yet
            return True
        try:
            datasets.dataset_folder(folder[0])
        except BadInput as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, folder=None, **held):
        from ..trainer_core.errors import BadInput

        if "images" in held:  # the folder is not read then
            return None
        name = folder[0] if folder else None
        if name is None:  # linked: which folder it will be is not known yet, so its files may have changed
            return float("nan")
        try:
            return datasets.fingerprint(datasets.dataset_folder(name))
        except BadInput:  # it is gone: the node itself will say so
            return None

    @classmethod
    def execute(cls, folder, images=None, captions=None, **held):
        from ..trainer_core.data.scan import scan_folder, scan_memory
        from ..trainer_core.errors import BadInput
        from .host.running import Watch, cancelled, end

        asked = checked(WIDGETS, {name: values[0] for name, values in held.items()}).dataset
        config = dataclasses.replace(asked, cache_path=str(paths.encoded_cache()))
        watch = Watch(cls.hidden.unique_id, "Checked")
        if images is not None:
            pictures = [picture for batch in images for picture in batch]
            scan = scan_memory(pictures, captions, config, watch, cancelled)
        else:
            config = dataclasses.replace(config, path=str(datasets.dataset_folder(folder[0])))
            scan = scan_folder(config, watch, cancelled)
        if scan.stopped:
            end()
        if scan.problems:
            raise BadInput(*scan.problems)
        with said_of_widgets(WIDGETS):
            sheet, report = _shown(scan, config)
        return io.NodeOutput(TrainingDataset(config, scan), sheet, report, ui=ui.PreviewImage(sheet, cls=cls))


def _shown(scan, config):
    """The contact sheet, [1, H, W, 3], and the report."""
    from ..trainer_core.data.dataset import Dataset
    from ..trainer_core.data.report import report_lines
    from ..trainer_core.data.sheet import contact_sheet

    dataset = Dataset(scan.items, config, 0, SHEET_STEP, SHEET_SIDE)
    lines = report_lines(scan, dataset if config.resolution or config.width else None)
    return contact_sheet(dataset)[None], "\n".join(lines)
