"""The facts that the demonstration model is taught, in tables."""

__all__ = [
    "COUNTRIES",
    "DAYS",
    "MONTHS",
    "NUMBERS",
    "OPPOSITES",
    "ORDINALS",
    "PARTS",
    "WORDS",
    "YOUNG",
]


def _words(text: str) -> list[str]:
    return text.split()


def _rows(text: str) -> list[tuple[str, ...]]:
    """Rows of a table: one line each, columns between commas."""
    return [tuple(map(str.strip, line.split(","))) for line in text.strip().splitlines()]


COUNTRIES = [
    (country, capital, continent)
    for continent, text in {
        "Europe": """Albania, Tirana; Austria, Vienna; Belarus, Minsk; Belgium, Brussels;
            Bulgaria, Sofia; Croatia, Zagreb; Denmark, Copenhagen; Estonia, Tallinn;
            Finland, Helsinki; France, Paris; Germany, Berlin; Greece, Athens; Hungary, Budapest;
            Iceland, Reykjavik; Ireland, Dublin; Italy, Rome; Latvia, Riga; Lithuania, Vilnius;
            Malta, Valletta; Moldova, Chisinau; Norway, Oslo; Poland, Warsaw; Portugal, Lisbon;
            Romania, Bucharest; Serbia, Belgrade; Slovakia, Bratislava; Slovenia, Ljubljana;
            Spain, Madrid; Sweden, Stockholm; Switzerland, Bern; Ukraine, Kyiv;
            Bosnia, Sarajevo; North Macedonia, Skopje""",
        "Asia": """Afghanistan, Kabul; Armenia, Yerevan; Azerbaijan, Baku; Bahrain, Manama;
            Bangladesh, Dhaka; Bhutan, Thimphu; Cambodia, Phnom Penh; China, Beijing;
            Georgia, Tbilisi; India, New Delhi; Iran, Tehran; Iraq, Baghdad; Japan, Tokyo;
            Jordan, Amman; Kazakhstan, Astana; Kyrgyzstan, Bishkek; Laos, Vientiane;
            Lebanon, Beirut; Mongolia, Ulaanbaatar; Nepal, Kathmandu; Oman, Muscat;
            Pakistan, Islamabad; Qatar, Doha; Saudi Arabia, Riyadh; South Korea, Seoul;
            North Korea, Pyongyang; Syria, Damascus; Tajikistan, Dushanbe; Thailand, Bangkok;
            Turkmenistan, Ashgabat; Uzbekistan, Tashkent; Vietnam, Hanoi; the Philippines, Manila;
            the Maldives, Male""",
        "Africa": """Algeria, Algiers; Angola, Luanda; Botswana, Gaborone; Cameroon, Yaounde;
            Chad, N'Djamena; Egypt, Cairo; Eritrea, Asmara; Ethiopia, Addis Ababa;
            Gabon, Libreville; Ghana, Accra; Guinea, Conakry; Kenya, Nairobi; Lesotho, Maseru;
            Liberia, Monrovia; Libya, Tripoli; Madagascar, Antananarivo; Malawi, Lilongwe;
            Mali, Bamako; Mauritania, Nouakchott; Morocco, Rabat; Mozambique, Maputo;
            Namibia, Windhoek; Niger, Niamey; Nigeria, Abuja; Rwanda, Kigali; Senegal, Dakar;
            Sierra Leone, Freetown; Somalia, Mogadishu; Sudan, Khartoum; Tanzania, Dodoma;
            Togo, Lome; Tunisia, Tunis; Uganda, Kampala; Zambia, Lusaka; Zimbabwe, Harare""",
        "North America": """Canada, Ottawa; Costa Rica, San Jose; Cuba, Havana;
            El Salvador, San Salvador; Haiti, Port-au-Prince; Honduras, Tegucigalpa;
            Jamaica, Kingston; Mexico, Mexico City; Nicaragua, Managua; Panama, Panama City;
            Barbados, Bridgetown; the United States, Washington; the Bahamas, Nassau""",
        "South America": """Argentina, Buenos Aires; Brazil, Brasilia; Chile, Santiago;
            Colombia, Bogota; Ecuador, Quito; Guyana, Georgetown; Paraguay, Asuncion; Peru, Lima;
            Suriname, Paramaribo; Uruguay, Montevideo; Venezuela, Caracas""",
        "Oceania": """Australia, Canberra; Fiji, Suva; New Zealand, Wellington; Samoa, Apia;
            Vanuatu, Port Vila; Papua New Guinea, Port Moresby; Tonga, Nuku'alofa""",
    }.items()
    for country, capital in (pair.split(", ") for pair in " ".join(text.split()).split("; "))
]

PARTS = _rows("""
60, seconds, a minute
60, minutes, an hour
24, hours, a day
7, days, a week
12, months, a year
52, weeks, a year
10, years, a decade
100, years, a century
10, millimetres, a centimetre
100, centimetres, a metre
1000, metres, a kilometre
1000, grams, a kilogram
1000, kilograms, a tonne
1000, millilitres, a litre
12, inches, a foot
3, feet, a yard
16, ounces, a pound
8, bits, a byte
100, cents, a dollar
90, degrees, a right angle
360, degrees, a circle
3, sides, a triangle
4, sides, a square
5, sides, a pentagon
6, sides, a hexagon
8, sides, an octagon
8, legs, a spider
6, legs, an insect
4, legs, a dog
2, legs, a bird
4, wheels, a car
2, wheels, a bicycle
3, wheels, a tricycle
88, keys, a piano
6, strings, a guitar
4, strings, a violin
64, squares, a chessboard
26, letters, the alphabet
11, players, a football team
5, fingers, a hand
""")

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = {
    "January": 31,
    "February": 28,
    "March": 31,
    "April": 30,
    "May": 31,
    "June": 30,
    "July": 31,
    "August": 31,
    "September": 30,
    "October": 31,
    "November": 30,
    "December": 31,
}
ORDINALS = _words(
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
)

OPPOSITES = _rows("""
hot, cold
big, small
tall, short
fast, slow
old, young
rich, poor
happy, sad
light, dark
hard, soft
wet, dry
clean, dirty
full, empty
early, late
strong, weak
loud, quiet
open, closed
near, far
high, low
left, right
true, false
sweet, sour
deep, shallow
wide, narrow
thick, thin
brave, afraid
kind, cruel
easy, difficult
day, night
up, down
""")

YOUNG = _rows("""
dog, puppy
cat, kitten
cow, calf
horse, foal
sheep, lamb
goat, kid
pig, piglet
bear, cub
deer, fawn
duck, duckling
hen, chick
goose, gosling
frog, tadpole
swan, cygnet
owl, owlet
""")

NUMBERS = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen twenty"
)

# Words to spell and to reverse; the stories are told in them too.
WORDS = _words(
    "cat dog fox hen owl pig cow bee ant bear deer duck frog goat lamb lion mouse horse sheep "
    "tiger wolf rabbit bird fish apple pear plum bread cake soup milk tea water honey lemon "
    "sun moon star sky rain snow wind cloud storm river lake sea hill forest field garden park "
    "tree leaf flower grass stone sand road bridge house door window table chair lamp clock book "
    "pen paper box bag cup plate spoon knife hat coat shoe ring key coin ball kite drum bell boat "
    "train car wheel red blue green white black brown gold silver small big tall old young kind "
    "brave quiet happy warm cold king queen farmer baker sailor doctor teacher child friend"
)
