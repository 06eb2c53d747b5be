"""LoadImageCaptionDataset: pictures with captions, from a folder or from other nodes, checked before training."""

import dataclasses

from .edges import TrainingDataset, chained
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
    Widget("weight", "dataset.weight", advanced=True),
    Widget("regularisation", "dataset.regularisation", advanced=True),
    Widget("prior_weight", "dataset.prior_weight", advanced=True),
    Widget("default_caption", "dataset.default_caption", advanced=True),
    Widget("caption_prefix", "dataset.caption_prefix", advanced=True),
    Widget("caption_suffix", "dataset.caption_suffix", advanced=True),
    Widget("caption_replace", "dataset.caption_replace", advanced=True),
    Widget("wildcards", "dataset.wildcards", advanced=True),
    Widget("caption_weights", "dataset.caption_weights", advanced=True),
    Widget("mask", "dataset.mask", advanced=True),
    Widget("mask_floor", "dataset.mask_floor", advanced=True),
    Widget("missing_masks", "dataset.missing_masks", advanced=True),
]
"""Workflows store widget values by their position: new ones go to the end, behind `mask_folder` too."""
MASK_FOLDER, NO_MASKS = Widget("mask_folder", "dataset.mask_path"), "none"

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
                io.Combo.Input(
                    "mask_folder",
                    options=[NO_MASKS, *datasets.dataset_names()],
                    default=NO_MASKS,
                    optional=True,
                    tooltip="With mask 'folder': the masks, named as the pictures and in the same subfolders; white "
                    "counts, black does not. A folder as above",
                    advanced=True,
                ),
                io.Image.Input("images", optional=True, tooltip="Pictures from other nodes, instead of the folder"),
                io.String.Input(
                    "captions",
                    optional=True,
                    force_input=True,
                    tooltip="A caption for each wired picture, in their order",
                ),
                TRAINING_DATASET.Input(
                    "more",
                    optional=True,
                    tooltip="More pictures, from another node like this one. They keep that node's settings of "
                    "captions, repeats, weight, flip, crop, colours, masks and regularisation; resolution, buckets, "
                    "variants, holdout, prior_weight, cache and workers are this node's for all",
                ),
            ],
            outputs=[
                TRAINING_DATASET.Output(display_name="dataset", tooltip="For Train LoRA, or another dataset's more"),
                io.Image.Output(display_name="contact_sheet", tooltip="The pictures as training cuts them"),
                io.String.Output(display_name="report", tooltip="What was found: counts, buckets, notes"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, folder=None, images=None, mask_folder=None):
        from ..trainer_core.errors import BadInput

        try:
            for what, held in (("folder", folder if images is None else None), ("mask_folder", mask_folder)):
                if held and held[0] not in (None, NO_MASKS):  # linked: not known yet
                    datasets.dataset_folder(held[0], what)
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
        masks = (held.get("mask_folder") or [NO_MASKS])[0] if (held.get("mask") or [""])[0] == "folder" else NO_MASKS
        if masks is None:
            return float("nan")
        try:
            names = [name, *([masks] if masks != NO_MASKS else [])]
            return "".join(datasets.fingerprint(datasets.dataset_folder(each)) for each in names)
        except BadInput:  # it is gone: the node itself will say so
            return None

    @classmethod
    def execute(cls, folder, images=None, captions=None, more=None, mask_folder=None, **held):
        from ..trainer_core.data.scan import scan_folder, scan_memory
        from ..trainer_core.errors import BadInput
        from .host.running import Watch, announce_checking, cancelled, end

        path = "" if images is not None else str(datasets.dataset_folder(folder[0]))
        config = _config({name: values[0] for name, values in held.items()}, path, (mask_folder or [NO_MASKS])[0])
        # A regularisation folder has no trigger word, whatever the widget says.
        [own] = config.parts()
        watch = Watch(cls.hidden.unique_id, announce_checking)
        if images is not None:
            pictures = [picture for batch in images for picture in batch]
            scan = scan_memory(pictures, captions, own, watch, cancelled)
        else:
            scan = scan_folder(own, watch, cancelled)
        if scan.stopped:
            end()
        if scan.problems:
            raise BadInput(*(problem.replace("mask_path", MASK_FOLDER.id) for problem in scan.problems))
        dataset = TrainingDataset(config, (scan,))
        dataset = chained(more[0], dataset) if more else dataset
        with said_of_widgets(WIDGETS):
            sheet, report = _shown(dataset.scan, dataset.config)
        return io.NodeOutput(dataset, sheet, report, ui=ui.PreviewImage(sheet, cls=cls))


def _config(held, path: str, masks: str):
    """The settings that the widgets ask for.

    Raises:
        BadInput: with every problem at once, named as the widgets are.
    """
    read = masks != NO_MASKS and held.get("mask") == "folder"
    held = {**held, "mask_folder": str(datasets.dataset_folder(masks, MASK_FOLDER.id)) if read else ""}
    asked = checked([*WIDGETS, MASK_FOLDER], held).dataset
    return dataclasses.replace(asked, path=path, cache_path=str(paths.encoded_cache()))


def _shown(scan, config):
    """The contact sheet, [1, H, W, 3], and the report."""
    from ..trainer_core.data.dataset import Dataset
    from ..trainer_core.data.report import report_lines
    from ..trainer_core.data.sheet import contact_sheet

    dataset = Dataset(scan.items, config, 0, SHEET_STEP, SHEET_SIDE)
    lines = report_lines(scan, dataset, sizes=bool(config.resolution or config.width))
    return contact_sheet(dataset)[None], "\n".join(lines)
