"""The page of tools/web_demo.py in Gradio: what is on it and what calls what. The work is done by web_steps."""

from __future__ import annotations

import argparse
import functools
import html
import os
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import web_steps as steps

from data.image_io import write_image
from tester import Tester
from utils.cli import UserError
from utils.windows import MULTIPLE as LEAST_SIDE

KEPT = 3600  # seconds that uploads and results stay
NO_PICTURE = "there is no picture yet: upload one or choose a sample"
BRUSH = "#e62828"
STYLE = """
.line { margin: 0; padding: .6em .9em; border-radius: 6px; background: var(--background-fill-secondary); }
.line.error { background: #fde8e8; color: #8a1212; }
.line.warning { margin-top: .4em; background: #fdf3d8; color: #6b4a00; }
#samples .grid-wrap { padding-top: 2.2em; }
footer { display: none !important; }
"""
# label -> in Chinese; browsers choose
CHINESE = {
    "1. Upload a picture": "1. 上传图片",
    "or choose a sample": "或选择示例",
    "2. Brush: paint over what is to be replaced": "2. 画笔：涂抹要替换的区域",
    "2. Box: click two opposite corners": "2. 方框：点击两个对角",
    "2. Mask: white is the hole": "2. 蒙版：白色为待补全区域",
    "Brush": "画笔",
    "Box": "方框",
    "Mask file": "蒙版文件",
    "black is the hole": "黑色为待补全区域",
    "stretch the mask": "拉伸蒙版",
    "Remove boxes": "清除方框",
    "Working size": "处理尺寸",
    "Longer side in pixels; only the hole is pasted back, at full size": "最长边（像素）；仅将补全区域贴回原尺寸",
    "3. Complete": "3. 补全",
    "Before and after": "前后对比",
    "Coarse stage": "粗略阶段",
    "Attention": "注意力",
    "Download at full size (PNG)": "下载原尺寸结果 (PNG)",
}


def line(text: str, kind: str = "") -> str:
    role = "alert" if kind == "error" else "status"
    return f'<p class="line {kind}" role="{role}">{html.escape(text)}</p>'


TEXTS = gr.I18n(en={text: text for text in CHINESE}, **{"zh-CN": CHINESE})


def build_page(tester: Tester, args: argparse.Namespace, folder: str, call: Callable) -> gr.Blocks:
    """The page; results go to files in `folder`, which Gradio's own files are in.

    call: calls a function that uses the network, with arguments, where that may be done.
    """
    samples = steps.sample_paths()
    with gr.Blocks(title="Complete a picture", delete_cache=(KEPT // 6, KEPT), analytics_enabled=False) as page:
        opened, boxes, corner = gr.State(None, time_to_live=KEPT), gr.State([]), gr.State(None)
        gr.Markdown("# Complete a picture")
        gr.HTML(line(f"Model: {steps.checkpoint_line(tester)}"), padding=False)
        with gr.Row():
            with gr.Column(scale=1, min_width=260):
                upload = gr.File(label=TEXTS("1. Upload a picture"), height=140, elem_id="upload")
                gallery = gr.Gallery(
                    samples, label=TEXTS("or choose a sample"), columns=2, height="auto", allow_preview=False,
                    interactive=False, elem_id="samples", buttons=[],
                )  # fmt: skip
            with gr.Column(scale=3), gr.Tabs():
                with gr.Tab(TEXTS("Brush")):
                    editor = gr.ImageEditor(
                        label=TEXTS("2. Brush: paint over what is to be replaced"), sources=[], transforms=[],
                        layers=False, brush=gr.Brush(colors=[BRUSH], color_mode="fixed"), height=560,
                        elem_id="editor", buttons=[],
                    )  # fmt: skip
                with gr.Tab(TEXTS("Box"), elem_id="box-tab"):
                    board = gr.Image(
                        label=TEXTS("2. Box: click two opposite corners"), interactive=False, height=500,
                        elem_id="board", buttons=[],
                    )  # fmt: skip
                    no_boxes = gr.Button(TEXTS("Remove boxes"), size="sm")
                with gr.Tab(TEXTS("Mask file")):
                    mask = gr.File(label=TEXTS("2. Mask: white is the hole"), height=140, elem_id="mask")
                    invert = gr.Checkbox(label=TEXTS("black is the hole"))
                    stretch = gr.Checkbox(label=TEXTS("stretch the mask"))
        with gr.Row(equal_height=True):
            side = gr.Slider(
                LEAST_SIDE, args.max_side, args.max_side, step=1, label=TEXTS("Working size"), scale=3,
                info=TEXTS("Longer side in pixels; only the hole is pasted back, at full size"), elem_id="side",
            )  # fmt: skip
            start = gr.Button(TEXTS("3. Complete"), variant="primary", scale=1, elem_id="complete")
        status = gr.HTML(line("Upload a picture or choose a sample."), elem_id="status", padding=False)
        with gr.Column(visible=False) as results:
            with gr.Tabs():
                with gr.Tab(TEXTS("Before and after")):
                    slider = gr.ImageSlider(format="png", show_label=False, elem_id="slider", buttons=["fullscreen"])
                with gr.Tab(TEXTS("Coarse stage")):
                    coarse = gr.Image(format="png", show_label=False, buttons=["fullscreen"], elem_id="coarse")
                with gr.Tab(TEXTS("Attention"), visible=not tester.model.without_attention):
                    attention = gr.Image(
                        format="png", show_label=False, buttons=["fullscreen"], elem_id="attention"
                    )  # fmt: skip
            download = gr.DownloadButton(TEXTS("Download at full size (PNG)"), elem_id="download")

        def show_picture(path: str) -> dict:
            picture = steps.open_picture(path, args.max_megabytes)
            height, width = picture.size
            text = f"{picture.name}: {width}x{height} pixels. Paint over what is to be replaced, then complete."
            return {
                opened: picture, boxes: [], corner: None, editor: canvas(picture), board: picture.view,
                mask: None, status: line(text), results: gr.Column(visible=False),
            }  # fmt: skip

        def clear_paint(picture: steps.Opened | None) -> dict:
            return {editor: picture and canvas(picture)}

        def open_sample(event: gr.SelectData) -> dict:
            return {**show_picture(samples[event.index]), upload: None}

        def mark_corner(
            picture: steps.Opened | None, drawn: list, first: list | None, event: gr.SelectData
        ) -> dict:  # fmt: skip
            if picture is None:
                raise UserError(NO_PICTURE)
            if first is None:
                first = event.index
            else:
                drawn, first = [*drawn, steps.box_between(picture, first, event.index)], None
            return {boxes: drawn, corner: first, board: steps.draw_boxes(picture, drawn, first)}

        def remove_boxes(picture: steps.Opened | None) -> dict:
            return {boxes: [], corner: None, board: None if picture is None else picture.view}

        def complete(
            picture: steps.Opened | None, paint: dict | None, drawn: list, mask_path: str | None, swap: bool,
            fit: bool, max_side: int,
        ) -> dict:  # fmt: skip
            if picture is None:
                raise UserError(NO_PICTURE)
            limit = args.max_megabytes
            given = mask_path and steps.load_mask(picture, mask_path, limit, swap, fit)
            hole = steps.find_hole(picture, paint["layers"] if paint else [], drawn, given)
            done = call(steps.complete, tester, picture, hole, min(int(max_side), args.max_side), limit)
            path = os.path.join(tempfile.mkdtemp(dir=folder), f"{Path(picture.path).stem}_completed.png")
            write_image(path, done.picture)
            remarks = [line(steps.in_page_words(remark), "warning") for remark in done.remarks]
            text = f"{picture.name}: completed; the hole is {hole.mean():.1%} of the picture."
            return {
                status: line(text) + "".join(remarks), results: gr.Column(visible=True), coarse: done.coarse,
                slider: (done.before, done.after), attention: done.attention, download: path,
            }  # fmt: skip

        sources = [opened, boxes, corner, editor, board, mask, status, results]
        upload.upload(told(show_picture, status), upload, sources)
        if samples:
            page.load(told(lambda: show_picture(samples[0]), status), None, sources)
        editor.clear(told(clear_paint, status), opened, [editor, status])
        gallery.select(told(open_sample, status), None, [*sources, upload])
        board.select(told(mark_corner, status), [opened, boxes, corner], [boxes, corner, board, status])
        no_boxes.click(told(remove_boxes, status), opened, [boxes, corner, board, status])
        start.click(
            told(complete, status), [opened, editor, boxes, mask, invert, stretch, side],
            [status, results, slider, coarse, attention, download],
        )  # fmt: skip
    return page


def canvas(picture: steps.Opened) -> dict[str, Any]:
    """A picture that nobody has painted on yet, as the editor takes it."""
    return {"background": picture.view, "layers": [], "composite": picture.view}


def told(step: Callable[..., dict], status: gr.HTML) -> Callable[..., dict]:
    """The step with its errors as a line of the page."""

    @functools.wraps(step)
    def run(*values: Any) -> dict:
        try:
            return step(*values)
        except UserError as error:
            text = steps.in_page_words(error, *paths(values))
        except Exception:
            traceback.print_exc()
            text = "the program failed; its terminal says where"
        return {status: line(f"Error: {text}", "error")}

    return run


def paths(values: Sequence[Any]) -> list[str]:
    """Those of files on the server, which nobody at the page wants to read."""
    values = [getattr(value, "path", value) for value in values]
    return [value for value in values if isinstance(value, str)]
