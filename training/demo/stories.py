"""Short stories from a grammar."""

from training.demo.dice import Dice

__all__ = ["story"]


def _words(text: str) -> list[str]:
    return text.split()


_NAMES = _words("Mia Tom Anna Leo Lily Max Nora Ben Ella Sam Ida Paul Rosa Finn Clara Otto")
_HEROES = [
    ("fox", "a small den"),
    ("rabbit", "a warm burrow"),
    ("mouse", "an old barn"),
    ("owl", "a tall tree"),
    ("bear", "a quiet cave"),
    ("frog", "a green pond"),
    ("farmer", "a little farm"),
    ("sailor", "a blue boat"),
    ("baker", "a busy street"),
    ("girl", "a small village"),
    ("boy", "a big city"),
    ("king", "an old castle"),
]
_QUALITIES = _words("kind brave quiet happy young clever little old lonely friendly")
_WEATHER = [
    ("the sun was shining", "went for a walk", "warm"),
    ("it was raining", "stayed under a roof", "wet"),
    ("it was snowing", "built a snowman", "cold"),
    ("the wind was strong", "flew a kite", "windy"),
    ("the sky was full of stars", "looked at the moon", "clear"),
]
_PLACES = ["the forest", "the river", "the lake", "the garden", "the hill", "the field", "the road"]
_THINGS = ["ball", "key", "coin", "ring", "book", "hat", "lamp", "drum", "bell", "box"]
_COLORS = _words("red blue green white black brown golden silver yellow")
_FOODS = ["an apple", "a pear", "some bread", "a cake", "hot soup", "honey", "a plum", "milk"]
_FEELINGS = ["happy", "glad", "proud", "surprised"]
_ENDINGS = [
    "From that day on, {name} and {friend} were friends.",
    "In the evening they went home together.",
    "That night {name} slept very well.",
    "{name} never forgot that day.",
    "And {name} told everybody about it.",
]


def story(dice: Dice) -> str:
    """A story of seven to nine sentences, whose people, places and things stay the same."""
    name = dice.pick(_NAMES)
    friend = dice.pick([other for other in _NAMES if other != name])
    hero, home = dice.pick(_HEROES)
    kind, home_of_friend = dice.pick([other for other in _HEROES if other[0] != hero])
    weather, deed, air = dice.pick(_WEATHER)
    place, thing, color = dice.pick(_PLACES), dice.pick(_THINGS), dice.pick(_COLORS)
    food, feeling, quality = dice.pick(_FOODS), dice.pick(_FEELINGS), dice.pick(_QUALITIES)
    article = "an" if quality[0] in "aeiou" else "a"
    found = "an" if color[0] in "aeiou" else "a"
    who = "An" if kind[0] in "aeiou" else "A"
    sentences = [
        f"Once upon a time there was {article} {quality} {hero} named {name}.",
        f"{name} lived in {home}.",
        f"One day {weather}, and {name} {deed}." if dice.below(2) else "",
        f"It was a {air} day." if dice.below(2) else "",
        f"Near {place} {name} found {found} {color} {thing}.",
        f'"Whose {thing} is this?" asked {name}.',
        f'{who} {kind} named {friend} came and said: "The {color} {thing} is mine."',
        f"{name} gave the {thing} to {friend}.",
        f"{friend} was very {feeling} and gave {name} {food}.",
        f"They ate it together in {home_of_friend}." if dice.below(2) else "",
        dice.pick(_ENDINGS).format(name=name, friend=friend),
    ]
    return " ".join(filter(None, sentences))
