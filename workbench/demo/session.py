"""What the page does, without the page: from the values of its controls to pictures and comparisons."""

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import Any, cast

from PIL import Image
from torch import Tensor

from workbench.demo.compare import Board, compare
from workbench.demo.controls import takes_kernel, takes_mask
from workbench.demo.files import MASK, Export, Visits, export
from workbench.demo.kernel import take_kernel
from workbench.demo.photo import canvas_of, frame, read_mask, read_photo
from workbench.demo.problem import Limits, Problem, Row, check_number, check_size, methods_of, read_noise, write_mask
from workbench.demo.view import board_html
from workbench.images import save_image, to_pillow
from workbench.measurement import observe
from workbench.models import Prior, describe_priors, load_prior
from workbench.models.load import DEFAULTS
from workbench.noise_level import noise_of
from workbench.recipe import Method, make_recipe, measure
from workbench.solvers import SOLVERS, describe_solvers

PREVIEWS = 4  # at a time: each may hold a large photo in memory
PAINT_THEM = "choose Painted mask or Old photo, and paint over them or upload a mask"  # visitors name no files
NONE = ("", "")  # problem and methods where no results are seen
# A recipe has methods; where only its measurement is wanted, one that is not run.
NO_METHODS = (Method(solver="pinv", prior="photo"),)


class Sessions:
    """Answers visitors, each of whom is known by a session.

    Args:
        sources: name on the page -> what ``load_prior`` takes.
        visits: where files of visitors are.
    """

    def __init__(self, limits: Limits, sources: Mapping[str, str], visits: Visits) -> None:
        self.limits, self.sources, self.visits = limits, sources, visits
        self._cards = {card["name"]: card for card in describe_priors()}
        self._loaded: dict[str, Prior] = {}
        self._loading = threading.Lock()
        self._few = threading.Semaphore(PREVIEWS)
        self.opening = NONE  # what a visitor sees first
        self._shown: dict[str, tuple[str, str]] = {}  # session -> problem and methods whose results it sees
        self._estimated: dict[str, tuple[Problem, str]] = {}  # session -> of which framing, and what was found

    def prior(self, method: Method) -> Prior:
        """The prior of ``method``, read once."""
        with self._loading:
            if method.prior not in self._loaded:
                self._loaded[method.prior] = load_prior(self.sources[method.prior])
            return self._loaded[method.prior]

    def prior_summaries(self) -> dict[str, str]:
        """Name -> one line, for every prior that can be chosen."""
        return {name: self._cards.get(source, {}).get("summary", source) for name, source in self.sources.items()}

    def usual_priors(self) -> dict[str, str]:
        """Kind -> the prior to start with, for the kinds that are shipped or were read already."""
        kinds = {prior.kind: name for name, prior in self._loaded.items()} | DEFAULTS
        return {kind: name for kind, name in kinds.items() if name in self.sources}

    def solvers(self) -> list[tuple[str, str, str]]:
        """(name, one line, paper) of the solvers for which there is a prior: no feed-forward network is shipped."""
        usual = self.usual_priors()
        return [each for each in describe_solvers() if SOLVERS[each[0]].prior_kind in usual]

    def prior_titles(self) -> dict[str, str]:
        """Name -> the name with how the prior was trained, where its card says that."""
        return {name: f"{name}{_objective(self._cards.get(source, {}))}" for name, source in self.sources.items()}

    def degrade(
        self, problem: Problem, session: str, folder: Path, methods: tuple[Method, ...] = NO_METHODS, samples: int = 1
    ) -> Board:
        """The measurement that ``problem`` describes, and the recipe of all.

        Args:
            folder: where a mask or kernel is written.

        Raises:
            ValueError: whatever is wrong with it, in a sentence.
        """
        self.visits.brought(session, problem.files)
        picture, remark = self._picture(problem.photo, session)
        image = frame(picture, problem, self.limits.pixels)
        spec = self._spec(problem, picture, image, session, folder)
        recipe = make_recipe(
            photo="photo.png" if problem.came else "original.png",
            degrade="none" if problem.came else spec,
            operator=spec if problem.came else None,
            noise=read_noise(problem.noise),
            seed=int(problem.seed),
            samples=samples,
            methods=methods,
        )
        check_size(recipe, image, self.limits)
        try:
            return Board(recipe, image, measure(recipe, image), remark)
        except ValueError as error:
            said = str(error).replace(f"{folder}/", "")  # folders are the server's own affair
            raise ValueError(re.sub("; paint them white .*", f"; {PAINT_THEM}", said)) from None

    def framed(self, problem: Problem, session: str) -> Tensor:
        """What of the photo is restored, (1, 3, h, w)."""
        return frame(self._picture(problem.photo, session)[0], problem, self.limits.pixels)

    def estimate(self, problem: Problem, session: str) -> tuple[float, str]:
        """The noise that the framed photo has, of one that came degraded where it counts, and a line that says it.

        Raises:
            ValueError: no photo, or a framing that is none.
        """
        with self._few:
            picture = self._picture(problem.photo, session)[0]
            image = frame(picture, problem, self.limits.pixels)
            level, line = noise_of(image)
            if problem.came:
                # A degradation that is not yet written, or painted, is none.
                with suppress(ValueError), TemporaryDirectory(dir=self.visits.root) as folder:
                    seen = observe(image, self._spec(problem, picture, image, session, Path(folder)), "auto")
                    level, line = cast(float, seen.noise), seen.remark
        level = round(level, 3)
        line = line.capitalize()
        self._estimated[session] = _framing(replace(problem, noise=level)), line
        return level, line

    def estimated(self, problem: Problem, session: str) -> str:
        """What was last estimated, as long as the photo is framed so and its noise is that; else nothing."""
        framing, line = self._estimated.get(session, (None, ""))
        return line if framing == _framing(problem) else ""

    def preview(self, problem: Problem, session: str) -> str:
        """The board before anything is restored, without any file."""
        with self._few, TemporaryDirectory(dir=self.visits.root) as folder:
            return board_html(self.degrade(problem, session, Path(folder)))

    def shows_results_of(self, problem: Problem, session: str) -> bool:
        """Whether the visitor sees results of this very problem: a preview, asked for late, must not hide them."""
        if self._shown.get(session, self.opening)[0] == problem.fingerprint():
            return True
        self.shows_none(session)
        return False

    def shows(self, problem: Problem, rows: Sequence[Row], samples: float, session: str) -> None:
        """The visitor sees results of these methods for ``problem``."""
        self._shown[session] = problem.fingerprint(), repr((rows, samples))

    def shows_none(self, session: str) -> None:
        """The visitor sees no results any more."""
        self._shown[session] = NONE

    def shows_results_of_others(self, rows: Sequence[Row], samples: float, session: str) -> bool:
        """Whether the visitor sees results, but of other methods, settings or samples."""
        return self._shown.get(session, self.opening)[1] not in ("", repr((rows, samples)))

    def canvas(self, problem: Problem, session: str) -> dict[str, Any] | None:
        """The picture to paint on, as the editor takes it; None where there is none, or its visitor has just left."""
        # A file of this visit: those that Gradio writes are shared by all who see the same picture.
        file = self.visits.folder(session, f"canvas {token_hex()}") / "canvas.png"
        with suppress(ValueError, FileNotFoundError):  # what is wrong with the photo is said by the preview
            canvas_of(self.framed(problem, session)).save(file)
            return {"background": str(file), "layers": [], "composite": None}
        return None

    def leave(self, session: str) -> None:
        """The visitor closed the page."""
        self._shown.pop(session, None)
        self._estimated.pop(session, None)
        self.visits.leave(session)

    def degraded_files(self, problem: Problem, session: str) -> tuple[Path, Path]:
        """The prepared and the degraded picture as files."""
        folder = self.visits.folder(session, "degraded")
        with self._few:
            board = self.degrade(problem, session, folder)
        files = folder / "prepared.png", folder / "degraded.png"
        save_image(board.photo, files[0])
        save_image(board.degraded.picture, files[1])
        return files

    def restore(
        self, problem: Problem, rows: Sequence[Row], samples: float, session: str
    ) -> Iterator[tuple[Board, Export | None]]:
        """Check everything, then run all methods: the board as it comes, at the end with its files if any was done.

        Raises:
            ValueError: see :func:`workbench.demo.problem.methods_of` and :meth:`degrade`.
        """
        methods = methods_of(rows, self.prior_titles(), self.limits)
        check_number("samples", samples, 1, self.limits.samples, whole=True)
        before, now = self._shown.get(session, NONE), (problem.fingerprint(), repr((rows, samples)))
        self._shown[session] = now
        folder = self.visits.folder(session, "results")
        try:
            board = start = self.degrade(problem, session, folder, methods, int(samples))
        except ValueError:  # what was shown stays
            self._shown[session] = before
            raise
        with self.visits.making(folder):
            for board in compare(start, self.prior, self.limits.seconds):
                if not folder.exists():  # its visitor left, nobody waits for it
                    return
                yield board, None
            self._shown[session] = now  # also where something was changed meanwhile, and back
            files = export(board, folder) if any(panel.state == "done" for panel in board.panels) else None
        if files is not None:
            yield board, files

    def _picture(self, file: str | None, session: str) -> tuple[Image.Image, str]:
        """An uploaded picture, and a remark on how it was read."""
        if not file:
            raise ValueError("choose a photo first")
        self.visits.uses(session, file)
        return read_photo(file, self.limits.photo_pixels)

    def _spec(self, problem: Problem, photo: Image.Image, image: Tensor, session: str, folder: Path) -> str:
        """The operator as on the command line, with its mask or kernel in ``folder``."""
        return problem.spec(self._mask(problem, photo, image, session, folder), self._kernel(problem, session, folder))

    def _mask(self, problem: Problem, photo: Image.Image, image: Tensor, session: str, folder: Path) -> Path | None:
        """What was painted or uploaded, as a file in ``folder``, for degradations that take a mask."""
        if not takes_mask(problem.operator):
            return None
        size = (image.shape[-1], image.shape[-2])
        if not problem.mask:
            return write_mask(problem.layers, size, folder / MASK)
        self.visits.uses(session, problem.mask)
        drawn = read_mask(problem.mask, self.limits.photo_pixels)
        if drawn.size == photo.size:
            drawn = to_pillow(frame(drawn, problem, self.limits.pixels))
        if drawn.size != size:
            sizes = [f"{width}x{height}" for width, height in (drawn.size, photo.size, size)]
            raise ValueError(f"the mask has {sizes[0]} pixels, the photo {sizes[1]}, what is restored of it {sizes[2]}")
        drawn.save(folder / MASK)
        return folder / MASK

    def _kernel(self, problem: Problem, session: str, folder: Path) -> Path | None:
        """What was uploaded, as a file in ``folder``, for degradations that take a kernel."""
        if not (problem.kernel and takes_kernel(problem.operator)):
            return None
        self.visits.uses(session, problem.kernel)
        return take_kernel(problem.kernel, folder, self.limits.pixels)


def _framing(problem: Problem) -> Problem:
    """What of ``problem`` an estimate of the noise depends on, and that noise."""
    noise = read_noise(problem.noise)
    return Problem(problem.photo, problem.fit, problem.side, problem.across, problem.down, noise=noise)


def _objective(card: Mapping[str, Any]) -> str:
    training = card.get("training", {})
    objective = str(training.get("objective", "")).partition(",")[0]
    if objective == "MUPET" and training.get("objective.alpha") == 0:
        objective = "DSM"  # without the loss at the fixed point, score matching is what remains
    return f" ({objective})" if objective else ""
