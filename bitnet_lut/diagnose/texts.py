"""Texts that a healthy model finds easy: the most ordinary English, written for this purpose.

Models of a small world know only simple sentences, so each text is measured alone and the best one
counts.
"""

__all__ = ["PROMPTS", "TEXTS"]

TEXTS = {
    "prose": (
        "The village lay in a narrow valley between two long hills, and in winter the sun did not "
        "reach it before ten in the morning. Most of the people worked on the farms or in the old "
        "mill by the river, which had been built more than two hundred years ago and still ground "
        "flour for the whole county. On market days the farmers brought their vegetables, eggs and "
        "cheese to the square, and the children ran between the stalls until they were called "
        "home. Nobody locked the doors at night. When the railway came, many of the young men went "
        "to the city to look for work, and some of them never returned. Those who did come back "
        "told stories of wide streets, bright lights and crowds of strangers, and the old people "
        "listened, shook their heads and said that they would rather stay where they were."
    ),
    "simple": (
        "The capital of France is Paris. The capital of Japan is Tokyo. The capital of Italy is "
        "Rome. The day after Monday is Tuesday. The month before May is April. The opposite of hot "
        "is cold. A young dog is called a puppy. 2 + 3 = 5. 7 + 8 = 15. Germany is in Europe. A "
        "week has 7 days. The opposite of big is small. The capital of Spain is Madrid. Once upon "
        "a time there was a little fox. It lived in the forest."
    ),
}

# Beginnings that nobody would end there.
PROMPTS = (
    "The capital of France is",
    "Once upon a time there was a",
    "The most important thing about",
    "In the morning they went to the",
)
