"""What the tools share: controls over a figure, and a still figure for where widgets do not run."""

import base64
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple, cast

import ipywidgets
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from torch import Tensor

from workbench.evaluation.metrics import psnr
from workbench.plots import png, show
from workbench.text import require, require_kind

WIDTH = 8.5  # of figures, inches


class Part(NamedTuple):
    """A strip of the figure."""

    height: float  # in inches
    draw: Callable[[FigureBase], object]
    mark: float = math.nan  # where a vertical line stands in its curves


View = tuple[str, list[Part]]  # a line of text, and the strips below it


class Tool(ipywidgets.VBox):
    """Controls over a figure that is drawn anew after every change; what goes wrong then is said in its place.

    To set the ``value`` of one of ``controls`` does what moving it does. ``view`` computes what they ask for; a change
    of those named ``quiet`` is no reason to. ``title`` stands for the tool in plain text.
    """

    def __init__(
        self, title: str, controls: Mapping[str, Any], view: Callable[[], View], quiet: Collection[str] = ()
    ) -> None:
        self.title, self.controls, self._view = title, controls, view
        self._parts: list[Part] = []
        self._kept: dict[Callable[[FigureBase], object], Figure] = {}  # of the strips with a mark
        self.note, self._images = ipywidgets.HTML(), ipywidgets.VBox()
        row = ipywidgets.HBox([*controls.values()], layout={"flex_flow": "row wrap"})
        super().__init__([row, self.note, self._images])
        self._draw()
        for name in controls.keys() - {*quiet}:
            controls[name].observe(self.redraw, "value")

    def redraw(self, *_: object, first: Callable[[], object] | None = None) -> None:
        """Show what the controls say now, after ``first``, which may go wrong too."""
        try:
            if first is not None:
                first()
            self._draw()
        except Exception as error:  # of any kind: nobody sees what a callback raises
            self._parts, self._images.children = [], ()
            self.note.value = (
                f'<span style="color: #c00">{escape(str(error) or type(error).__name__, quote=False)}</span>'
            )

    def figure(self) -> Figure:
        """What is shown, as one figure, for ``savefig`` as .pdf or .svg. Raises ValueError where nothing is shown."""
        if not self._parts:
            raise ValueError(f"{self.title}: nothing is shown")
        return _figure(self._parts)

    def _draw(self) -> None:
        note, self._parts = self._view()
        self.note.value, contents = escape(note, quote=False), [self._png(part) for part in self._parts]
        if len(contents) != len(self._images.children):
            self._images.children = [ipywidgets.Image(layout={"max_width": "100%"}) for _ in contents]
        for image, content in zip(self._images.children, contents, strict=True):
            image.value = content

    def _png(self, part: Part) -> bytes:
        figure = self._kept.get(part.draw)
        if figure is None:
            figure = _figure([part])
            self._kept = self._kept if math.isnan(part.mark) else {part.draw: figure}
            return png(figure)
        figure.set_layout_engine("none")  # to move the lines alone takes a quarter of the time
        for axis in figure.axes:
            axis.lines[-1].set_xdata((part.mark,) * 2)
        return png(figure)

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        bundle = super()._repr_mimebundle_(**options) | {"text/plain": self.title}
        return bundle | ({"image/png": base64.b64encode(png(self.figure())).decode()} if self._parts else {})


def pictures(columns: Mapping[str, Tensor], notes: Mapping[str, str] | None = None, **options: Any) -> Part:
    """One picture (1, C, H, W) of each column side by side, some with ``notes`` below; ``options`` of ``show``."""
    height, width = [*columns.values()][-1].shape[-2:]
    below = {title: [note] for title, note in (notes or {}).items()}
    tall = min(height / width * WIDTH / len(columns), 3.5) + (0.5 if below else 0.3)
    return Part(tall, lambda into: show(columns, notes=below, into=into, **options))


def slider(label: str, value: Any, low: float, high: float, step: float = 1) -> Any:
    """A slider, of whole numbers if ``step`` is 1; hidden where there is one value alone."""
    kind, form = (ipywidgets.IntSlider, "d") if step == 1 else (ipywidgets.FloatSlider, ".3g")
    layout = {"width": "320px", "display": "none" if low == high else ""}
    looks = {"readout_format": form, "style": {"description_width": "initial"}, "layout": layout}
    return kind(value=value, min=low, max=high, step=step, description=label, **looks)


def one_photo(photo: Tensor) -> Tensor:
    """``photo``. Raises ValueError where it is not (1, C, H, W)."""
    require_kind(photo, Tensor, "photo", "(1, C, H, W), as load_image returns")
    require(photo.ndim == 4 and len(photo) == 1, "photo", "one picture (1, C, H, W)", tuple(photo.shape))
    return photo


def comparable(images: Tensor, originals: Tensor) -> bool:
    """Whether :func:`decibels` can be asked."""
    return images.shape[2:] == originals.shape[2:] and images.shape[1] in (1, originals.shape[1])


def decibels(images: Tensor, originals: Tensor) -> Tensor:
    """PSNR (B,) on the CPU, also of grey ``images`` beside colour ``originals`` (B, C, H, W)."""
    return psnr(images.detach().expand_as(originals).cpu(), originals.detach().cpu(), clip=True)


def _figure(parts: Sequence[Part]) -> Figure:
    # Without pyplot, which would keep every figure, and the notebook would show them once more.
    heights = [part.height for part in parts]
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    strips = figure.subfigures(len(parts), height_ratios=heights, squeeze=False)[:, 0]
    for part, strip in zip(parts, strips, strict=True):
        part.draw(strip)
        for axis in strip.findobj(Axes) if not math.isnan(part.mark) else ():
            cast(Axes, axis).axvline(part.mark, color="0.4", linewidth=1)
    return figure
