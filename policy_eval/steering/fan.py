"""The imagined ends of the plans of one decision, side by side, as a picture."""

from policy_eval.steering.steered import Choice
from worldmodel.display.plots import empty_figure, png

COLUMNS = 4


def draw_fan(choice: Choice, stream: int = 0) -> bytes:
    """The last imagined picture of every plan of one stream with its score, as a PNG; the best is framed.

    Args:
        choice: A decision of a policy that imagines.
        stream: Which stream.
    """
    scores, best = choice.scores[stream].tolist(), int(choice.best[stream])
    ends = choice.candidates.imagined.frames[:, -1, 0].unflatten(0, choice.scores.shape)[stream].cpu().numpy()
    columns = min(COLUMNS, len(scores))
    rows = -(-len(scores) // columns)
    figure = empty_figure(4.6, 0.3 + 1.3 * rows)
    for number, (picture, score) in enumerate(zip(ends, scores, strict=True)):
        axes = figure.add_subplot(rows, columns, number + 1)
        axes.imshow(picture)
        axes.set(xticks=[], yticks=[])
        axes.set_title(f"{score:.2f}", fontsize=9, fontweight="bold" if number == best else "normal")
        for side in axes.spines.values():
            side.set(visible=number == best, color="C1", linewidth=3)
    return png(figure)
