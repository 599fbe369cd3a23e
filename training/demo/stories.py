"""Short stories from a grammar, requests for them, and openings that they go on from."""

from dataclasses import dataclass

from training.demo.dice import Dice

__all__ = [
    "ABOUT",
    "OPENINGS",
    "REQUESTS",
    "TITLES",
    "Tale",
    "opened",
    "requested",
    "story",
    "titled",
]


def _words(text: str) -> list[str]:
    return text.split()


_GIRLS = _words("Mia Anna Lily Nora Ella Ida Rosa Clara")
_BOYS = _words("Tom Leo Max Ben Sam Paul Finn Otto")
_NAMED = {"girl": _GIRLS, "boy": _BOYS, "king": _BOYS}
_HEROES = {
    "fox": "a small den",
    "rabbit": "a warm burrow",
    "mouse": "an old barn",
    "owl": "a tall tree",
    "bear": "a quiet cave",
    "frog": "a green pond",
    "farmer": "a little farm",
    "sailor": "a blue boat",
    "baker": "a busy street",
    "girl": "a small village",
    "boy": "a big city",
    "king": "an old castle",
}
_QUALITIES = _words("kind brave quiet happy young clever little old lonely friendly")


@dataclass(frozen=True)
class _Weather:
    """was: of a sentence about it. deed: what one does in it. air: the day. scene: in a request."""

    was: str
    deed: str
    air: str
    scenes: tuple[str, ...]


_WEATHER = (
    _Weather("the sun was shining", "went for a walk", "warm", ("in the sun", "on a sunny day")),
    _Weather("it was raining", "stayed under a roof", "wet", ("in the rain", "on a rainy day")),
    _Weather(
        "it was snowing", "built a snowman", "cold", ("in winter", "and the snow", "on a snowy day")
    ),
    _Weather("the wind was strong", "flew a kite", "windy", ("in the wind", "and a kite")),
    _Weather(
        "the sky was full of stars", "looked at the moon", "clear", ("at night", "and the stars")
    ),
)
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

# What a story is about; a space stands before it in a request.
ABOUT = {
    "": ("",) * 5,
    "hero": (
        " about {a_hero}",
        " about {a_hero}",
        " about {a_hero}",
        " about {a_quality_hero}",
        " about the {hero}",
        " with {a_hero} in it",
        " about {a_hero}",
    ),
    "name": (
        " about {a_hero} named {name}",
        " about {a_hero} called {name}",
        " about {a_quality_hero} named {name}",
        " about {a_hero} whose name is {name}",
        " about {name} the {hero}",
        " about {name}",
        " about the {hero} {name}",
    ),
    "thing": (
        " about {a_hero} and {a_thing}",
        " about {a_hero} and {a_thing}",
        " about {a_hero} and {a_color_thing}",
        " about {a_hero} who found {a_thing}",
        " about {a_hero} who finds {a_color_thing}",
        " about {a_hero} that found {a_thing}",
        " about {a_hero} with {a_thing}",
        " about {a_thing}",
        " about {a_thing} and {a_hero}",
        " with {a_hero} and {a_thing} in it",
        " in which {a_hero} finds {a_thing}",
    ),
    "friend": (
        " about {a_hero} and {a_kind}",
        " about {a_hero} and {a_kind}",
        " about {a_hero} and {a_kind} who become friends",
        " about {a_hero} who meets {a_kind}",
        " with {a_hero} and {a_kind} in it",
        " about the friends {name} and {friend}",
        " about {name} and {friend}",
    ),
    "weather": (
        " about {a_hero} {scene}",
        " about {name} {scene}",
        " about {a_quality_hero} {scene}",
    ),
    "place": (
        " about {a_hero} near {place}",
        " about {a_hero} at {place}",
        " about {name} and {place}",
    ),
}
# "{}" is what it is about.
REQUESTS = (
    "Tell me a tale{}.",
    "Tell us a story{}.",
    "Tell me a nice story{}.",
    "Tell me a short story{}.",
    "Tell me a little story{}.",
    "Tell me another story{}.",
    "Now tell me one more story{}.",
    "Tell a tale{}.",
    "Tell a short story{}.",
    "Can you tell me a story{}?",
    "Can you tell a story{}?",
    "Can you tell us a little tale{}?",
    "Could you tell me a story{}?",
    "Could you write a story{}?",
    "Will you tell me a story{}?",
    "Would you tell me a short story{}?",
    "Please tell me a tale{}.",
    "Please tell us a story{}.",
    "Please tell a short story{}.",
    "Please write us a story{}.",
    "Please write a short story{}.",
    "Write a tale{}.",
    "Write a short story{}.",
    "Write me a story{}.",
    "Write me a bedtime story{}, please.",
    "Make up a tale{}.",
    "Please make up a story{}.",
    "Make up a little story{} for me.",
    "Invent a story{}.",
    "Give me a story{}.",
    "Give me a short tale{}.",
    "Give us a nice story{}.",
    "I want to hear a story{}.",
    "I want a story{}.",
    "I would like a story{}.",
    "I would like to read a short story{}.",
    "I would love to hear a tale{}.",
    "May I hear a story{}?",
    "Let me hear a story{}.",
    "Let us hear a tale{}.",
    "Do you know a tale{}?",
    "Do you know any stories{}?",
    "Do you have a story{} for me?",
    "Have you got a story{}?",
    "A tale{}, please.",
    "A short story{}, please.",
    "One more story{}, please.",
    "Story{}, please.",
    "Read me a story{}.",
    "Read me a bedtime story{}.",
    "How about a bedtime story{}?",
)
TITLES = (
    "The {hero} and the {thing}\n\n",
    "The {hero} and the {color} {thing}\n\n",
    "The {hero} and the {kind}\n\n",
    "Title: The {hero} and the {color} {thing}\n\n",
    "Title: The {hero} and the {thing}\n\n",
    "Tale: {name} and the {color} {thing}\n\n",
    "Title: {name} the {hero}\n",
    "The story of {name} the {hero}\n\n",
    "The tale of the {hero} and the {thing}.\n",
    "The story of {a_hero} and {a_thing}:",
    "A tale about {a_hero}:",
    "A short story about {a_hero} and {a_thing}:",
    "A little story about {name} the {hero}:",
    "This is a story about {a_hero}.",
    "This is a tale about {a_hero} and {a_thing}.",
    "Here is a tale about {name}.",
    "Here comes a story about {a_hero} and {a_kind}.",
    "Here is the story of {a_hero} who found {a_thing}.",
    "Now follows a story about {a_hero} named {name}.",
    "A tale of {a_hero} and {a_color_thing}\n\n",
    "Bedtime story: {name} and the {thing}\n\n",
)
# What each opening has told already: the hero and its name ("who"), its home, a deed in some
# weather, what was found. "|" stands where the reader may stop and the story must go on.
OPENINGS = (
    ("who", "Once upon a time there was {a_quality_hero} named {name}.|"),
    ("who", "Once upon a time| there was {a_quality_hero} called {name}."),
    ("who home", "Once upon a time {a_quality_hero} named {name}| lived in {home}."),
    ("who home", "A long time ago {a_hero} called {name}| lived in {home}."),
    ("who home", "Many years ago, {a_quality_hero} named {name}| lived in {home}."),
    ("who home", "Long, long ago {a_hero} whose name was {name}| lived in {home}."),
    ("who", "There was {a_quality_hero}, and the name of the {hero} was {name}.|"),
    ("who", "There lived {a_quality_hero} called {name}.|"),
    ("who home", "There lived {a_quality_hero} called {name} who| lived in {home}."),
    ("who home", "Once there lived {a_hero} named {name} who| had {home}."),
    ("who home", "A long time ago there was {a_quality_hero} named {name} who| lived in {home}."),
    ("who home", "Once upon a time there was {a_hero} called {name}, who| lived in {home}."),
    ("who home", "In {home} there was {a_hero} named {name}.|"),
    ("who home", "In {home} lived {a_quality_hero} called {name}.|"),
    ("who home", "In {home} there lived {a_hero}. The name of the {hero} was {name}.|"),
    ("home hero", "In {home} there lived {a_quality_hero}.| The {hero} was called {name}."),
    ("who", "{name} was {a_quality_hero}.|"),
    ("who home", "{name} the {hero}| lived in {home}."),
    ("who home", "{name}, {a_quality_hero},| lived in {home}."),
    ("who found", "{a_hero} called {name} found {a_color_thing}.|"),
    ("who found", "{a_quality_hero} named {name} once found {a_color_thing} near {place}.|"),
    ("who found", "One morning {a_hero} named {name}| found {a_color_thing} near {place}."),
    ("who found", "One day {name} the {hero} found {a_color_thing}.|"),
    ("who found", "Near {place} {a_hero} called {name} found {a_color_thing}.|"),
    ("who found", "{name} the {hero} found {a_color_thing} one day.|"),
    ("hero found", "One morning {a_hero} found {a_color_thing}.| The {hero} was called {name}."),
    ("hero found", "{a_hero} once found {a_color_thing}.| The {hero} was called {name}."),
    ("hero found", "Near {place} {a_hero} found {a_color_thing}.| The {hero} was called {name}."),
    (
        "hero found",
        "Yesterday {a_hero} found {a_color_thing} near {place}.| The {hero} was called {name}.",
    ),
    ("found", "One day {name} found {a_color_thing}.|"),
    ("found", "{name} found {a_color_thing} near {place}.|"),
    ("weather", "One day {was}, and {name}| {deed}."),
    ("weather", "All day {was}, and {name}| {deed}."),
    ("weather", "In the morning {was}, so {name}| {deed}."),
    ("weather", "Because {was}, {name}| {deed}."),
    ("weather", "It was a {air} day, and {name}| {deed}."),
    ("weather", "One {air} day {name}| {deed}."),
    ("who weather", "It was a {air} day, and {name} the {hero}| {deed}."),
    ("who weather", "On a {air} day {a_hero} named {name}| {deed}."),
)


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


class Tale:
    """The people, places and things of one story, which stay the same in it."""

    def __init__(self, dice: Dice) -> None:
        """Draw them."""
        self._dice = dice
        hero = dice.pick(list(_HEROES))
        kind = dice.pick([other for other in _HEROES if other != hero])
        name = dice.pick(_NAMED.get(hero, _GIRLS + _BOYS))
        friends = [other for other in _NAMED.get(kind, _GIRLS + _BOYS) if other != name]
        self.weather = dice.pick(_WEATHER)
        thing, color, quality = dice.pick(_THINGS), dice.pick(_COLORS), dice.pick(_QUALITIES)
        self.words = {
            "name": name,
            "friend": dice.pick(friends),
            "hero": hero,
            "a_hero": _with_article(hero),
            "a_quality_hero": _with_article(f"{quality} {hero}"),
            "home": _HEROES[hero],
            "kind": kind,
            "a_kind": _with_article(kind),
            "home_of_friend": _HEROES[kind],
            "was": self.weather.was,
            "deed": self.weather.deed,
            "air": self.weather.air,
            "scene": dice.pick(self.weather.scenes),
            "place": dice.pick(_PLACES),
            "thing": thing,
            "color": color,
            "a_thing": _with_article(thing),
            "a_color_thing": _with_article(f"{color} {thing}"),
            "food": dice.pick(_FOODS),
            "feeling": dice.pick(_FEELINGS),
        }

    def fill(self, wording: str) -> str:
        """*wording* with the words of this story; its first letter is a capital."""
        text = wording.format(**self.words)
        start = text.lstrip()
        return text if not start else text.replace(start[0], start[0].upper(), 1)

    def tell(self, told: str = "", weather: bool = False) -> str:
        """The sentences after an opening that has told some parts (see OPENINGS).

        weather: whether it must be told. Without *told*, from the beginning on.
        """
        dice, parts = self._dice, told.split()
        who = "who" in parts or "hero" in parts
        ending = dice.pick(_ENDINGS)
        sentences = [
            "Once upon a time there was {a_quality_hero} named {name}." if not told else "",
            "{name} was {a_quality_hero}." if told and not who else "",
            "{name} lived in {home}." if not {"home", "found"} & set(parts) else "",
            "One day {was}, and {name} {deed}."
            if (weather or dice.below(2)) and not {"weather", "found"} & set(parts)
            else "",
            "It was a {air} day." if not parts and dice.below(2) else "",
            "Near {place} {name} found {a_color_thing}." if "found" not in parts else "",
            '"Whose {thing} is this?" asked {name}.',
            '{a_kind} named {friend} came and said: "The {color} {thing} is mine."',
            "{name} gave the {thing} to {friend}.",
            "{friend} was very {feeling} and gave {name} {food}.",
            "They ate it together in {home_of_friend}." if dice.below(2) else "",
            ending,
        ]
        return " ".join(self.fill(sentence) for sentence in sentences if sentence)


def story(dice: Dice) -> str:
    """A story of seven to ten sentences."""
    return Tale(dice).tell()


def requested(dice: Dice) -> tuple[str, str]:
    """A request for a story, and the story."""
    tale = Tale(dice)
    features = {"": 2, "hero": 5, "name": 4, "thing": 5, "friend": 4, "weather": 3, "place": 1}
    feature = dice.weighted(list(features), list(features.values()))
    about = dice.pick(ABOUT[feature]).format(**tale.words)
    return dice.pick(REQUESTS).format(about), tale.tell(weather=feature == "weather")


def titled(dice: Dice) -> tuple[str, str]:
    """A title, or a sentence that announces a story, and the story."""
    tale = Tale(dice)
    title = tale.fill(dice.pick(TITLES))
    return title, ("" if title.endswith("\n") else " ") + tale.tell()


def opened(dice: Dice) -> tuple[str, str]:
    """How a story begins, up to anywhere, and how it goes on."""
    tale = Tale(dice)
    told, wording = dice.pick(OPENINGS)
    opening, rest = tale.fill(wording).split("|")
    return opening, f"{rest} {tale.tell(told)}"
