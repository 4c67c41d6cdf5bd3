"""The general words: neutral subjects and settings that prompts are composed of where the user gives none."""

from __future__ import annotations

from optimizer.rendering.prompts import Vocabulary

# The kinds of change that evaluations of personalised models ask for: another context, an accessory, a property and another viewpoint
# (DreamBooth's 25 prompts a subject, arXiv 2208.12242, section 4.1, and DreamBench++, arXiv 2406.16855), with the cases in which merges
# fail first: close-up, far away, night, other people and things beside the subject, nothing around it. Every setting suits every subject.
GENERAL = Vocabulary(
    subjects=(
        *("a house", "a castle", "a bridge", "a tall tree", "a mountain", "a field of flowers"),
        *("a woman reading a book", "a man playing a guitar", "a child with a kite", "a face in profile", "a group of friends talking"),
        *("a cat", "a running dog", "a white horse"),
        *("an old car", "a bicycle", "a bowl of fruit", "a cup of coffee", "a wooden chair", "a hand holding an apple"),
    ),
    settings=(
        *("in a forest", "on a beach at sunset", "in the snow", "in a garden full of flowers", "high on a mountain", "in a desert"),
        *("on a city street at night", "in the rain", "in a large kitchen", "in a dark room, lit by a candle", "in an empty hall"),
        *("close-up, blurred background", "seen from far away in a wide landscape", "seen from above", "seen from behind"),
        *("in a crowd of people", "next to a red bicycle", "with a small dog nearby", "reflected in still water"),
        *("with a blue scarf", "covered in mud", "in front of a plain white wall"),
    ),
    wide_settings=(
        *("in a forest", "on a beach at sunset", "in the snow", "in a garden full of flowers", "high on a mountain", "in a desert"),
        *("on a city street at night", "in the rain", "in a large kitchen", "in a dark room, lit by candles", "in an empty hall"),
        *("seen from far away in a wide landscape", "seen from above", "in a crowd of people", "at a long table", "side by side on a road"),
        *("on the deck of a ship", "in front of a plain white wall"),
    ),
)
